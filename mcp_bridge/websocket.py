"""MCP messages over a WebSocket, both ends; the SDK has neither.

The specification knows no WebSocket transport and allows custom ones. This is the one that clients
and servers in the field speak (mcp 1.x for Python, the TypeScript SDK): subprotocol `mcp`, one
JSON-RPC message per text frame, in both directions at any time. Cancelling is
`notifications/cancelled`, as on stdio. A binary frame is a mistake and closes with 1003, a message
that is too long with 1009, and a connection on which nothing happens for long with 1001.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import urlsplit

import anyio
import websockets.asyncio.client as client
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    SecurityError,
    WebSocketException,
)
from websockets.typing import Subprotocol

SUBPROTOCOL = "mcp"
GOING_AWAY, UNSUPPORTED, TOO_BIG = 1001, 1003, 1009
PING_SECONDS = 20.0
"""A peer that does not answer a ping for so long is gone."""


CLOSE_SECONDS = 2.0


class Closed(Exception):
    """The other side is gone; the message says how. `status` is set when it refused HTTP-wise."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class Socket(Protocol):
    """An open WebSocket that carries messages."""

    async def send(self, text: str) -> None:
        """Send one message.

        Raises:
            Closed: the other side is gone.
        """
        ...

    def messages(self) -> AsyncGenerator[str]:
        """What the other side sends, until it is gone."""
        ...


class ServerSocket:
    """The server's end, on the framework's WebSocket, which has been accepted."""

    def __init__(self, websocket: WebSocket, *, max_bytes: int, idle_seconds: float) -> None:
        self._websocket = websocket
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._idle = anyio.CancelScope()

    async def send(self, text: str) -> None:
        self._stay()
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError) as exc:  # a late send is a RuntimeError
            raise Closed("the client has closed the connection") from exc

    async def messages(self) -> AsyncGenerator[str]:
        while (text := await self._next()) is not None:
            yield text

    async def _next(self) -> str | None:
        with anyio.CancelScope() as self._idle:
            self._stay()
            return await self._receive()
        await self._websocket.close(GOING_AWAY, "nothing has happened for too long")
        return None

    async def _receive(self) -> str | None:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        if text is None:
            await self._websocket.close(UNSUPPORTED, "MCP messages are text frames")
            return None
        if longer(text, self._max_bytes):
            await self._websocket.close(TOO_BIG, f"at most {self._max_bytes} bytes in a message")
            return None
        return str(text)

    async def close(self) -> None:
        """Say goodbye, if that has not been said."""
        if WebSocketState.DISCONNECTED not in (
            self._websocket.client_state,
            self._websocket.application_state,
        ):
            await self._websocket.close(GOING_AWAY)

    def _stay(self) -> None:
        self._idle.deadline = anyio.current_time() + self._idle_seconds


def longer(text: str, limit: int) -> bool:
    """Whether a text has more bytes than this in UTF-8, which is seldom counted to find out."""
    if text.isascii() or len(text) > limit:
        return len(text) > limit
    return len(text) * 4 > limit and len(text.encode()) > limit


class ClientSocket:
    """The client's end."""

    def __init__(self, connection: client.ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        try:
            await self._connection.send(text)
        except ConnectionClosed as exc:
            raise Closed(_words(exc)) from exc

    async def messages(self) -> AsyncGenerator[str]:
        """What the server sends.

        Raises:
            Closed: it is gone, and why.
        """
        while True:
            try:
                message = await self._connection.recv()
            except ConnectionClosed as exc:
                raise Closed(_words(exc)) from exc
            if isinstance(message, bytes):
                await self._connection.close(UNSUPPORTED, "MCP messages are text frames")
                raise Closed("the server sent a binary frame, which is no MCP message")
            yield message


class SameOrigin(client.connect):
    """Opens connections, and takes our headers to no other host than the one they are for."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        target = super().process_redirect(exc)
        if isinstance(target, str) and urlsplit(target)[:2] != urlsplit(self.uri)[:2]:
            return SecurityError("the server redirects to another host")
        return target


@asynccontextmanager
async def connect(
    url: str, *, headers: Mapping[str, str], max_bytes: int | None, open_seconds: float
) -> AsyncGenerator[ClientSocket]:
    """Open a WebSocket to an MCP server.

    Raises:
        Closed: it cannot be opened, and why.
    """
    try:
        connection = await SameOrigin(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers=dict(headers),
            max_size=max_bytes,
            open_timeout=open_seconds,
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=CLOSE_SECONDS,
            compression=None,
            proxy=None,
        )
    except InvalidStatus as exc:
        status = exc.response.status_code
        raise Closed(f"the server refused the WebSocket (HTTP {status})", status) from exc
    except ConnectionRefusedError as exc:
        raise Closed("connection refused") from exc
    except (OSError, TimeoutError, WebSocketException) as exc:
        raise Closed(str(exc) or "no connection in time") from exc
    try:
        if connection.subprotocol != SUBPROTOCOL:
            raise Closed('the server does not speak the subprotocol "mcp"')
        yield ClientSocket(connection)
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


def _words(exc: ConnectionClosed) -> str:
    frame = exc.rcvd
    if frame is None:
        return "the connection broke"
    reason = f": {frame.reason}" if frame.reason else ""
    return f"the server closed the connection ({frame.code}{reason})"
