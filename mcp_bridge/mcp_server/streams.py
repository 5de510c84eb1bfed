"""One connection that carries lines or frames, as the pair of streams that the SDK serves.

A batch is taken apart: the server sees single messages. Its answers are collected, and leave
together when the last of them is there.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
from mcp.server import Server
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)

from mcp_bridge.mcp_server.reading import Refused, message_of, parts_of, value_of
from mcp_bridge.websocket import Closed, Socket

logger = logging.getLogger(__name__)

CANCELLED = "notifications/cancelled"


async def serve_socket(server: Server[Any], socket: Socket) -> None:
    """Serve one client over a WebSocket until one side leaves."""
    async with aclosing(socket.messages()) as messages:
        await serve(server, messages, socket.send)


async def serve(
    server: Server[Any],
    messages: AsyncIterator[str | bytes | Refused],
    send: Callable[[str], Awaitable[None]],
    last_seconds: float = 0,
) -> None:
    """Serve one client. It is read and written side by side: neither waits for the other.

    A client that has said everything gets its last answers for up to `last_seconds`.
    """
    line = Line(messages, send, last_seconds)

    async def write_while_somebody_hears() -> None:
        await line.write()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.read)
        tasks.start_soon(write_while_somebody_hears)
        options = server.create_initialization_options()
        await server.run(line.for_server, line.from_server, options)
        tasks.cancel_scope.cancel()


@dataclass(slots=True)
class Batch:
    """The answers to a batch, until they are complete."""

    open: int = 1
    """How many are to come; one more while its parts are still being read."""

    answers: list[str] = field(default_factory=list)


class Line:
    """The two directions of one connection, and the requests that have no answer yet."""

    def __init__(
        self,
        messages: AsyncIterator[str | bytes | Refused],
        send: Callable[[str], Awaitable[None]],
        last_seconds: float,
    ) -> None:
        self._messages = messages
        self._send = send
        self._turn = anyio.Lock(fast_acquire=True)
        self._last_seconds = last_seconds
        self._open: dict[RequestId, Batch | None] = {}
        self._answered = anyio.Event()
        self._greeting: RequestId | None = None
        self._version: str | None = None
        self._in, self.for_server = anyio.create_memory_object_stream[SessionMessage | Exception]()
        self.from_server, self._out = anyio.create_memory_object_stream[SessionMessage]()

    # What the client says.

    async def read(self) -> None:
        async with self._in:
            try:
                async for item in self._messages:
                    await self._take(item)
            except Closed:
                return
            with anyio.move_on_after(self._last_seconds):
                while self._open:
                    await self._answered.wait()
                async with self._turn:  # the last one is on its way
                    pass

    async def _take(self, item: str | bytes | Refused) -> None:
        try:
            if isinstance(item, Refused):
                raise item
            value = value_of(item)
            if isinstance(value, list):
                await self._take_batch(value)
            else:
                await self._hand_on(message_of(value), None)
        except Refused as refused:
            await self._say(written(refused.answer))

    async def _take_batch(self, values: list[object]) -> None:
        while self._greeting in self._open:  # its answer says which version is spoken
            await self._answered.wait()
        batch = Batch()
        for value in parts_of(values, self._version):
            try:
                await self._hand_on(message_of(value), batch)
            except Refused as refused:
                batch.answers.append(written(refused.answer))
        await self._close_one(batch)

    async def _hand_on(self, message: JSONRPCMessage, batch: Batch | None) -> None:
        """Give it to the server, which answers requests through `write`."""
        if isinstance(message, JSONRPCRequest):
            self._expect_answer(message, batch)
        await self._in.send(SessionMessage(message))
        if isinstance(message, JSONRPCNotification) and message.method == CANCELLED:
            await self._expect_none((message.params or {}).get("requestId"))

    def _expect_answer(self, request: JSONRPCRequest, batch: Batch | None) -> None:
        number = coerce_request_id(request.id)
        if number in self._open:
            why = "an earlier request with this id has no answer yet: give each its own"
            raise Refused(INVALID_REQUEST, why, request.id)
        self._open[number] = batch
        if batch is not None:
            batch.open += 1
        if request.method == "initialize":
            self._greeting = number

    async def _expect_none(self, cancelled: object) -> None:
        """A request that is cancelled gets no answer."""
        if isinstance(cancelled, int | str) and not isinstance(cancelled, bool):
            batch = self._settle(coerce_request_id(cancelled))
            if batch is not None:
                await self._close_one(batch)

    # What the server says.

    async def write(self) -> None:
        async with self._out:
            try:
                async for item in self._out:
                    await self._pass_on(item.message)
            except Closed:
                return

    async def _pass_on(self, message: JSONRPCMessage) -> None:
        text = written(message)
        batch = self._answer(message)
        if batch is None:
            await self._say(text)
            return
        batch.answers.append(text)
        await self._close_one(batch)

    def _answer(self, message: JSONRPCMessage) -> Batch | None:
        """Take note of an answer. Returns the batch that waits for it."""
        if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id is None:
            return None
        number = coerce_request_id(message.id)
        if number == self._greeting and isinstance(message, JSONRPCResponse):
            self._version = message.result.get("protocolVersion")
        return self._settle(number)

    async def _close_one(self, batch: Batch) -> None:
        """One thing less to wait for; what is complete is sent, unless it is empty."""
        batch.open -= 1
        if not batch.open and batch.answers:
            await self._say(f"[{','.join(batch.answers)}]")

    async def _say(self, text: str) -> None:
        async with self._turn:
            await self._send(text)

    # Which answers are missing.

    def _settle(self, number: RequestId) -> Batch | None:
        """It needs no answer any more. Returns the batch that it was in."""
        batch = self._open.pop(number, None)
        self._wake()
        return batch

    def _wake(self) -> None:
        event, self._answered = self._answered, anyio.Event()
        event.set()


def written(message: JSONRPCMessage) -> str:
    return message.model_dump_json(by_alias=True, exclude_unset=True)
