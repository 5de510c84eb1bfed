"""One connection that carries lines or frames."""

import json
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from mcp_bridge.mcp_server.streams import serve
from mcp_bridge.types import Json
from tests.mcp_server.running import PATIENCE
from tests.mcp_server.test_stdio import INITIALIZE

OLD, BATCHES, NEWER = "2024-11-05", "2025-03-26", "2025-11-25"


class Talk:
    """A client on such a connection, and a server whose tool `hang` never ends."""

    def __init__(self) -> None:
        self.called = anyio.Event()
        self.server: Server[Any] = Server("x")
        self.server.middleware.append(self._hang)
        self._say: MemoryObjectSendStream[str]
        self._hear: MemoryObjectReceiveStream[str]

    async def _hang(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        if ctx.method == "tools/call":
            self.called.set()
            await anyio.sleep_forever()
        return await call_next(ctx)

    @asynccontextmanager
    async def going_on(self, last_seconds: float = 0) -> AsyncGenerator["Talk"]:
        self._say, messages = anyio.create_memory_object_stream[str](10)
        send, self._hear = anyio.create_memory_object_stream[str](10)
        async with messages, send, self._hear:
            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(serve, self.server, messages, send.send, last_seconds)
                    yield self
                    await self.leave()

    async def leave(self) -> None:
        await self._say.aclose()

    async def say(self, text: str) -> None:
        await self._say.send(text)

    async def hear(self) -> Any:
        return json.loads(await self._hear.receive())

    async def hello(self, version: str) -> None:
        await self.say(message("initialize", {**INITIALIZE, "protocolVersion": version}, 0))
        assert (await self.hear())["result"]["protocolVersion"] == version
        await self.say(message("notifications/initialized"))

    async def ping(self) -> None:
        """Nothing was said before the answer."""
        await self.say(message("ping", number="after"))
        assert await self.hear() == {"jsonrpc": "2.0", "id": "after", "result": {}}


def message(method: str, params: Json | None = None, number: int | str | None = None) -> str:
    identity = {} if number is None else {"id": number}
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or {}, **identity})


def batch(*messages: str) -> str:
    return f"[{','.join(messages)}]"


HANG = {"name": "hang"}


async def test_a_cancelled_request_is_not_waited_for_at_the_end() -> None:
    async with Talk().going_on(last_seconds=math.inf) as talk:
        await talk.hello(NEWER)
        await talk.say(message("tools/call", HANG, 1))
        await talk.called.wait()
        await talk.say(message("notifications/cancelled", {"requestId": 1}))
        await talk.ping()


async def test_a_request_whose_id_is_in_use_is_refused_and_the_first_goes_on() -> None:
    async with Talk().going_on() as talk:
        await talk.hello(NEWER)
        await talk.say(message("tools/call", HANG, 1))
        await talk.called.wait()
        await talk.say(message("ping", number=1))
        refused = await talk.hear()
        assert refused["error"]["code"] == -32600
        assert "give each its own" in refused["error"]["message"]
        await talk.say(message("notifications/cancelled", {"requestId": 1}))
        await talk.say(message("ping", number=1))
        assert (await talk.hear())["result"] == {}


NO_MESSAGES = [
    ("{half", -32700, None),
    ("\x00", -32700, None),
    ('{"jsonrpc": "2.0", "id": 1, "method": "ping"} and more', -32700, None),
    ("[" * 100_000, -32700, None),
    ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": NaN}}', -32700, None),
    ("5", -32600, None),
    ("null", -32600, None),
    ('"ping"', -32600, None),
    ("{}", -32600, None),
    ('{"id": 7, "method": "ping"}', -32600, 7),
    ('{"jsonrpc": "1.0", "id": "a", "method": "ping"}', -32600, "a"),
    ('{"jsonrpc": "2.0", "id": 7}', -32600, 7),
    ('{"jsonrpc": "2.0", "id": 7, "method": 5}', -32600, 7),
    ('{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": [1]}', -32600, 7),
    ('{"jsonrpc": "2.0", "id": null, "method": "ping"}', -32600, None),
    ('{"jsonrpc": "2.0", "id": true, "method": "ping"}', -32600, None),
    ('{"jsonrpc": "2.0", "id": {}, "method": "ping"}', -32600, None),
    ('{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', -32600, None),
    ('{"jsonrpc": "2.0", "id": 7, "result": 5}', -32600, None),
    ('{"jsonrpc": "2.0", "id": 7, "error": "no"}', -32600, None),
]
"""What comes, the code of the answer, and the id in it: not that of a broken answer, whose request
was ours."""


