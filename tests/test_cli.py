"""The command line: what each command says, and how it ends."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import click
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from mcp_bridge.cli import main
from mcp_bridge.telemetry.logging import tear_down
from tests.fakes import Json
from tests.mcp_client.running import SCRIPTED

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS = sorted(main.commands)
EXAMPLE = re.compile(r"^ *(mcp-bridge .+)$", re.MULTILINE)

Configure = Callable[..., str]


@pytest.fixture(autouse=True)
def quiet_end() -> Iterator[None]:
    """A command sets the log up for its process; here the process goes on."""
    yield
    tear_down()


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes a configuration file and returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(**settings: Any) -> str:
        path = tmp_path / "given.json"
        path.write_text(json.dumps(settings))
        return str(path)

    return write


def invoke(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


def scripted(*behaviours: str, **more: Any) -> Json:
    return {"command": sys.executable, "args": [SCRIPTED, *behaviours], **more}


CLOCK = scripted(include=["echo", "meta"])
"""A server with two tools."""


TYPED = """
import json, sys
types = {"n": "integer", "ok": "boolean", "name": "string", "tags": "array"}
schema = {"type": "object", "properties": {k: {"type": v} for k, v in types.items()}}
answers = {
    "initialize": lambda p: {
        "protocolVersion": p["protocolVersion"],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "typed", "version": "1"},
    },
    "tools/list": lambda p: {"tools": [{"name": "show", "inputSchema": schema}]},
    "tools/call": lambda p: {
        "content": [{"type": "text", "text": json.dumps([p["arguments"].get(k) for k in types])}]
    },
}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        error = {"error": {"code": -32601, "message": "no"}}
        found = answers.get(asked["method"])
        said = {"result": found(asked.get("params"))} if found else error
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)
"""
"""A server whose tool has a schema, and returns what it was called with."""


# Help and documentation


def options_of(name: str) -> list[str]:
    found = [o for p in main.commands[name].params if isinstance(p, click.Option) for o in p.opts]
    return sorted(found)


def section_of(name: str) -> str:
    """The part of the document about a command."""
    (_, _, after) = DOCUMENT.partition(f"\n## {name}\n")
    return after.partition("\n## ")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_explains_itself(name: str) -> None:
    shown = invoke(name, "--help").output
    summary = (main.commands[name].help or "").splitlines()[0]
    assert f"  {summary}\n" in invoke("--help").output
    assert "Exit codes:" in shown
    assert "Example" in shown
    for option in options_of(name):
        assert option in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_documented_with_all_its_options(name: str) -> None:
    section = section_of(name)
    assert "Exit codes: 0" in section
    for option in options_of(name):
        assert f"`{option}" in section, f"docs/cli.md does not explain {option} of {name}"


def test_nothing_is_documented_that_is_not_there() -> None:
    for name in COMMANDS:
        explained = set(re.findall(r"^\| (`--.*?`) \|", section_of(name), re.MULTILINE))
        named = {option for cell in explained for option in re.findall(r"--[a-z-]+", cell)}
        assert named <= set(options_of(name))
    sections = re.findall(r"^## ([a-z]+)$", DOCUMENT, re.MULTILINE)
    assert sorted(sections) == COMMANDS


def examples() -> list[str]:
    helps = [main.commands[name].help or "" for name in COMMANDS]
    found = [line for text in (*helps, DOCUMENT) for line in EXAMPLE.findall(text)]
    return sorted({re.split(r" [>|] |  ", line)[0] for line in found})


@pytest.mark.parametrize("line", examples())
def test_an_example_is_a_command_that_exists(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    main.commands[name].make_context(name, arguments)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["version"], ["schema"], ["check"], ["sampling"]]
)
def test_what_talks_to_nobody_starts_without_the_sdks(
    arguments: list[str], configure: Configure
) -> None:
    script = (
        "import sys; from mcp_bridge.cli import main; main({!r}, standalone_mode=False); "
        "print(sorted({{'fastapi', 'uvicorn', 'mcp', 'openai'}} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script.format(arguments)], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mcp_bridge", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == invoke("version").output


# Version, schema, sampling


def test_the_versions_are_those_of_what_is_installed() -> None:
    lines = invoke("version").output.splitlines()
    assert {line.split()[0] for line in lines} >= {"mcp-bridge", "python", "mcp", "openai"}
    as_json = json.loads(invoke("version", "--json").output)
    assert [f"{name} {number}" for name, number in as_json.items()] == lines
    assert as_json["mcp-bridge"] in invoke("--version").output


def test_the_schema_is_one_and_takes_the_example_configuration() -> None:
    schema = json.loads(invoke("schema").output)
    Draft202012Validator.check_schema(schema)
    example = json.loads((ROOT / "config.json.example").read_text())
    Draft202012Validator(schema).validate(example)


def test_the_model_that_a_server_would_get_is_explained(configure: Configure) -> None:
    models = [{"model": "small", "speed": 1.0}, {"model": "large", "speed": 0.0}]
    path = configure(sampling={"models": models})
    assert invoke("sampling", "--config", path, "--speed", "1").output.startswith("small")
    assert invoke("sampling", "--config", path, "--hint", "large").output.startswith("large")


# Check


def test_a_configuration_without_mistakes_is_summed_up(configure: Configure) -> None:
    path = configure(
        inference_server={"base_url": "http://127.0.0.1:1/v1"},
        mcp_servers={"a": {"command": "x"}, "b": {"command": "x", "disabled": True}},
    )
    result = invoke("check", "--config", path)
    assert result.exit_code == 0
    assert result.stdout == f"{path}: 1 inference server, 2 MCP servers (1 disabled), 0 toolsets\n"


def test_check_names_every_mistake_and_fails(configure: Configure) -> None:
    path = configure(mcp_servers={"fetch": {}}, network={"port": "x", "host": "0.0.0.0"})
    result = invoke("check", "--config", path)
    assert result.exit_code == 1
    assert "mcp_servers.fetch: set either" in result.stderr
    assert "network.port: expected a whole number" in result.stderr
    found = json.loads(invoke("check", "--config", path, "--json").stdout)
    assert found["ok"] is False
    assert [f"error: {mistake}" for mistake in found["mistakes"]] == result.stderr.splitlines()


@pytest.mark.parametrize("command", ["check", "serve", "stdio", "tools", "doctor"])
def test_a_name_that_is_probably_wrong_is_told_beside_the_mistake_that_it_makes(
    command: str, configure: Configure
) -> None:
    auth = {"enabled": True, "api_kyes": [{"key": "x"}]}
    path = configure(inference_server={"base_url": "http://x/v1"}, security={"auth": auth})
    result = invoke(command, "--config", path)
    assert result.exit_code == 1
    assert "give at least one" in result.output
    assert 'did you mean "api_keys"?' in result.output


def test_check_shows_warnings_and_succeeds(configure: Configure) -> None:
    path = configure(mcp_servers={"fetch": {"command": "x", "comand": "y"}})
    result = invoke("check", "--config", path)
    assert result.exit_code == 0
    assert 'did you mean "command"?' in result.stderr
    found = json.loads(invoke("check", "--config", path, "--json").stdout)
    assert found["ok"] is True
    assert len(found["warnings"]) == 1


def test_check_shows_the_settings_in_effect_without_secrets(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_BRIDGE__NETWORK__PORT", "9999")
    path = configure(
        inference_server={"base_url": "http://127.0.0.1:1/v1", "api_key": "very-secret"}
    )
    result = invoke("check", "--config", path, "--show")
    assert json.loads(result.stdout)["network"]["port"] == 9999
    assert "very-secret" not in result.output


@pytest.mark.parametrize("command", ["serve", "stdio", "tools", "call x", "sampling", "doctor"])
def test_a_configuration_with_mistakes_ends_every_command_and_names_them_all(
    command: str, configure: Configure
) -> None:
    path = configure(mcp_servers={"fetch": {}}, network={"port": "x"})
    result = invoke(*command.split(), "--config", path)
    assert result.exit_code == 1
    assert "mcp_servers.fetch: set either" in result.output
    assert "network.port: expected a whole number" in result.output


def test_a_public_address_on_the_command_line_needs_authentication_too(
    configure: Configure,
) -> None:
    result = invoke("serve", "--config", configure(), "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "security.auth.enabled" in result.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert invoke("serve", "--port", "many").exit_code == 2
    assert invoke("nothing").exit_code == 2


# Tools


def test_tools_are_listed_with_their_server_and_the_first_line_of_their_description(
    configure: Configure,
) -> None:
    path = configure(mcp_servers={"clock": CLOCK, "off": {"command": "x", "disabled": True}})
    result = invoke("tools", "--config", path)
    assert result.exit_code == 0
    lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        ["echo", "clock"],
        ["meta", "clock"],
    ]
    assert lines[0][2] == "Tool echo"
    assert "2 tools of 1 server, about " in result.stderr


def test_tools_as_json_hold_the_definition_and_an_estimate_of_tokens(
    configure: Configure,
) -> None:
    path = configure(mcp_servers={"clock": CLOCK})
    found = json.loads(invoke("tools", "--config", path, "--json").stdout)
    assert [tool["name"] for tool in found["tools"]] == ["echo", "meta"]
    for tool in found["tools"]:
        told = [*tool["definition"].values(), {"type": "function", "function": {}}]
        assert len(json.dumps(told)) / 8 < tool["tokens"] < len(json.dumps(told)) / 3
    assert found["tokens"] == sum(tool["tokens"] for tool in found["tools"])
    assert found["failed"] == []


def test_tools_can_be_those_of_one_server_or_one_toolset(configure: Configure) -> None:
    path = configure(
        mcp_servers={"clock": CLOCK, "x": scripted()},
        toolsets={"now": {"include": ["clock:e*", "x:fail"], "prefix": "always"}},
    )
    one = invoke("tools", "--config", path, "--server", "clock").stdout
    assert [line.split()[0] for line in one.splitlines()] == ["echo", "meta"]
    some = invoke("tools", "--config", path, "--toolset", "now").stdout
    assert [line.split()[0] for line in some.splitlines()] == [
        "clock__echo",
        "x__fail",
    ]


def test_a_server_that_fails_is_named_and_the_others_are_listed(configure: Configure) -> None:
    path = configure(
        mcp_servers={"clock": CLOCK, "broken": scripted("crash"), "gone": {"command": "no-such"}}
    )
    result = invoke("tools", "--config", path)
    assert result.exit_code == 1
    assert "Tool echo" in result.stdout
    assert "FAIL broken: failed: " in result.stderr
    assert "FAIL gone: failed: command not found: no-such" in result.stderr
    only_this = invoke("tools", "--config", path, "--server", "clock")
    assert only_this.exit_code == 0


def test_a_server_whose_secret_is_missing_has_failed(configure: Configure) -> None:
    path = configure(mcp_servers={"a": {"command": "x", "env": {"KEY": "${NOT_SET_ANYWHERE}"}}})
    result = invoke("tools", "--config", path, "--json")
    assert result.exit_code == 1
    (failed,) = json.loads(result.stdout)["failed"]
    assert "NOT_SET_ANYWHERE" in failed["error"]


@pytest.mark.parametrize(
    "arguments", [["tools", "--server", "clok"], ["tools", "--toolset", "clok"]]
)
def test_a_name_that_does_not_exist_gets_close_ones(
    arguments: list[str], configure: Configure
) -> None:
    path = configure(mcp_servers={"clock": CLOCK}, toolsets={"clock": {}})
    result = invoke(*arguments, "--config", path)
    assert result.exit_code == 1
    assert "there is no" in result.stderr
    assert "did you mean clock?" in result.stderr


def test_no_secret_of_a_server_that_fails_is_shown(configure: Configure) -> None:
    code = "import os, sys; sys.exit('cannot log in with ' + os.environ['TOKEN'])"
    server = {"command": sys.executable, "args": ["-c", code], "env": {"TOKEN": "very-secret"}}
    path = configure(mcp_servers={"a": server})
    for command in ("tools", "doctor"):
        result = invoke(command, "--config", path, "--log-level", "TRACE")
        assert "cannot log in with" in result.output
        assert "very-secret" not in result.output


# Call


def test_a_call_prints_what_a_model_would_read(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "echo", "text=Hello, world", "--config", path)
    assert (result.exit_code, result.stdout) == (0, "Hello, world\n")


def test_values_become_what_the_schema_says(configure: Configure) -> None:
    path = configure(mcp_servers={"t": {"command": sys.executable, "args": ["-c", TYPED]}})
    result = invoke(
        "call", "show", "n=-3", "ok=true", "name=7", 'tags:=["a", "b=c"]', "--config", path
    )
    assert (result.exit_code, result.stdout) == (0, '[-3, true, "7", ["a", "b=c"]]\n')
    result = invoke("call", "show", "n=many", "--config", path)
    assert result.exit_code == 1
    assert "do not fit the tool's schema" in result.stderr


def test_arguments_may_be_json_also_from_standard_input(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "echo", "--arguments", '{"text": "a"}', "--config", path)
    assert result.stdout == "a\n"
    result = invoke("call", "echo", "--arguments", "-", "--config", path, stdin='{"text": "b"}')
    assert result.stdout == "b\n"
    result = invoke("call", "echo", "text=c", "--arguments", '{"text": "b"}', "--config", path)
    assert result.stdout == "c\n"


@pytest.mark.parametrize(
    "arguments",
    ["novalue", "=1", ":=1", "a:=x", "a=1 --arguments {", "a=1 --arguments []"],
)
def test_arguments_that_cannot_be_read_are_wrong_usage(
    arguments: str, configure: Configure
) -> None:
    result = invoke("call", "echo", *arguments.split(), "--config", configure())
    assert result.exit_code == 2


def test_the_raw_result_is_there_for_programs(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "echo", "text=héé", "--json", "--config", path)
    assert json.loads(result.stdout)["content"] == [{"type": "text", "text": "héé"}]


def test_a_tool_that_says_it_failed_fails_the_command(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "fail", "--config", path)
    assert result.exit_code == 1
    assert "it went wrong" in result.stdout


@pytest.mark.parametrize(("tool", "why"), [("die", "x"), ("refuse", "no")])
def test_a_call_that_gets_no_result_fails_and_says_why(
    tool: str, why: str, configure: Configure
) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", tool, "--config", path)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert why in result.stderr
    assert "Traceback" not in result.output


def test_the_time_of_a_call_can_be_bounded(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "hang", "--timeout", "0.2", "--config", path)
    assert result.exit_code == 1
    assert "0.2 s" in result.stderr


def test_progress_goes_to_standard_error(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "slow", "steps:=2", "pause:=0", "--config", path)
    assert result.stdout == "done\n"
    assert "progress 1 step 1" in result.stderr


def test_an_unknown_tool_gets_close_names_and_the_servers_that_failed(
    configure: Configure,
) -> None:
    path = configure(mcp_servers={"x": scripted(), "gone": {"command": "no-such"}})
    result = invoke("call", "ecko", "--config", path)
    assert result.exit_code == 1
    assert 'there is no tool "ecko"; did you mean echo' in result.stderr
    assert "gone: failed: command not found: no-such" in result.stderr


def test_one_server_can_be_called_without_starting_the_others(
    configure: Configure, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    other = scripted(env={"SCRIPT_LOG": str(log)})
    path = configure(mcp_servers={"other": other, "x": scripted()})
    assert invoke("call", "echo", "text=a", "--server", "x", "--config", path).stdout == "a\n"
    assert not log.exists()
    assert invoke("call", "x__echo", "text=b", "--config", path).stdout == "b\n"
    assert log.exists()


def test_what_a_tool_returns_may_not_fit_the_terminal(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()})
    result = invoke("call", "bad_bytes", "--config", path)
    assert result.exit_code == 0, result.output


# Stdio


def test_standard_output_belongs_to_the_protocol_whatever_is_logged(configure: Configure) -> None:
    path = configure(mcp_servers={"x": scripted()}, logging={"log_level": "DEBUG"}, unknown=1)
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    command = [sys.executable, "-m", "mcp_bridge", "stdio", "--config", path]
    asked = json.dumps(initialize) + "\n"
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[0]["result"]["serverInfo"]
    assert all(answer["jsonrpc"] for answer in answers)
    assert done.returncode == 0
    assert "WARNING cli: configuration: " in done.stderr


# Doctor


async def test_doctor_ends_with_0_only_when_nothing_failed(configure: Configure) -> None:
    from tests.fakes import ScriptedInference, answer

    calls = [("1", "get_weather", '{"city": "Oslo"}'), ("2", "get_weather", '{"city": "Lima"}')]
    async with ScriptedInference(then=answer(calls=calls)) as server:
        path = configure(
            inference_server={"base_url": server.base_url}, mcp_servers={"clock": CLOCK}
        )

        def run(*more: str) -> Result:
            return invoke("doctor", "--config", path, *more)

        with anyio.fail_after(60):
            good = await anyio.to_thread.run_sync(run)
            bad = await anyio.to_thread.run_sync(run, "--json", "--model", "model-b")
    assert good.exit_code == 0, good.output
    assert "\n  ok    clock: connected over stdio" in good.output
    assert good.output.splitlines()[-1].startswith("0 failed, 0 warnings")
    found = json.loads(bad.stdout)
    assert found["ok"] is True
    assert found["warned"] == 1
    assert any("it has no model model-b" in check["words"] for check in found["checks"])
    assert set(found["checks"][0]) == {"area", "mark", "words", "hint"}


def test_doctor_fails_with_1_and_says_what_to_do(configure: Configure) -> None:
    path = configure(mcp_servers={"gone": {"command": "uvx-not-there"}})
    result = invoke("doctor", "--config", path)
    assert result.exit_code == 1
    assert "  FAIL  no inference server is configured" in result.output
    assert "        set inference_server.base_url" in result.output
    assert "  FAIL  gone: failed: command not found: uvx-not-there" in result.output
