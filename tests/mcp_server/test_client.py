"""What a client can be asked, and which log messages it wants: plain functions."""

import pytest

from mcp_bridge.mcp_server.client import important, why_not, without_meta
from mcp_bridge.types import Json

URL = {"mode": "url"}
FORM: Json = {"mode": "form"}


@pytest.mark.parametrize(
    ("capabilities", "method", "params", "can"),
    [
        ({}, "sampling/createMessage", {}, False),
        ({"sampling": {}}, "sampling/createMessage", {}, True),
        ({"sampling": {}}, "sampling/createMessage", {"tools": [{}]}, False),
        ({"sampling": {}}, "sampling/createMessage", {"tools": [], "toolChoice": None}, True),
        ({"sampling": {"tools": {}}}, "sampling/createMessage", {"tools": [{}]}, True),
        ({"elicitation": {}}, "elicitation/create", {}, True),
        ({"elicitation": {}}, "elicitation/create", FORM, True),
        ({"elicitation": {}}, "elicitation/create", URL, False),
        ({"elicitation": {"form": {}}}, "elicitation/create", URL, False),
        ({"elicitation": {"url": {}}}, "elicitation/create", URL, True),
        ({"elicitation": {"url": {}}}, "elicitation/create", FORM, False),
        ({"elicitation": {"url": {}, "form": {}}}, "elicitation/create", {}, True),
        ({"roots": {}}, "roots/list", {}, True),
        ({"sampling": {}}, "roots/list", {}, False),
        ({"sampling": None}, "sampling/createMessage", {}, False),
        ({"sampling": {}, "roots": {}, "elicitation": {}}, "something/new", {}, False),
    ],
)
def test_what_a_client_can_be_asked(
    capabilities: Json, method: str, params: Json, can: bool
) -> None:
    reason = why_not(capabilities, method, params)
    assert (reason is None) is can
    assert can or "the client does not offer" in str(reason)


@pytest.mark.parametrize(
    ("level", "wanted", "sent"),
    [
        ("info", "info", True),
        ("debug", "info", False),
        ("emergency", "debug", True),
        ("error", None, False),
        ("a level of its own", "error", True),
    ],
)
def test_which_log_messages_a_client_wants(level: str, wanted: str | None, sent: bool) -> None:
    assert important(level, wanted) is sent


def test_one_key_of_the_meta_goes_and_the_rest_stays() -> None:
    assert without_meta({"a": 1, "_meta": {"x": 1, "y": 2}}, "x") == {"a": 1, "_meta": {"y": 2}}
    assert without_meta({"a": 1, "_meta": {"x": 1}}, "x") == {"a": 1}
    assert without_meta({"a": 1}, "x") == {"a": 1}
