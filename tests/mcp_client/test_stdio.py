"""Child processes: what they are given, what they may do wrong, and that none is left behind."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from mcp_bridge.bridge import open_bridge
from mcp_bridge.config.settings import McpServer, Settings
from mcp_bridge.errors import OutcomeUnknown, SourceRefused, SourceTimeout, SourceUnavailable
from mcp_bridge.mcp_client.stdio import LONGEST_MESSAGE, Child, Lines, command_for, inherited
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json
from tests.mcp_client.running import (
    PATIENCE,
    SCRIPTED,
    alive,
    children,
    dead,
    entries,
    logged,
    running,
    scripted,
    text,
)
from tests.processes import started


async def test_a_child_gets_a_minimal_environment_and_its_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    settings = scripted(env={"GIVEN": "yes"}, cwd=str(tmp_path))
    async with running(settings) as watch:
        seen = json.loads(text(await watch.call("environment")))
    assert seen["env"]["GIVEN"] == "yes"
    assert seen["env"]["LC_ALL"] == "C.UTF-8"
    assert "OPENAI_API_KEY" not in seen["env"]
    assert seen["cwd"] == str(tmp_path)


def test_shell_functions_are_not_inherited() -> None:
    assert inherited({"PATH": "() { :; }", "HOME": "/h"}, docker=False) == {"HOME": "/h"}


async def test_noise_on_stdout_is_skipped_and_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(scripted("noise")) as watch:
        assert text(await watch.call("echo", text="hi")) == "hi"
        assert watch.connection.status()["noise_lines"] >= 8
    noise = [r for r in caplog.records if "no MCP message" in r.message]
    assert [r.levelno for r in noise].count(logging.WARNING) == 1


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ("missing_jsonrpc", "bare"),
        ("float_id", "float"),
        ("string_id", "string"),
        ("wrong_id", "yours"),
        ("twice", "first"),
        ("bad_bytes", "\ufffd\ufffd"),
    ],
)
async def test_a_slightly_broken_answer_is_repaired(tool: str, expected: str) -> None:
    async with running(scripted()) as watch:
        assert text(await watch.call(tool)) == expected
        assert text(await watch.call("echo", text="next")) == "next"


@pytest.mark.parametrize("tool", ["not_an_object", "broken_json"])
async def test_garbage_as_an_answer_becomes_an_error_that_the_model_can_read(tool: str) -> None:
    async with running(scripted()) as watch:
        result = await watch.call(tool)
        assert result["isError"] is True
        assert "no usable answer" in text(result)
        assert text(await watch.call("echo", text="next")) == "next"


@pytest.mark.parametrize(
    ("tool", "message", "code"),
    [
        ("error_without_code", "no code", -32603),
        ("error_as_text", "it failed", -32603),
        ("refuse", "no", -32050),
    ],
)
async def test_an_error_answer_is_refused_with_its_code(tool: str, message: str, code: int) -> None:
    async with running(scripted()) as watch:
        with pytest.raises(SourceRefused) as caught:
            await watch.call(tool)
    assert (caught.value.message, caught.value.rpc_code) == (message, code)
    assert caught.value.data == ({"a": 1} if tool == "refuse" else None)


async def test_a_large_result_arrives_whole() -> None:
    async with running(scripted()) as watch:
        assert len(text(await watch.call("big", size=3_000_000))) == 3_000_000


async def test_many_calls_at_once_get_their_own_answers() -> None:
    got: dict[int, str] = {}
    async with running(scripted()) as watch, anyio.create_task_group() as tasks:

        async def one(number: int) -> None:
            got[number] = text(await watch.call("echo", text=str(number)))

        for number in range(100):
            tasks.start_soon(one, number)
    assert got == {number: str(number) for number in range(100)}


async def test_strings_and_numbers_that_json_libraries_refuse_are_sent() -> None:
    async with running(scripted()) as watch:
        assert text(await watch.call("echo", text=str(2**70), extra=2**70)) == str(2**70)
        assert text(await watch.call("echo", text="a\ud800b")) in ("a\ufffdb", "a\ud800b")


async def test_a_call_in_flight_fails_at_once_when_the_server_dies() -> None:
    async with running(scripted()) as watch:
        with pytest.raises(OutcomeUnknown, match="exited with code 3"):
            await watch.call("die")


async def test_an_answer_written_just_before_the_end_arrives() -> None:
    async with running(scripted()) as watch:
        assert text(await watch.call("answer_and_die")) == "last words"


async def test_a_server_that_died_is_started_again_for_the_next_call() -> None:
    async with running(scripted()) as watch:
        with pytest.raises(OutcomeUnknown):
            await watch.call("die")
        assert text(await watch.call("echo", text="back")) == "back"


async def test_stderr_is_logged_with_the_servers_name_and_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with running(scripted(env={"TOKEN": "hunter22"})) as watch:
        await watch.call("say", text="my token is hunter22")
        await watch.call("echo", text="x")
    assert "x: my token is ***" in caplog.text
    assert "hunter22" not in caplog.text
    assert "my token is ***" in watch.connection.status()["stderr"]


def test_nothing_shows_a_childs_environment() -> None:
    settings = McpServer.model_validate({"command": "sh", "env": {"TOKEN": "very-secret"}})
    command = command_for("x", settings)
    child = Child("x", command, print, print)
    assert "very-secret" not in f"{command!r} {child!r} {child.pipe_data_received!r}"


async def test_a_stubborn_server_and_its_children_are_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted("stubborn", "grandchild", log=log)) as watch:
        pid = watch.connection.status()["pid"]
        grandchild = (await logged(log, lambda e: "grandchild" in e))["grandchild"]
        assert alive(pid)
        assert alive(grandchild)
    await dead(pid, grandchild)


async def test_the_grandchildren_of_a_server_that_crashed_are_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted("grandchild", log=log)) as watch:
        grandchild = (await logged(log, lambda e: "grandchild" in e))["grandchild"]
        os.kill(watch.connection.status()["pid"], signal.SIGKILL)
        await watch.until(lambda c: c.state != "connected")
        await dead(grandchild)


ENDING = """
import json, pathlib, signal, subprocess, sys, time

kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
info = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}}

def serve():
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            hello = asked["method"] == "initialize"
            said = {"result": info} if hello else {"error": {"code": -32601, "message": "no"}}
            print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **said}), flush=True)

def end(*_):
    time.sleep(0.1)  # so long, but no longer
    (folder / "ended").touch()
    sys.exit()

match kind:
    case "wrapper":  # like npx: it ends at a signal without waiting for the server
        server = subprocess.Popen([*sys.orig_argv[:3], "slow", folder])
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        server.wait()
    case "slow":
        signal.signal(signal.SIGTERM, end)
        serve()
        signal.pause()
    case "together":  # it ends when all others have been told to end too
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        serve()
        (folder / f"told {sys.argv[3]}").touch()
        while len(list(folder.glob("told *"))) < 4:
            time.sleep(0.01)
        (folder / f"ended {sys.argv[3]}").touch()
"""
"""Servers without anything, which end in their own ways."""


def ending(*arguments: str) -> Json:
    args = ["-c", ENDING, *arguments]
    return {"command": sys.executable, "args": args, "protocol": "legacy"}


async def test_a_server_behind_a_wrapper_that_ends_before_it_has_its_time_to_end(
    tmp_path: Path,
) -> None:
    settings = McpServer.model_validate(ending("wrapper", str(tmp_path)))
    async with running(settings) as watch:
        assert watch.connection.state == "connected"
    assert os.listdir(tmp_path) == ["ended"]


async def test_servers_are_ended_side_by_side(tmp_path: Path) -> None:
    servers = {str(number): ending("together", str(tmp_path), str(number)) for number in range(4)}
    async with open_bridge(Settings.model_validate({"mcp_servers": servers})) as bridge:
        assert await bridge.settled(PATIENCE)
    assert {f"ended {number}" for number in range(4)} <= set(os.listdir(tmp_path))


async def test_servers_can_be_ended_while_the_bridge_still_ends_other_things(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    server = scripted("stubborn", "grandchild", log=log)
    async with open_bridge(Settings(mcp_servers={"x": server})) as bridge:
        await bridge.settled(PATIENCE)
        pid = (await logged(log, lambda e: "pid" in e))["pid"]
        grandchild = (await logged(log, lambda e: "grandchild" in e))["grandchild"]
        bridge.stop()
        await dead(pid, grandchild)


BRIDGE = """
import anyio, sys
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.config.settings import McpServer

