"""Entries pasted from other clients, as they are written there."""

from typing import Any

import pytest

from tests.config.reading import Reader

CLAUDE_DESKTOP = {
    "mcpServers": {
        "filesystem": {
            "command": "npx",
            "args": ["-y", "@modelcontextprotocol/server-filesystem", "/data"],
            "env": {"DEBUG": "1"},
        }
    },
    "globalShortcut": "",
}
CURSOR = {
    "mcpServers": {
        "local": {"type": "stdio", "command": "npx", "args": ["-y", "x"], "env": {"A": "b"}},
        "remote": {"url": "http://localhost:3000/mcp", "headers": {"API_KEY": "value"}},
    }
}
VS_CODE = {
    "inputs": [{"type": "promptString", "id": "key", "description": "Key", "password": True}],
    "servers": {
        "github": {"type": "http", "url": "https://mcp.example/", "gallery": True},
        "memory": {"type": "stdio", "command": "npx", "args": ["-y", "x"], "dev": {"watch": "*"}},
        "old": {"type": "sse", "url": "https://old.example/sse"},
    },
}
LM_STUDIO = {"mcpServers": {"hf": {"url": "https://hf.example/mcp", "headers": {"X": "y"}}}}
WINDSURF = {"mcpServers": {"w": {"serverUrl": "https://w.example/mcp", "disabledTools": ["rm"]}}}
GEMINI = {
    "mcpServers": {
        "g": {
            "httpUrl": "https://g.example/mcp",
            "trust": False,
            "includeTools": ["a"],
            "excludeTools": ["b"],
            "description": "x",
        }
    }
}
CLINE = {
    "mcpServers": {
        "c": {
            "command": "node",
            "args": ["server.js"],
            "disabled": True,
            "autoApprove": ["x"],
            "alwaysAllow": [],
            "timeout": 120,
            "type": "streamableHttp",
            "url": "",
        },
        "d": {"type": "streamableHttp", "url": "https://d.example/mcp", "disabled": False},
    }
}


@pytest.mark.parametrize("pasted", [CLAUDE_DESKTOP, CURSOR, VS_CODE, LM_STUDIO, WINDSURF, GEMINI])
def test_a_pasted_block_loads_without_a_warning(read: Reader, pasted: dict[str, Any]) -> None:
    loaded = read(pasted)
    assert loaded.warnings == ()
    (key,) = pasted.keys() & {"mcpServers", "servers"}
    assert list(loaded.settings.mcp_servers) == list(pasted[key])


def test_what_the_other_clients_say_keeps_its_meaning(read: Reader) -> None:
    files = read(CLAUDE_DESKTOP).settings.mcp_servers["filesystem"]
    assert files.args == ("-y", "@modelcontextprotocol/server-filesystem", "/data")
    assert files.env["DEBUG"].get_secret_value() == "1"
    remote = read(CURSOR).settings.mcp_servers["remote"]
    assert remote.headers["API_KEY"].get_secret_value() == "value"
    servers = read(VS_CODE).settings.mcp_servers
    assert [entry.transport for entry in servers.values()] == ["http", "stdio", "sse"]
    windsurf = read(WINDSURF).settings.mcp_servers["w"]
    assert (windsurf.url, windsurf.exclude) == ("https://w.example/mcp", ("rm",))
    gemini = read(GEMINI).settings.mcp_servers["g"]
    assert (gemini.url, gemini.include, gemini.exclude) == (
        "https://g.example/mcp",
        ("a",),
        ("b",),
    )


def test_clines_entries_load_when_they_are_consistent(read: Reader) -> None:
    cline = {"c": {**CLINE["mcpServers"]["c"], "type": "stdio"}, "d": CLINE["mcpServers"]["d"]}
    loaded = read({"mcpServers": cline})
    assert loaded.warnings == ()
    command, remote = loaded.settings.mcp_servers.values()
    assert command.disabled
    assert (command.timeout, command.url) == (120, None)
    assert (remote.disabled, remote.transport) == (False, "http")


def test_vs_codes_settings_file_has_its_servers_one_level_deeper(read: Reader) -> None:
    loaded = read({"mcp": {"inputs": [], "servers": {"a": {"command": "x"}}}})
    assert loaded.warnings == ()
    assert list(loaded.settings.mcp_servers) == ["a"]


def test_both_spellings_of_the_section_are_merged(read: Reader) -> None:
    servers = read(
        {
            "mcpServers": {"a": {"command": "x"}, "b": {"command": "y"}},
            "mcp_servers": {"b": {"args": ["z"]}, "c": {"url": "http://c"}},
        }
    ).settings.mcp_servers
    assert set(servers) == {"a", "b", "c"}
    assert (servers["b"].command, servers["b"].args) == ("y", ("z",))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("http", "http"),
        ("streamable-http", "http"),
        ("streamable_http", "http"),
        ("streamableHttp", "http"),
        ("Streamable-HTTP", "http"),
        ("sse", "sse"),
        ("SSE", "sse"),
        ("ws", "websocket"),
        ("websocket", "websocket"),
        ("remote", "auto"),
        ("auto", "auto"),
        ("${TRANSPORT:-sse}", "sse"),
    ],
)
@pytest.mark.parametrize("name", ["transport", "type"])
def test_each_spelling_of_a_transport_is_understood(
    read: Reader, name: str, written: str, meant: str
) -> None:
    assert read.server({"url": "https://x/mcp", name: written}).transport == meant


