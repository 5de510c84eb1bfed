"""MCP servers as they are seen in a worker that has none."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import OutcomeUnknown, SourceError, SourceUnavailable
from mcp_bridge.mcp_client.connection import State
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json
from mcp_bridge.workers.mirror import RESTARTING, Keeper, Mirrored
from mcp_bridge.workers.relay import news

ECHO = {"name": "echo", "inputSchema": {"type": "object"}, "x-vendor": 1}


def known(state: str = "connected", *tools: Json, **more: Any) -> Json:
    """What a keeper tells of a server that it has connected to, or tries to."""
    listed = state == "connected"
    empty: Json = {"prompts": [], "resources": [], "resource_templates": [], "capabilities": {}}
    error = None if listed else f"it has {state}"
    return {
        **empty,
        "tools": tools,
        "state": state,
        "error": error,
        "listed": listed,
        "server_info": {},
        "instructions": None,
        "protocol_version": "2025-11-25",
        **more,
    }


@asynccontextmanager
async def mirrored(keeper: Keeper, **settings: Any) -> AsyncGenerator[tuple[Mirrored, list[str]]]:
    changes: list[str] = []
    shown = Mirrored(
        "x",
        McpServer(command="x", **settings),
        on_change=changes.append,
        keeper=keeper,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(shown.run)
        await anyio.wait_all_tasks_blocked()
        yield shown, changes
        tasks.cancel_scope.cancel()


async def test_it_shows_what_the_keeper_has() -> None:
    keeper = Keeper()
    async with mirrored(keeper) as (shown, changes):
        assert shown.state == "starting"
        keeper.greet({"x": known("connected", ECHO, prompts=[{"name": "p"}]), "y": known()})
        await shown.settled()
        assert shown.state == "connected"
        assert [tool.definition for tool in shown.tools] == [ECHO]
        assert shown.prompts == ({"name": "p"},)
        assert {"tools", "prompts", "state"} <= set(changes)


async def test_one_that_comes_later_shows_what_is_known_already() -> None:
    keeper = Keeper()
    keeper.greet({"x": known("connected", ECHO)})
    async with mirrored(keeper) as (shown, _):
        assert shown.state == "connected"


async def test_tools_stand_while_a_new_keeper_connects_and_when_it_cannot() -> None:
    keeper = Keeper()
    async with mirrored(keeper) as (shown, _):
        keeper.greet({"x": known("connected", ECHO)})
        keeper.lost()
        assert (shown.state, shown.status()["error"]) == (State.DEGRADED, RESTARTING)
        keeper.greet({"x": known("starting")})
        assert (shown.state, len(shown.tools)) == (State.DEGRADED, 1)
        keeper.notice("server", {"name": "x", "known": known("failed")})
        assert (shown.state, len(shown.tools)) == (State.DEGRADED, 1)
        keeper.notice("server", {"name": "x", "known": known("connected")})
        assert (shown.state, len(shown.tools)) == (State.CONNECTED, 0)


async def test_tools_go_when_the_server_that_a_reload_put_in_place_has_none() -> None:
    keeper = Keeper()
    async with mirrored(keeper) as (shown, _):
        keeper.greet({"x": known("connected", ECHO)})
        keeper.notice("server", {"name": "x", "known": known("failed")})
        assert (shown.state, shown.tools) == (State.FAILED, ())


async def test_one_that_is_enabled_here_first_waits_for_the_keeper() -> None:
    keeper = Keeper()
    async with mirrored(keeper) as (shown, _):
        keeper.greet({"x": known("disabled")})
        assert shown.state == "starting"
        keeper.notice("server", {"name": "x", "known": known("connected", ECHO)})
        assert shown.state == "connected"


async def test_one_that_is_disabled_says_so() -> None:
    keeper = Keeper()
    async with mirrored(keeper, disabled=True) as (shown, _):
        await shown.settled()
        keeper.greet({"x": known("connected", ECHO)})
        assert (shown.state, shown.tools) == (State.DISABLED, ())


async def test_a_call_without_a_keeper_says_that_nothing_was_done() -> None:
    async with mirrored(Keeper()) as (shown, _):
        with pytest.raises(SourceUnavailable, match="being restarted"):
            await shown.call("echo", {}, CallContext())


class Ending(Keeper):
    """A keeper that ends with the first question, and does not come back."""

    def __init__(self) -> None:
        super().__init__()
        self._answers: list[SourceError] = [OutcomeUnknown("x", "x"), SourceUnavailable("x", "x")]

    async def ask(self, server: str, method: str, params: Json, context: CallContext) -> Json:
        raise self._answers.pop(0)


@pytest.mark.parametrize(
    ("hint", "expected"), [("idempotentHint", OutcomeUnknown), ("readOnlyHint", SourceUnavailable)]
)
async def test_a_call_that_cannot_be_repeated_may_have_taken_effect_if_it_changes_things(
    hint: str, expected: type[SourceError]
) -> None:
    keeper = Ending()
    async with mirrored(keeper) as (shown, _):
        keeper.greet({"x": known("connected", {**ECHO, "annotations": {hint: True}})})
        with pytest.raises(expected):
            await shown.call("echo", {}, CallContext())


def test_only_what_has_changed_is_told_and_always_how_it_is() -> None:
    before = known("connected", ECHO)
    assert news(before, before) == {}
    now = {**before, "prompts": [{"name": "p"}]}
    state = {"state": "connected", "error": None, "listed": True}
    assert news(before, now) == {"prompts": [{"name": "p"}], **state}


def test_everything_is_told_once_it_is_listed_again() -> None:
    assert news(known("starting"), known("connected")) == known("connected")
