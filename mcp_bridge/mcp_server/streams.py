"""One connection that carries lines or frames, as the pair of streams that the SDK serves."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
from mcp.server import Server
from mcp.shared.message import SessionMessage
from mcp_types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from mcp_bridge.websocket import Closed, Socket

logger = logging.getLogger(__name__)


async def serve_socket(server: Server[Any], socket: Socket) -> None:
    """Serve one client over a WebSocket until one side leaves."""
    await serve(server, socket.messages(), socket.send)


async def serve(
    server: Server[Any],
    messages: AsyncIterator[str | bytes],
    send: Callable[[str], Awaitable[None]],
) -> None:
    """Serve one client. It is read and written side by side: neither waits for the other."""
    to_server, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, from_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def reader() -> None:
        async with to_server:
            async for text in messages:
                try:
                    message = jsonrpc_message_adapter.validate_json(text, by_name=False)
                except ValidationError:
                    await write.send(SessionMessage(NO_MESSAGE))
                else:
                    await to_server.send(SessionMessage(message))

    async def writer() -> None:
        async with from_server:
            async for item in from_server:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                try:
                    await send(text)
                except Closed:
                    return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        tasks.start_soon(writer)
        await server.run(read, write, server.create_initialization_options())
        tasks.cancel_scope.cancel()


NO_MESSAGE = JSONRPCError(
    jsonrpc="2.0",
    id=None,
    error=ErrorData(code=PARSE_ERROR, message="this is no JSON-RPC message"),
)