def test_a_list_may_be_the_whole_command(read: Reader) -> None:
    entry = {
        "type": "local",
        "command": ["npx", "-y", "x"],
        "environment": {"A": "b"},
        "enabled": True,
    }
    server = read.server(entry)
    assert (server.command, server.args) == ("npx", ("-y", "x"))
    assert server.transport == "stdio"
    assert server.env["A"].get_secret_value() == "b"


def test_arguments_that_are_none_are_refused_where_they_stand(read: Reader) -> None:
    (mistake,) = read.mistakes({"mcp_servers": {"it": {"command": ["x", "y"], "args": {}}}})
    assert mistake.startswith("mcp_servers.it.args")


def test_arguments_in_one_string_are_split_as_a_shell_does(read: Reader) -> None:
    server = read.server(
        {"command": "x", "args": "-y 'two words' ${WORDS}"}, {"WORDS": "a b; rm -rf"}
    )
    assert server.args == ("-y", "two words", "a b; rm -rf")
    assert read.mistakes({"mcp_servers": {"it": {"command": "x", "args": "'open"}}}) == [
        "mcp_servers.it.args: a quote is not closed; write a list instead"
    ]


def test_numbers_and_booleans_become_text_where_text_is_passed_on(read: Reader) -> None:
    entry: dict[str, Any] = {
        "command": "x",
        "args": ["--port", 8080, True],
        "env": {"PORT": 1, "RATE": 0.5, "ON": True, "OFF": False, "NONE": None},
    }
    server = read.server(entry)
    assert server.args == ("--port", "8080", "true")
    assert {name: value.get_secret_value() for name, value in server.env.items()} == {
        "PORT": "1",
        "RATE": "0.5",
        "ON": "true",
        "OFF": "false",
    }


@pytest.mark.parametrize(
    ("entry", "disabled"),
    [
        ({}, False),
        ({"disabled": True}, True),
        ({"enabled": False}, True),
        ({"enabled": True}, False),
        ({"enabled": "false"}, True),
        ({"enabled": True, "disabled": True}, True),
        ({"enabled": False, "disabled": False}, True),
    ],
)
def test_a_server_is_disabled_in_either_word(
    read: Reader, entry: dict[str, Any], disabled: bool
) -> None:
    assert read.server({"command": "x", **entry}).disabled is disabled


def test_an_entry_says_exactly_one_way_to_reach_it(read: Reader) -> None:
    mistakes = read.mistakes(
        {
            "mcp_servers": {
                "none": {"env": {}},
                "empty": {"url": ""},
                "two": {"command": "x", "url": "http://x"},
                "three": {"command": "x", "url": "http://x", "image": "i"},
                "off": {"disabled": True},
                "": {"command": "x"},
                "text": "uvx mcp-server-fetch",
            }
        }
    )
    said = 'set either "command" or "url" (or "image", for docker)'
    assert mistakes == [
        "mcp_servers.text: expected an object, such as {…}",
        f"mcp_servers.none: {said}",
        f"mcp_servers.empty: {said}",
        f'mcp_servers.two: has "command" and "url"; {said}',
        f'mcp_servers.three: has "command" and "url" and "image"; {said}',
        f"mcp_servers.off: {said}",
        'mcp_servers[""]: a server needs a name',
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"url": "host/mcp"}, "url: expected an address such as https://host/mcp"),
        ({"url": "http://"}, "url: expected an address such as https://host/mcp"),
        (
            {"url": "http://x", "type": "stdio"},
            'transport: "stdio" needs "command"; with "url" it is http or sse',
        ),
        ({"command": "x", "type": "sse"}, 'transport: "sse" needs "url"; a command is stdio'),
        (
            {"url": "http://a", "serverUrl": "http://b"},
            "url: given under two names with different values; keep one",
        ),
    ],
)
def test_an_entry_that_contradicts_itself_is_a_mistake(
    read: Reader, entry: dict[str, Any], said: str
) -> None:
    assert read.mistakes({"mcp_servers": {"it": entry}}) == [f"mcp_servers.it.{said}"]


def test_two_names_with_the_same_value_are_fine(read: Reader) -> None:
    assert read.server({"url": "http://a", "serverUrl": "http://a"}).url == "http://a"


@pytest.mark.parametrize("name", ["my server", "a/b", "io.example/x", "日本", "a.b", "${X}"])
def test_a_server_may_have_any_name(read: Reader, name: str) -> None:
    loaded = read({"mcp_servers": {name: {"command": "x"}}})
    assert list(loaded.settings.mcp_servers) == [name]


def test_what_somebody_may_rely_on_is_not_dropped_silently(read: Reader) -> None:
    assert read.warnings({"servers": {"a": {"command": "x", "envFile": ".env"}}}) == [
        'mcp_servers.a.envFile: files of variables are not read: put what it holds into "env"'
    ]
