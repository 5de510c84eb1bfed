"""Where the configuration comes from, and what is said about what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_bridge.config.load import load
from mcp_bridge.errors import ConfigError
from tests.config.reading import Reader

ORIGINAL = {
    "inference_server": {"base_url": "http://localhost:11434/v1", "api_key": "None"},
    "sampling": {
        "timeout": 10,
        "models": [
            {"model": "gpt-4o", "intelligence": 0.8, "cost": 0.9, "speed": 0.3},
            {"model": "gpt-4o-mini", "intelligence": 0.4, "cost": 0.1, "speed": 0.7},
        ],
    },
    "mcp_servers": {"fetch": {"command": "uvx", "args": ["mcp-server-fetch"]}},
    "security": {"auth": {"enabled": True, "api_keys": [{"key": "secret-key"}]}},
    "network": {"host": "0.0.0.0", "port": 9090},
    "logging": {"log_level": "DEBUG"},
}


def test_the_example_of_the_original_bridge_loads_unchanged(read: Reader) -> None:
    loaded = read(ORIGINAL)
    settings = loaded.settings
    assert loaded.warnings == ()
    assert loaded.sources == (str(read.file),)
    (server,) = settings.inference_server
    assert (server.base_url, server.api_key) == ("http://localhost:11434/v1", None)
    assert [model.intelligence for model in settings.sampling.models] == [0.8, 0.4]
    assert settings.sampling.timeout == 10
    fetch = settings.mcp_servers["fetch"]
    assert (fetch.command, fetch.args) == ("uvx", ("mcp-server-fetch",))
    (key,) = settings.security.auth.api_keys
    assert key.key.get_secret_value() == "secret-key"
    assert (settings.network.host, settings.network.port) == ("0.0.0.0", 9090)
    assert settings.logging.log_level == "DEBUG"


def test_the_other_settings_of_the_original_bridge_load_too(read: Reader) -> None:
    cors = {
        "enabled": True,
        "allow_origins": ["https://chat.example"],
        "allow_credentials": True,
        "allow_methods": ["*"],
        "allow_headers": ["*"],
    }
    loaded = read(
        {
            "security": {"CORS": cors},
            "logging": {"log_level": "warning", "log_server_pings": True},
            "mcp_servers": {"box": {"image": "mcp/fetch", "args": ["--verbose"]}},
        }
    )
    assert loaded.warnings == ()
    assert loaded.settings.security.cors.allow_origins == ("https://chat.example",)
    assert loaded.settings.logging.log_level == "WARNING"
    assert loaded.settings.logging.log_server_pings
    assert loaded.settings.mcp_servers["box"].image == "mcp/fetch"


@pytest.mark.parametrize("key", ["None", "none", "", "null", "${KEY:-None}"])
def test_an_api_key_of_none_means_that_no_key_is_sent(read: Reader, key: str) -> None:
    loaded = read({"inference_server": {"base_url": "http://x/v1", "api_key": key}})
    assert loaded.settings.inference_server[0].api_key is None


# -- the sources


def test_later_sources_win_and_objects_merge_deeply(read: Reader) -> None:
    inline = {"limits": {"max_rounds": 2, "max_calls": 2}, "network": {"port": 2}}
    environ = {
        "MCP_BRIDGE__CONFIG__JSON": json.dumps(inline),
        "MCP_BRIDGE__LIMITS__MAX_CALLS": "3",
        "MCP_BRIDGE__NETWORK__PORT": "3",
    }
    settings = read(
        {"limits": {"max_rounds": 1, "max_seconds": 1}, "network": {"port": 1}},
        environ,
        network={"port": 4},
    ).settings
    assert settings.limits.max_seconds == 1
    assert settings.limits.max_rounds == 2
    assert settings.limits.max_calls == 3
    assert settings.network.port == 4


def test_the_default_file_is_config_json_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"network": {"port": 1234}}')
    loaded = load(environ={})
    assert loaded.settings.network.port == 1234
    assert loaded.sources == ("config.json",)
    assert loaded.files == (tmp_path / "config.json",)


def test_without_any_source_there_is_an_empty_configuration_and_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={})
    assert loaded.settings.network.host == "127.0.0.1"
    assert loaded.sources == ()
    (warning,) = loaded.warnings
    assert "there is no config.json here" in warning
    assert load(environ={"MCP_BRIDGE__NETWORK__PORT": "1"}).warnings == ()


def test_a_named_file_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    name = str(tmp_path / "other.json")
    for path, environ in ((name, {}), (None, {"MCP_BRIDGE__CONFIG__FILE": name})):
        with pytest.raises(ConfigError, match=r"other\.json: there is no such file"):
            load(path, environ)


def test_the_file_of_the_command_line_wins_over_the_variables_file(
    read: Reader, tmp_path: Path
) -> None:
    loaded = read({"network": {"port": 7}}, {"MCP_BRIDGE__CONFIG__FILE": str(tmp_path / "no.json")})
    assert loaded.settings.network.port == 7


def test_the_file_may_be_named_by_a_variable(read: Reader) -> None:
    read.write({"network": {"port": 7}})
    loaded = load(environ={"mcp_bridge__config__file": str(read.file)})
    assert loaded.settings.network.port == 7


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file cannot be read: Is a directory"):
        load(str(tmp_path), {})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_encodings_that_editors_write_are_read(read: Reader, encoding: str) -> None:
    text = '{"toolsets": {"Überblick": {"include": ["a:*"]}}}'
    read.file.write_bytes(text.encode(encoding))
    assert list(load(str(read.file), {}).settings.toolsets) == ["Überblick"]


def test_null_is_the_default_and_takes_back_what_an_earlier_source_said(read: Reader) -> None:
    inline = {"mcp_servers": {"b": None}, "network": {"port": None}}
    settings = read(
        {"mcp_servers": {"a": {"command": "x", "env": None}, "b": {}}, "network": {"port": 1}},
        {"MCP_BRIDGE__CONFIG__JSON": json.dumps(inline)},
    ).settings
    assert list(settings.mcp_servers) == ["a"]
    assert settings.network.port == 8000


def test_several_inference_servers_are_a_list(read: Reader) -> None:
    servers = [{"base_url": "http://a/v1"}, {"base_url": "http://b/v1", "models": ["b-*"]}]
    settings = read({"inference_server": servers}).settings
    assert [server.base_url for server in settings.inference_server] == [
        "http://a/v1",
        "http://b/v1",
    ]


# -- JSON that is none


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"network": {} // mine\n}', "line 1, column 16: JSON has no comments; remove it"),
        ('{\n/* mine */ "network": {}}', "line 2, column 1: JSON has no comments; remove it"),
        ('{"network": {},\n}', "line 2, column 1: there is a comma after the last item; remove it"),
        ('{"a": [1,]}', "line 1, column 10: there is a comma after the last item; remove it"),
        ("{'network': {}}", 'line 1, column 2: text stands in straight double quotes: "…"'),
        ('{"a": 1\n"b": 2}', "line 2, column 1: a comma is missing before this"),
        ('{"a": True}', "line 1, column 7: JSON writes true, false and null"),
        ('{"a": {"b": 1}', "line 1, column 15: it ends before everything is closed"),
        ('{"a": "C:\\Users"}', "line 1, column 10: a backslash is written twice"),
        ('{"a": "b\n}', "line 1, column 9: a closing quote is missing on this line"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("", "it is empty; write at least {}"),
        ("[]", "expected a JSON object"),
        ('{"a":' * 100_000, "it is nested too deeply"),
    ],
)
def test_json_that_cannot_be_read_is_explained(read: Reader, text: str, said: str) -> None:
    (mistake,) = read.mistakes(text)
    assert mistake.startswith(said)


def test_bytes_that_are_no_text_are_explained(read: Reader) -> None:
    read.file.write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load(str(read.file), {})


def test_a_name_that_is_written_twice_in_one_object_warns(read: Reader) -> None:
    text = '{"mcp_servers": {"a": {"command": "x"}}, "mcp_servers": {"b": {"command": "x"}}}'
    assert read.warnings(text) == [
        '"mcp_servers" is written twice in one object; only the last one counts'
    ]


# -- mistakes


def test_all_mistakes_are_told_at_once_each_with_its_path(read: Reader) -> None:
    assert read.mistakes(
        {
            "inference_server": {"max_retries": -1},
            "mcp_servers": {
                "fetch": {"args": ["x"]},
                "both": {"command": "x", "url": "http://x"},
                "odd": {"command": "x", "args": {"a": 1}, "transport": "carrier pigeon"},
            },
            "network": {"port": "eighty", "host": 5},
            "limits": [],
            "sampling": {"models": [{"cost": 7}]},
            "security": {"auth": {"enabled": "perhaps"}},
            "tools": {"prefix": "often"},
        }
    ) == [
        "inference_server.max_retries: must be at least 0",
        "sampling.models.0.model: missing; the model's name on the inference server",
        "sampling.models.0.cost: must be at most 1",
        'mcp_servers.odd.args: expected a list, such as ["a", "b"]',
        'mcp_servers.odd.transport: expected one of "stdio", "http", "sse", "websocket", "auto"',
        'tools.prefix: expected one of "collision", "always", "never"',
        "limits: expected an object, such as {…}",
        "security.auth.enabled: expected true or false",
        "network.host: expected text in quotes",
        "network.port: expected a whole number",
        'mcp_servers.fetch: set either "command" or "url" (or "image", for docker)',
        'mcp_servers.both: has "command" and "url"; set either "command" or "url" '
        '(or "image", for docker)',
    ]


def test_a_mistake_names_the_source_that_it_is_in(read: Reader) -> None:
    environ = {
        "MCP_BRIDGE__CONFIG__JSON": '{"network": {"host": 1}}',
        "MCP_BRIDGE__NETWORK__PORT": "x",
    }
    read.write({"limits": {"max_rounds": 0}})
    with pytest.raises(ConfigError) as caught:
        load(str(read.file), environ, {"telemetry": {"metrics": "x"}})
    assert caught.value.mistakes == (
        f"{read.file}: limits.max_rounds: must be at least 1",
        "MCP_BRIDGE__CONFIG__JSON: network.host: expected text in quotes",
        "MCP_BRIDGE__NETWORK__PORT: network.port: expected a whole number",
        "command line: telemetry.metrics: expected true or false",
    )


def test_mistakes_in_two_sources_are_told_at_once(read: Reader) -> None:
    read.write("{")
    with pytest.raises(ConfigError) as caught:
        load(str(read.file), {"MCP_BRIDGE__CONFIG__JSON": "[]"})
    assert len(caught.value.mistakes) == 2


@pytest.mark.parametrize("base_url", ["", "localhost:11434", "ftp://x/v1", "http://", "http://x:y"])
def test_an_inference_server_needs_an_address(read: Reader, base_url: str) -> None:
    (mistake,) = read.mistakes({"inference_server": {"base_url": base_url}})
    assert mistake.startswith("inference_server.base_url: ")
    assert "such as http://127.0.0.1:11434/v1" in mistake


def test_two_inference_servers_cannot_share_a_name(read: Reader) -> None:
    server = {"name": "gpu", "base_url": "http://x/v1"}
    assert read.mistakes({"inference_server": [server, server]}) == [
        'inference_server.0.name: "gpu" is another server\'s name too',
        'inference_server.1.name: "gpu" is another server\'s name too',
    ]


def test_a_path_with_dots_can_be_read(read: Reader) -> None:
    (mistake,) = read.mistakes({"mcp_servers": {"my.server": {}}})
    assert mistake.startswith('mcp_servers["my.server"]: set either')


# -- unknown names


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (
            {"mcp_servers": {"fetch": {"command": "x", "comand": "y"}}},
            'mcp_servers.fetch.comand: unknown, did you mean "command"?',
        ),
        ({"netwrok": {}}, 'netwrok: unknown, did you mean "network"?'),
        (
            {"security": {"auth": {"apiKeys": []}}},
            'security.auth.apiKeys: unknown, did you mean "api_keys"?',
        ),
        (
            {"sampling": {"models": [{"model": "m", "costs": 1}]}},
            'sampling.models.0.costs: unknown, did you mean "cost"?',
        ),
        (
            {"inference_server": {"base_url": "http://x/v1", "zzz": 1}},
            "inference_server.zzz: unknown, it has no effect",
        ),
        (
            {"mcp_servers": {"a": {"command": "x", "problem": "y"}}},
            "mcp_servers.a.problem: unknown, it has no effect",
        ),
        (
            {"mcp_servers": {"a": {"command": "x", "tools": {"t": {"timeut": 1}}}}},
            'mcp_servers.a.tools.t.timeut: unknown, did you mean "timeout"?',
        ),
    ],
)
def test_an_unknown_name_warns_at_any_depth(
    read: Reader, data: dict[str, Any], warning: str
) -> None:
    assert read.warnings(data) == [warning]


def test_comments_written_as_names_are_no_settings(read: Reader) -> None:
    data = {"$schema": "x", "//": "x", "_note": "x", "network": {"// port": "x", "port": 1}}
    assert read.warnings(data) == []


def test_a_timeout_that_looks_like_milliseconds_warns(read: Reader) -> None:
    (warning,) = read.warnings({"mcp_servers": {"a": {"command": "x", "timeout": 60000}}})
    assert warning.startswith("mcp_servers.a.timeout: more than max_timeout (900 seconds)")


def test_a_pattern_for_a_server_that_is_not_there_warns(read: Reader) -> None:
    include = ["time:now", "t*:x", "t[im]me:x", "now", "tme:*"]
    data: dict[str, Any] = {
        "mcp_servers": {"time": {"command": "x"}},
        "toolsets": {"t": {"include": include, "exclude": ["Time:y"]}},
        "security": {"auth": {"enabled": True, "api_keys": [{"key": "k" * 32, "tools": ["!x:y"]}]}},
    }
    assert read.warnings(data) == [
        'toolsets.t.include.4: no MCP server has that name, did you mean "time"?',
        'toolsets.t.exclude.0: no MCP server has that name, did you mean "time"?',
        "security.auth.api_keys.0.tools.0: no MCP server has that name",
    ]


# -- secrets


def test_a_value_is_in_no_message_and_no_representation(read: Reader) -> None:
    secret = "hunter2-hunter2"
    it = "${SECRET}"
    data: dict[str, Any] = {
        "inference_server": {"base_url": it, "api_key": it, "max_retries": it},
        "mcp_servers": {
            "a": {"command": "x", "env": {"A": it, "B": [it]}, "timeout": it},
            "b": {"url": it, "headers": {"X": it}, "transport": it},
        },
        "security": {"auth": {"enabled": it, "api_keys": [{"key": {"x": it}}]}},
        "network": {"port": it},
        "logging": {"log_level": it},
    }
    text = "\n".join(read.mistakes(data, {"SECRET": secret}))
    assert secret not in text
    assert text.count("\n") >= 8
    data = {
        "inference_server": {"base_url": "http://x/v1", "api_key": "${SECRET}"},
        "mcp_servers": {"a": {"command": "x", "env": {"A": "${SECRET}"}}},
        "security": {"auth": {"enabled": True, "api_keys": [{"key": "${SECRET}"}]}},
    }
    loaded = read(data, {"SECRET": secret})
    assert secret not in repr(loaded)
    assert secret not in str(loaded.settings)
    assert secret not in loaded.settings.model_dump_json()
    assert loaded.settings.security.auth.api_keys[0].key.get_secret_value() == secret
