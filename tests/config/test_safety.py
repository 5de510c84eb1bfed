"""What is refused although each setting is valid by itself."""

from typing import Any

import pytest

from mcp_bridge.config.safety import findings, is_loopback
from mcp_bridge.config.settings import Network, Settings
from mcp_bridge.config.wording import spell
from tests.config.reading import Reader

KEYS = {"auth": {"enabled": True, "api_keys": [{"key": "k"}]}}


def mistakes_of(settings: Settings) -> list[str]:
    return [f"{spell(path)}: {text}" for path, text in findings(settings, ())]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_loopback_needs_no_authentication(read: Reader, host: str) -> None:
    assert is_loopback(host)
    assert read({"network": {"host": host}}).settings.network.host == host


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "10.0.0.1", "bridge.example", "localhost.example"]
)
def test_a_public_bind_without_authentication_is_refused_with_the_way_out(
    read: Reader, host: str
) -> None:
    (mistake,) = read.mistakes({"network": {"host": host}})
    assert mistake.startswith(f'network.host: "{host}" can be reached from other machines')
    for way_out in (
        "security.auth.enabled",
        "security.auth.api_keys",
        "127.0.0.1",
        "security.allow_public_without_auth",
    ):
        assert way_out in mistake
    assert mistakes_of(Settings(network=Network(host=host))) == [mistake]


@pytest.mark.parametrize("security", [KEYS, {"allow_public_without_auth": True}])
def test_a_public_bind_is_served_with_keys_or_when_it_is_wanted(
    read: Reader, security: dict[str, Any]
) -> None:
    loaded = read({"network": {"host": "0.0.0.0"}, "security": security})
    assert mistakes_of(loaded.settings) == []


def test_the_command_lines_host_is_checked_too(read: Reader) -> None:
    (mistake,) = read.mistakes({}, network={"host": "0.0.0.0"})
    assert mistake.startswith("command line: network.host: ")
    assert read({"security": KEYS}, network={"host": "0.0.0.0"}).settings.security.auth.enabled


def test_keys_that_are_not_asked_for_do_not_open_a_public_bind(read: Reader) -> None:
    security = {"auth": {"enabled": False, "api_keys": [{"key": "k"}]}}
    assert len(read.mistakes({"network": {"host": "0.0.0.0"}, "security": security})) == 1
    assert read.warnings({"security": security}) == [
        "security.auth.api_keys: not asked for, because security.auth.enabled is false"
    ]


def test_authentication_without_keys_is_a_mistake(read: Reader) -> None:
    assert read.mistakes({"security": {"auth": {"enabled": True}}}) == [
        'security.auth.api_keys: security.auth.enabled is true: give at least one {"key": "…"}'
    ]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "a key cannot be empty"),
        ("schlüssel", "only ASCII characters can be sent in a header"),
        ("two words", "spaces and control characters cannot be sent in a header"),
        ("line\n", "spaces and control characters cannot be sent in a header"),
        ("same", "the same key is given twice"),
    ],
)
def test_a_key_that_cannot_work_is_a_mistake(read: Reader, key: str, said: str) -> None:
    keys = [{"key": "same"}, {"key": key}]
    (mistake,) = read.mistakes({"security": {"auth": {"enabled": True, "api_keys": keys}}})
    assert mistake.startswith(f"security.auth.api_keys.1.key: {said}")


def test_every_origin_with_credentials_is_a_mistake(read: Reader) -> None:
    cors = {"enabled": True, "allow_origins": ["*"], "allow_credentials": True}
    (mistake,) = read.mistakes({"security": {"CORS": cors}})
    assert mistake.startswith('security.cors.allow_origins: "*" together with allow_credentials')
    assert read({"security": {"CORS": {**cors, "allow_credentials": False}}}).warnings == ()


def test_the_toolset_of_a_key_has_to_exist(read: Reader) -> None:
    keys = [{"key": "a", "toolset": "research"}, {"key": "b", "toolset": "reserch"}]
    data = {
        "toolsets": {"research": {}},
        "security": {"auth": {"enabled": True, "api_keys": keys}},
    }
    assert read.mistakes(data) == [
        'security.auth.api_keys.1.toolset: there is no toolset "reserch"; did you mean "research"?'
    ]


def test_cors_is_closed_and_the_bind_is_loopback_by_default(read: Reader) -> None:
    settings = read({}).settings
    assert not settings.security.cors.enabled
    assert settings.security.cors.allow_origins == ()
    assert is_loopback(settings.network.host)
