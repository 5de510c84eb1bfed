"""What a client can be asked, and which log messages it wants: plain functions."""

from typing import Any

import anyio
import pytest
from mcp.shared.exceptions import MCPError

from mcp_bridge.mcp_server.client import Outbox, important, why_not, without_meta
from mcp_bridge.mcp_server.messages import notification
from mcp_bridge.types import Json
from tests.mcp_server.running import PATIENCE

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


async def test_a_note_that_cannot_be_written_is_left_out_and_the_next_one_is_told() -> None:
    said: list[bytes] = []

    async def send(method: str, params: Json) -> None:
        said.append(notification(method, params))

    async with anyio.create_task_group() as tasks:
        outbox = Outbox(send, tasks)
        outbox.put("notifications/message", {"data": deep()})
        outbox.put("notifications/message", {"data": "words"})
        with anyio.fail_after(PATIENCE):
            await outbox.flush()
    assert [b"words" in note for note in said] == [True]


def test_what_is_nested_too_deeply_is_refused_in_words_that_fit() -> None:
    with pytest.raises(MCPError, match="nested too deeply"):
        notification("notifications/message", {"data": deep()})


def deep() -> Any:
    value: Any = "down here"
    for _ in range(5000):
        value = [value]
    return value
