"""MCP servers behind a WebSocket: our own peer on the client's end of `mcp_bridge.websocket`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import anyio

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.mcp_client.channel import Channel, NeedsAuth
from mcp_bridge.mcp_client.exchange import CURRENT
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.mcp_client.peer import Peer
from mcp_bridge.websocket import ClientSocket, Closed, connect

CONNECT_SECONDS = 10.0


@asynccontextmanager
async def open_websocket(name: str, settings: McpServer) -> AsyncGenerator[Channel]:
    """Talk over a WebSocket.

    Raises:
        SourceUnavailable: it cannot be opened, and why.
    """
    async with _opened(name, settings) as socket, anyio.create_task_group() as tasks:
        wire = SocketWire(name, socket)
        tasks.start_soon(wire.read)
        try:
            yield wire.channel
        finally:
            wire.peer.close("the bridge has left")
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def _opened(name: str, settings: McpServer) -> AsyncGenerator[ClientSocket]:
    headers = {key: value.get_secret_value() for key, value in settings.headers.items()}
    try:
        async with connect(
            settings.url or "", headers=headers, max_bytes=None, open_seconds=CONNECT_SECONDS
        ) as socket:
            yield socket
    except Closed as exc:
        kind = NeedsAuth if exc.status in (401, 403) else SourceUnavailable
        raise kind(name, str(exc)) from exc


class SocketWire:
    """One open WebSocket under a peer."""

    def __init__(self, name: str, socket: ClientSocket) -> None:
        self._socket = socket
        self.peer = Peer(name, self)
        self.channel = Channel("websocket", self.peer, noise=lambda: self.peer.noise)

    async def read(self) -> None:
        """Hand on every message until the server is gone, which ends the connection."""
        try:
            async with aclosing(self._socket.messages()) as messages:
                async for text in messages:
                    self.peer.receive(text)
        except Closed as exc:
            self._lost(str(exc))

    def _lost(self, reason: str) -> None:
        self.channel.fail(reason)
        self.peer.close(reason)

    async def ready(self) -> None:
        """Messages may be written at any time."""

    async def send(self, data: bytes) -> None:
        """Send one message.

        Raises:
            ConnectionLost: the server is gone.
        """
        exchange = CURRENT.get()
        if exchange is not None:
            exchange.sent = True
        try:
            await self._socket.send(data.decode().rstrip())
        except Closed as exc:
            self._lost(str(exc))
            raise ConnectionLost(str(exc)) from exc
