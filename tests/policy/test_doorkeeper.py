"""Who comes in, and as whom."""

import pytest
from starlette.datastructures import Headers

from mcp_bridge.config.settings import Auth
from mcp_bridge.errors import RequestError
from mcp_bridge.policy.doorkeeper import Doorkeeper
from mcp_bridge.types import ANYONE, Caller

KEYS = [
    {"key": "first-key"},
    {"key": "second-key", "name": "anna", "tenant": "lab", "scopes": ["chat"], "toolset": "web"},
    {"key": "schlüssel", "name": "bert", "tools": []},
]


def doorkeeper(enabled: bool = True, keys: list[dict[str, object]] | None = None) -> Doorkeeper:
    found = KEYS if keys is None else keys
    return Doorkeeper(Auth.model_validate({"enabled": enabled, "api_keys": found}))


def bearer(key: str) -> Headers:
    return Headers(raw=[(b"authorization", b"Bearer " + key.encode())])


def test_a_key_says_who_comes_and_what_that_caller_may() -> None:
    caller = doorkeeper().admit(bearer("second-key"), "chat")
    assert caller == Caller("anna", "lab", frozenset({"chat"}), "web", None)
    assert doorkeeper().admit(bearer("first-key"), "chat").name == "key-1"
    assert doorkeeper().admit(bearer("first-key"), "chat").tools is None


def test_an_empty_list_of_tools_stays_an_empty_list() -> None:
    assert doorkeeper().admit(bearer("schlüssel"), "chat").tools == ()


@pytest.mark.parametrize(
    "raw",
    [
        (b"authorization", b"Bearer first-key"),
        (b"authorization", b"bearer   first-key "),
        (b"x-api-key", b"first-key"),
    ],
)
def test_a_key_is_heard_however_it_is_sent(raw: tuple[bytes, bytes]) -> None:
    assert doorkeeper().admit(Headers(raw=[raw]), "chat").name == "key-1"


def test_a_key_with_other_letters_than_english_ones_works() -> None:
    assert doorkeeper().admit(bearer("schlüssel"), "chat").name == "bert"


def test_another_way_to_log_in_does_not_hide_the_key() -> None:
    raw = [(b"authorization", b"Basic YTpi"), (b"x-api-key", b"first-key")]
    assert doorkeeper().admit(Headers(raw=raw), "chat").name == "key-1"


@pytest.mark.parametrize(
    "raw",
    [
        [],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer first-key2")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Basic first-key")],
        [(b"authorization", b"first-key")],
        [(b"x-api-key", b"")],
    ],
)
def test_without_a_valid_key_nobody_comes_in_and_no_key_is_repeated(
    raw: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(RequestError) as caught:
        doorkeeper().admit(Headers(raw=raw), "chat")
    assert caught.value.status == 401
    assert caught.value.code == "invalid_api_key"
    assert "first-key" not in caught.value.message


def test_without_any_configured_key_nobody_comes_in() -> None:
    with pytest.raises(RequestError):
        doorkeeper(keys=[]).admit(bearer("anything"), "chat")


def test_a_key_opens_only_the_doors_of_its_scopes() -> None:
    with pytest.raises(RequestError) as caught:
        doorkeeper().admit(bearer("second-key"), "admin")
    assert caught.value.status == 403
    assert caught.value.code == "insufficient_scope"


def test_without_authentication_everybody_is_anyone() -> None:
    assert doorkeeper(enabled=False).admit(Headers(), "admin") is ANYONE
