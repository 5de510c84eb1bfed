"""One connection that carries lines or frames, as the pair of streams that the SDK serves."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.abc
from mcp.server import Server
from mcp.shared.message import SessionMessage
from mcp_types import (
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from mcp_bridge.websocket import Closed, Socket

logger = logging.getLogger(__name__)

CANCELLED = "notifications/cancelled"


async def serve_socket(server: Server[Any], socket: Socket) -> None:
    """Serve one client over a WebSocket until one side leaves."""
    async with aclosing(socket.messages()) as messages:
        await serve(server, messages, socket.send)


async def serve(
    server: Server[Any],
    messages: AsyncIterator[str | bytes],
    send: Callable[[str], Awaitable[None]],
    last_seconds: float = 0,
) -> None:
    """Serve one client. It is read and written side by side: neither waits for the other.

    A client that has said everything gets its last answers for up to `last_seconds`.
    """
    line = Line(messages, send, last_seconds)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.read)
        tasks.start_soon(line.write)
        options = server.create_initialization_options()
        await server.run(line.for_server, line.from_server, options)
        tasks.cancel_scope.cancel()


class Line:
    """The two directions of one connection, and the requests that have no answer yet."""

    def __init__(
        self,
        messages: AsyncIterator[str | bytes],
        send: Callable[[str], Awaitable[None]],
        last_seconds: float,
    ) -> None:
        self._messages = messages
        self._send = send
        self._last_seconds = last_seconds
        self._open: set[RequestId] = set()
        self._answered = anyio.Event()
        self._in, self.for_server = anyio.create_memory_object_stream[SessionMessage | Exception]()
        self.from_server, self._out = anyio.create_memory_object_stream[SessionMessage]()

    async def read(self) -> None:
        async with self._in:
            async for text in self._messages:
                try:
                    message = jsonrpc_message_adapter.validate_json(text, by_name=False)
                except ValidationError:
                    await self.from_server.send(SessionMessage(NO_MESSAGE))
                    continue
                if isinstance(message, JSONRPCRequest):
                    self._open.add(message.id)
                elif isinstance(message, JSONRPCNotification) and message.method == CANCELLED:
                    self._settle((message.params or {}).get("requestId"))  # it gets no answer
                await self._in.send(SessionMessage(message))
            with anyio.move_on_after(self._last_seconds):
                while self._open:
                    await self._answered.wait()

    async def write(self) -> None:
        async with self._out:
            async for item in self._out:
                message = item.message
                try:
                    await self._send(message.model_dump_json(by_alias=True, exclude_unset=True))
                except Closed:
                    return
                if isinstance(message, JSONRPCResponse | JSONRPCError):
                    self._settle(message.id)

    def _settle(self, number: object) -> None:
        if isinstance(number, int | str):
            self._open.discard(number)
        event, self._answered = self._answered, anyio.Event()
        event.set()


NO_MESSAGE = JSONRPCError(
    jsonrpc="2.0",
    id=None,
    error=ErrorData(code=PARSE_ERROR, message="this is no JSON-RPC message"),
)
