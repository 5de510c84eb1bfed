"""Single settings as environment variables."""

from typing import Any

import pytest

from mcp_bridge.config.settings import Settings
from tests.config.reading import Reader


def settings(read: Reader, below: dict[str, Any], **variables: str) -> Settings:
    loaded = read(below, {f"MCP_BRIDGE__{name}": value for name, value in variables.items()})
    assert loaded.warnings == ()
    return loaded.settings


def test_a_variable_sets_one_setting(read: Reader) -> None:
    key = '[{"key": "k"}]'
    it = settings(
        read,
        {},
        INFERENCE_SERVER__BASE_URL="http://x/v1",
        NETWORK__PORT="9090",
        SECURITY__AUTH__ENABLED="true",
        SECURITY__AUTH__API_KEYS=key,
        TOOLS__MEMORY_TTL="1.5",
        LOGGING__LOG_LEVEL="debug",
    )
    assert it.inference_server[0].base_url == "http://x/v1"
    assert it.network.port == 9090
    assert it.security.auth.enabled
    assert it.security.auth.api_keys[0].key.get_secret_value() == "k"
    assert it.tools.memory_ttl == 1.5
    assert it.logging.log_level == "DEBUG"


def test_names_of_settings_are_written_in_any_case(read: Reader) -> None:
    loaded = read(
        {}, {"mcp_bridge__network__Port": "1", "MCP_BRIDGE__security__Cors__ENABLED": "1"}
    )
    assert loaded.settings.network.port == 1
    assert loaded.settings.security.cors.enabled


def test_a_server_can_be_made_of_variables(read: Reader) -> None:
    it = settings(
        read,
        {},
        MCP_SERVERS__fetch__COMMAND="uvx",
        MCP_SERVERS__fetch__ARGS='["mcp-server-fetch"]',
        MCP_SERVERS__fetch__ENV__My__Variable="x",
        MCP_SERVERS__fetch__ENABLED="false",
        MCPSERVERS__web__SERVERURL="http://x",
        MCP_SERVERS__web__HEADERS='{"A": "b"}',
    )
    fetch, web = it.mcp_servers["fetch"], it.mcp_servers["web"]
    assert (fetch.command, fetch.args, fetch.disabled) == ("uvx", ("mcp-server-fetch",), True)
    assert fetch.env["My__Variable"].get_secret_value() == "x"
    assert (web.url, web.headers["A"].get_secret_value()) == ("http://x", "b")


def test_arguments_may_be_plain_text(read: Reader) -> None:
    it = settings(read, {}, MCP_SERVERS__a__COMMAND="x", MCP_SERVERS__a__ARGS="-y 'b c'")
    assert it.mcp_servers["a"].args == ("-y", "b c")


def test_a_given_name_is_found_whatever_its_case(read: Reader) -> None:
    below = {"mcp_servers": {"my-server": {"command": "x"}, "Other": {"command": "x"}}}
    it = settings(read, below, MCP_SERVERS__MY_SERVER__COMMAND="y", MCP_SERVERS__OTHER__COMMAND="z")
    assert {name: server.command for name, server in it.mcp_servers.items()} == {
        "my-server": "y",
        "Other": "z",
    }


def test_the_longer_variable_wins_over_the_object_that_holds_it(read: Reader) -> None:
    it = settings(read, {}, NETWORK='{"port": 1, "host": "::1"}', NETWORK__PORT="2")
    assert (it.network.host, it.network.port) == ("::1", 2)


@pytest.mark.parametrize("below", [{"base_url": "http://x/v1"}, [{"base_url": "http://x/v1"}]])
def test_variables_change_the_single_inference_server(read: Reader, below: Any) -> None:
    it = settings(read, {"inference_server": below}, INFERENCE_SERVER__API_KEY="k")
    (server,) = it.inference_server
    assert server.base_url == "http://x/v1"
    assert server.api_key is not None
    assert server.api_key.get_secret_value() == "k"


def test_variables_cannot_change_one_of_several_inference_servers(read: Reader) -> None:
    below = {"inference_server": [{"base_url": "http://a/v1"}, {"base_url": "http://b/v1"}]}
    name = "MCP_BRIDGE__INFERENCE_SERVER__API_KEY"
    assert read.mistakes(below, {name: "k"}) == [
        f"{name}: inference_server is a list, so this could be any of them; "
        "set MCP_BRIDGE__INFERENCE_SERVER to the whole list, as JSON"
    ]
    whole = {"MCP_BRIDGE__INFERENCE_SERVER": '[{"base_url": "http://c/v1"}]'}
    (server,) = read(below, whole).settings.inference_server
    assert server.base_url == "http://c/v1"


def test_an_empty_variable_is_the_same_as_none(read: Reader) -> None:
    it = settings(read, {"network": {"host": "::1"}}, NETWORK__HOST="", CONFIG__HTTP_URL="")
    assert it.network.host == "::1"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NETWORK__PROT", "unknown, did you mean MCP_BRIDGE__NETWORK__PORT?"),
        ("NETWROK__PORT", "unknown, did you mean MCP_BRIDGE__NETWORK__PORT?"),
        ("ZZZ", "unknown, it has no effect"),
        ("NETWORK__PORT__X", "unknown: nothing is below MCP_BRIDGE__NETWORK__PORT"),
        (
            "SECURITY__AUTH__API_KEYS__0__KEY",
            "unknown: MCP_BRIDGE__SECURITY__AUTH__API_KEYS is a list, "
            "which is set as a whole, as JSON",
        ),
        (
            "CONFIG__URL",
            "unknown; there are MCP_BRIDGE__CONFIG__FILE, "
            "MCP_BRIDGE__CONFIG__HTTP_URL, MCP_BRIDGE__CONFIG__JSON",
        ),
    ],
)
def test_a_variable_that_sets_nothing_warns(read: Reader, name: str, said: str) -> None:
    assert read.warnings({}, {f"MCP_BRIDGE__{name}": "1"}) == [f"MCP_BRIDGE__{name}: {said}"]


def test_lists_and_objects_are_json(read: Reader) -> None:
    variables = {
        "MCP_BRIDGE__TOOLSETS": "secret-value",
        "MCP_BRIDGE__NETWORK__ALLOWED_HOSTS": "secret-value",
        "MCP_BRIDGE__NETWORK__PORT": "x",
    }
    assert read.mistakes({}, variables) == [
        'MCP_BRIDGE__TOOLSETS: expected JSON, such as {"name": "value"}',
        'MCP_BRIDGE__NETWORK__ALLOWED_HOSTS: expected JSON, such as ["a", "b"]',
        "MCP_BRIDGE__NETWORK__PORT: network.port: expected a whole number",
    ]