@pytest.mark.parametrize(("text", "code", "number"), NO_MESSAGES)
async def test_what_is_no_message_is_answered_and_the_connection_goes_on(
    text: str, code: int, number: object
) -> None:
    async with Talk().going_on() as talk:
        await talk.hello(NEWER)
        await talk.say(text)
        answer = await talk.hear()
        assert (answer["error"]["code"], answer["id"]) == (code, number)
        assert set(answer) == {"jsonrpc", "id", "error"}
        await talk.ping()


async def test_half_a_character_in_a_request_is_no_reason_not_to_answer_it() -> None:
    async with Talk().going_on() as talk:
        await talk.hello(NEWER)
        await talk.say('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "\\ud800"}}')
        assert (await talk.hear())["id"] == 1


# Batches


async def test_a_batch_is_taken_apart_and_its_answers_come_together() -> None:
    async with Talk().going_on() as talk:
        await talk.hello(BATCHES)
        await talk.say(
            batch(
                message("ping", number=1),
                message("notifications/roots/list_changed"),
                message("no/such/method", number="b"),
                '{"jsonrpc": "2.0", "id": 3, "method": 5}',
                "7",
                message("ping", number=4),
                message("ping", number=4),
            )
        )
        answers = await talk.hear()
        found = {(answer["id"], answer.get("error", {}).get("code")) for answer in answers}
        refused = {(3, -32600), (None, -32600), (4, -32600)}
        assert found == {(1, None), ("b", -32601), (4, None), *refused}
        assert len(answers) == 6
        await talk.ping()


async def test_a_batch_right_behind_the_greeting_waits_for_its_answer() -> None:
    async with Talk().going_on() as talk:
        await talk.say(message("initialize", {**INITIALIZE, "protocolVersion": BATCHES}, 0))
        await talk.say(batch(message("notifications/initialized"), message("ping", number=1)))
        assert (await talk.hear())["id"] == 0
        assert [answer["id"] for answer in await talk.hear()] == [1]


async def test_a_batch_that_asks_nothing_gets_no_answer_and_an_empty_one_is_refused() -> None:
    async with Talk().going_on() as talk:
        await talk.hello(BATCHES)
        await talk.say(batch(message("notifications/roots/list_changed")))
        await talk.ping()
        await talk.say("[]")
        refused = await talk.hear()
        assert (refused["error"]["code"], refused["id"]) == (-32600, None)
        assert "empty" in refused["error"]["message"]


@pytest.mark.parametrize("where", ["in the batch", "later", "later, as text"])
async def test_a_batch_does_not_wait_for_a_request_that_is_cancelled(where: str) -> None:
    number = "1" if "text" in where else 1
    cancel = message("notifications/cancelled", {"requestId": number})
    parts = [message("ping", number=2), message("tools/call", HANG, 1)]
    async with Talk().going_on() as talk:
        await talk.hello(BATCHES)
        await talk.say(batch(*parts, *([cancel] if where == "in the batch" else [])))
        if where != "in the batch":
            await talk.called.wait()
            await talk.say(cancel)
        assert [answer["id"] for answer in await talk.hear()] == [2]
        await talk.ping()


@pytest.mark.parametrize("number", [True, None, 1.0, [1], {}, 999])
async def test_what_names_no_request_cancels_none(number: object) -> None:
    async with Talk().going_on() as talk:
        await talk.hello(BATCHES)
        await talk.say(batch(message("ping", number=2), message("tools/call", HANG, 1)))
        await talk.called.wait()
        await talk.say(message("notifications/cancelled", {"requestId": number}))
        await talk.ping()
        await talk.say(message("notifications/cancelled", {"requestId": 1}))
        assert [answer["id"] for answer in await talk.hear()] == [2]


@pytest.mark.parametrize("version", [None, OLD, NEWER])
async def test_a_batch_in_a_session_of_another_version_is_refused_and_told_why(
    version: str | None,
) -> None:
    async with Talk().going_on() as talk:
        if version is not None:
            await talk.hello(version)
        await talk.say(batch(message("ping", number=1)))
        refused = await talk.hear()
        assert (refused["error"]["code"], refused["id"]) == (-32600, None)
        assert f"batches exist in MCP {BATCHES} only" in refused["error"]["message"]
        assert version is None or version in refused["error"]["message"]
        await talk.ping()


async def test_the_answers_to_a_batch_are_sent_although_the_client_has_said_everything() -> None:
    async with Talk().going_on(last_seconds=math.inf) as talk:
        await talk.hello(BATCHES)
        await talk.say(batch(message("ping", number=1), message("ping", number=2)))
        await talk.say("{half")
        await talk.leave()
        heard = [await talk.hear(), await talk.hear()]
        (refused,) = [answer for answer in heard if isinstance(answer, dict)]
        (answers,) = [answer for answer in heard if isinstance(answer, list)]
        assert refused["error"]["code"] == -32700
        assert {answer["id"] for answer in answers} == {1, 2}