async def main():
    servers = [McpServer(command=sys.executable, args=(sys.argv[1], "stubborn", "grandchild"),
                         env={"SCRIPT_LOG": sys.argv[2]}) for _ in range(2)]
    connections = [Connection(f"s{i}", s) for i, s in enumerate(servers)]
    async with anyio.create_task_group() as tasks:
        for connection in connections:
            tasks.start_soon(connection.run)
        for connection in connections:
            await connection.settled()
        print("ready", *(c.status()["pid"] for c in connections), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_children_and_grandchildren_die_when_the_bridge_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", BRIDGE, SCRIPTED, str(log)]
    async with started(command, stderr=subprocess.DEVNULL) as bridge:
        assert bridge.stdout is not None
        with anyio.fail_after(30):
            said = BufferedByteReceiveStream(bridge.stdout)
            line = (await said.receive_until(b"\n", 1000)).decode().split()
        pids = [int(word) for word in line[1:]]
        pids += [e["grandchild"] for e in entries(log) if "grandchild" in e]
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        bridge.kill()
        await dead(*pids)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (McpServer(command="uvx-not-there"), "command not found: uvx-not-there"),
        (McpServer(command="uvx", env={"PATH": "/nowhere"}), "Install uv, or give the full path"),
        (McpServer(command="/proc/version"), "not executable: /proc/version"),
        (McpServer(command=sys.executable, cwd="/not/there"), "working directory not found"),
        (McpServer(command="a\0b"), "NUL"),
        (McpServer(image="--privileged"), "must name a docker image"),
    ],
)
async def test_what_cannot_be_started_is_said_in_words(settings: McpServer, message: str) -> None:
    async with running(settings) as watch:
        assert watch.connection.state == "failed"
        assert message in watch.connection.status()["error"]
        with pytest.raises(SourceUnavailable, match="not connected"):
            await watch.call("echo")


async def test_a_server_that_exits_at_once_is_explained_by_its_last_line() -> None:
    async with running(scripted("crash")) as watch:
        error = watch.connection.status()["error"]
    assert "exited with code 7: Traceback: out of luck" in error
    assert "call" not in error  # nobody has called anything yet


def test_docker_servers_get_their_variables_by_name(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    settings = McpServer.model_validate(
        {
            "image": "mcp/fetch",
            "args": ["--flag"],
            "env": {"TOKEN": "hunter22", "PATH": str(tmp_path)},
        }
    )
    command = command_for("x", settings)
    assert command.argv[1:] == (
        *("run", "--rm", "-i", "-e", "TOKEN", "-e", "PATH"),
        *("mcp/fetch", "--flag"),
    )
    assert command.env["TOKEN"] == "hunter22"
    assert "hunter22" not in " ".join(command.argv)


async def test_a_call_to_a_server_that_does_not_read_times_out_and_blocks_nobody() -> None:
    async with running(scripted("deaf")) as watch:
        with pytest.raises(SourceTimeout):
            await watch.call("echo", CallContext(timeout=0.3), text="x" * 1_000_000)
        with anyio.fail_after(5), pytest.raises(SourceUnavailable):
            await watch.connection.call("echo", {"text": "y"}, CallContext(timeout=0.3))


async def test_stopping_leaves_no_child_behind() -> None:
    before = children()
    async with running(scripted()):
        assert children() != before
    assert children() == before


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    data = b"one\n\ntwo and more\nthree"
    got: list[bytes] = []
    lines = Lines(got.append, 1000)
    for start in range(0, len(data), size):
        lines.feed(data[start : start + size])
    lines.flush()
    assert got == [b"one", b"two and more", b"three"]


def test_a_server_that_never_ends_its_line_is_given_up() -> None:
    ended: list[str] = []
    lines: list[bytes] = []
    command = command_for("x", McpServer(command="sh"))
    child = Child("x", command, ended.append, lines.append)
    part = b"x" * (1 << 24)
    for _ in range(LONGEST_MESSAGE // len(part) - 1):
        child.pipe_data_received(1, part)
    assert ended == []
    child.pipe_data_received(1, part)
    assert ended == [f"sent more than {LONGEST_MESSAGE} bytes without ending the line"]
    assert lines == []
