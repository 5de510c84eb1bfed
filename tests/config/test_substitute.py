"""References in strings, and what happens when they lead nowhere."""

from pathlib import Path

import pytest

from mcp_bridge.config.load import load
from mcp_bridge.config.substitute import substitute
from tests.config.reading import Reader

ENVIRON = {"A": "one", "EMPTY": "", "ProgramFiles(x86)": "C:\\P", "DOLLAR": "${A}"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("<${A}${A}>", "<oneone>"),
        ("${env:A}", "one"),
        ("${A:-x}", "one"),
        ("${B:-x}", "x"),
        ("${B:-}", ""),
        ("${EMPTY}", ""),
        ("${EMPTY:-x}", "x"),
        ("${B:-${A}}", "one"),
        ("${B:-${C:-{}}}", "{}"),
        ("${B:-http://x:1/}", "http://x:1/"),
        ("${env:B:-x}", "x"),
        ("${ProgramFiles(x86)}", "C:\\P"),
        ("${DOLLAR}", "${A}"),
        ("$${A}", "${A}"),
        ("$${A} ${A}", "${A} one"),
        ("$A $ {A} $$", "$A $ {A} $$"),
        ("${file:/no/such:-x}", "x"),
        ("${userHome}/x", f"{Path.home()}/x"),
    ],
)
def test_references_are_replaced(text: str, value: str) -> None:
    data, substitution = substitute({"a": [{"b": text}]}, ENVIRON)
    assert data == {"a": [{"b": value}]}
    assert substitution.missing == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${B}", "variable B is not set; set it in the bridge's environment, or give a default"),
        ("${env:B}", "variable B is not set"),
        ("${B:-${C}}", "variable C is not set"),
        ("${input:token}", "${input:token} asks a person, which only an editor can do"),
        ("${A", "a ${ in it is not closed by }"),
        ("${}", "a ${…} in it names no variable; write $${ for a literal ${"),
        ("${#x}", "a ${…} in it names no variable; write $${ for a literal ${"),
        ("${file:/no/such}", "file /no/such cannot be read: No such file or directory"),
    ],
)
def test_what_leads_nowhere_is_left_as_it_is_and_reported(text: str, reason: str) -> None:
    data, substitution = substitute({"a": {"b": text}}, ENVIRON)
    assert data == {"a": {"b": text}}
    (missing,) = substitution.missing
    assert missing.path == ("a", "b")
    assert missing.reason.startswith(reason)


def test_a_file_is_read_without_its_last_newline(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two\nlines\r\n")
    data, substitution = substitute({"a": f"<${{file:{tmp_path}/token}}>"}, {})
    assert data == {"a": "<two\nlines>"}
    assert list(substitution.files) == [tmp_path / "token"]


def test_a_file_that_is_no_text_is_reported_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"hunter2\xff")
    _, substitution = substitute({"a": f"${{file:{tmp_path}/token}}"}, {})
    (missing,) = substitution.missing
    assert missing.reason == f"file {tmp_path}/token cannot be read: it is not UTF-8 text"


def test_references_work_in_every_source_and_at_every_depth(read: Reader) -> None:
    environ = {
        "A": "one",
        "PORT": "9090",
        "MCP_BRIDGE__CONFIG__JSON": '{"toolsets": {"t": {"include": ["${A}:*"]}}}',
        "MCP_BRIDGE__SAMPLING__MODELS": '[{"model": "${A}"}]',
        "MCP_BRIDGE__NETWORK__PORT": "${PORT}",
    }
    settings = read({"inference_server": {"base_url": "http://${A}/v1"}}, environ).settings
    assert settings.inference_server[0].base_url == "http://one/v1"
    assert settings.toolsets["t"].include == ("one:*",)
    assert settings.sampling.models[0].model == "one"
    assert settings.network.port == 9090


def test_a_missing_value_disables_its_server_and_names_the_field(read: Reader) -> None:
    loaded = read(
        {
            "mcp_servers": {
                "X": {"command": "x", "env": {"TOKEN": "${TOKEN}"}, "args": ["a", "${ARG}"]},
                "Y": {"url": "https://y/${PATH_OF_Y}", "timeout": "${SECONDS}"},
                "Z": {"command": "z"},
            }
        }
    )
    servers = loaded.settings.mcp_servers
    problem = servers["X"].problem
    assert problem is not None
    assert problem.startswith("mcp_servers.X.env.TOKEN: variable TOKEN is not set; ")
    assert "mcp_servers.X.args.1: variable ARG is not set; " in problem
    assert "mcp_servers.Y.timeout: variable SECONDS is not set" in (servers["Y"].problem or "")
    assert servers["Z"].problem is None
    assert len(loaded.warnings) == 4
    assert all("this server is disabled until then" in warning for warning in loaded.warnings)


def test_a_missing_value_of_a_disabled_server_is_nobodys_problem(read: Reader) -> None:
    server = read.server({"command": "x", "env": {"T": "${T}"}, "disabled": True})
    assert server.problem is None


def test_a_missing_value_elsewhere_is_a_mistake(read: Reader) -> None:
    assert read.mistakes(
        {
            "security": {"auth": {"enabled": True, "api_keys": [{"key": "${BRIDGE_KEY}"}]}},
            "toolsets": {"t": {"include": ["${X}"]}},
        }
    ) == [
        "security.auth.api_keys.0.key: variable BRIDGE_KEY is not set; set it in the bridge's "
        "environment, or give a default: ${BRIDGE_KEY:-…}",
        "toolsets.t.include.0: variable X is not set; set it in the bridge's environment, "
        "or give a default: ${X:-…}",
    ]


def test_a_missing_value_that_a_later_source_replaces_does_not_matter(read: Reader) -> None:
    environ = {"MCP_BRIDGE__NETWORK__HOST": "localhost"}
    assert read({"network": {"host": "${NOPE}"}}, environ).settings.network.host == "localhost"


def test_the_files_of_secrets_are_among_those_to_watch(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    headers = {"A": f"${{file:{tmp_path}/token}}", "B": f"${{file:{tmp_path}/later}}"}
    loaded = read({"mcp_servers": {"x": {"url": "http://x", "headers": headers}}})
    assert loaded.files == (read.file, tmp_path / "token", tmp_path / "later")
    assert loaded.digests[tmp_path / "later"] is None
    again = load(str(read.file), {})
    assert again.digests == loaded.digests
