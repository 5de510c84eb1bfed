"""Servers of the old era that ask in the middle of a call, and clients of the new one."""

from typing import Any

import anyio
import anyio.lowlevel

from mcp_bridge.types import Json
from tests.mcp_server.box import Box, boxes, text, tool
from tests.mcp_server.running import PATIENCE
from tests.mcp_server.wire import NEW, Wire, wire

CAN: Json = {"sampling": {}, "roots": {}}


def answers_to(asked: Json, **answers: Any) -> Json:
    """The same call, with answers to the questions, by the methods that they have."""
    chosen = {
        key: answers[question["method"].partition("/")[0]]
        for key, question in asked["inputRequests"].items()
    }
    return {"name": "ask", "requestState": asked["requestState"], "inputResponses": chosen}


def methods(asked: Json) -> list[str]:
    return sorted(question["method"] for question in asked["inputRequests"].values())


async def ask(context: Any, method: str, found: dict[str, Json]) -> None:
    channel = context.session._request_outbound
    found[method] = await channel.send_raw_request(method, {"messages": []})


SAMPLED: Json = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}}


async def back(client: Wire, asked: Json) -> Json:
    return await client.ask("tools/call", answers_to(asked, sampling=SAMPLED, roots={"roots": []}))


async def test_questions_that_are_open_together_are_handed_out_together() -> None:
    async def both(context: Any, params: Json) -> Json:
        found: dict[str, Json] = {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, context, "sampling/createMessage", found)
            tasks.start_soon(ask, context, "roots/list", found)
        return text(str(sorted(found)))

    box = Box(tools=[tool("ask")], answers={"ask": both})
    async with boxes("legacy", a=box) as house, wire(house, NEW, CAN) as client:
        asked = await client.call("ask")
        assert methods(asked) == ["roots/list", "sampling/createMessage"]
        result = await back(client, asked)
    assert result["content"] == text("['roots/list', 'sampling/createMessage']")["content"]


async def test_a_question_that_comes_while_another_is_being_answered_is_not_lost() -> None:
    asks_more = anyio.Event()

    async def one_and_another(context: Any, params: Json) -> Json:
        found: dict[str, Json] = {}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, context, "sampling/createMessage", found)
            await asks_more.wait()
            tasks.start_soon(ask, context, "roots/list", found)
        return text(str(sorted(found)))

    box = Box(tools=[tool("ask")], answers={"ask": one_and_another})
    async with boxes("legacy", a=box) as house, wire(house, NEW, CAN) as client:
        first = await client.call("ask")
        assert methods(first) == ["sampling/createMessage"]
        [parked] = house.door.facade.parked._calls.values()
        asks_more.set()
        with anyio.fail_after(PATIENCE):
            while len(parked.questions) < 2:
                await anyio.lowlevel.checkpoint()
        second = await back(client, first)
        assert methods(second) == ["roots/list"]
        result = await back(client, second)
    assert result["content"] == text("['roots/list', 'sampling/createMessage']")["content"]
