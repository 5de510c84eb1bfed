"""MCP servers over HTTP+SSE, the older transport: one GET stream brings everything, each message
is a POST. The stream is the connection: when it ends, everything in flight has failed."""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
from mcp_types import INTERNAL_ERROR
from yarl import URL

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.mcp_client.channel import Channel, NeedsAuth, WrongTransport
from mcp_bridge.mcp_client.events import Event, EventReader
from mcp_bridge.mcp_client.exchange import CURRENT, Exchange
from mcp_bridge.mcp_client.http import Client, Reply, Unsent, opened, place, within_origin
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost, StandIn
from mcp_bridge.mcp_client.peer import Peer

logger = logging.getLogger(__name__)

ENDPOINT_SECONDS = 10.0
"""How long a server may take to say where messages go."""


@asynccontextmanager
async def open_sse(name: str, settings: McpServer) -> AsyncGenerator[Channel]:
    """Talk HTTP+SSE.

    Raises:
        SourceUnavailable: there is no such stream, and why.
    """
    async with opened(name, settings) as client, _event_stream(name, client) as reply:
        wire = SseWire(name, client, reply)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wire.read)
            try:
                await wire.find_endpoint()
                yield wire.channel
            finally:
                wire.peer.close("the bridge has left")
                tasks.cancel_scope.cancel()


@asynccontextmanager
async def _event_stream(name: str, client: Client) -> AsyncGenerator[Reply]:
    headers = client.headers({"accept": "text/event-stream", "cache-control": "no-store"})
    try:
        reply = await client.open("GET", client.url, headers)
    except ConnectionLost as exc:
        raise SourceUnavailable(name, exc.error.message) from exc
    try:
        _check_stream(name, reply)
        yield reply
    finally:
        await reply.aclose()


def _check_stream(name: str, reply: Reply) -> None:
    status, where = reply.status, place(reply.url)
    if status in (401, 403):
        raise NeedsAuth(name, f"{where} asks for a login (HTTP {status}); check its headers")
    if status != 200 or not reply.is_events:
        found = f"HTTP {status}" if status != 200 else f"content type {reply.kind or 'missing'}"
        raise WrongTransport(name, f"no SSE stream at {where}: {found}")


class SseWire:
    """One open SSE stream with the POSTs that belong to it."""

    def __init__(self, name: str, client: Client, stream: Reply) -> None:
        self._name = name
        self._client = client
        self._stream = stream
        self._endpoint: URL | None = None
        self._found = anyio.Event()
        self._headers = client.headers({"content-type": "application/json"})
        self.peer = Peer(name, self)
        self.channel = Channel("sse", self.peer, noise=lambda: self.peer.noise)

    async def find_endpoint(self) -> None:
        """Wait until the server has said where messages go.

        Raises:
            WrongTransport: it does not.
        """
        with anyio.move_on_after(ENDPOINT_SECONDS):
            await self._found.wait()
        if self._endpoint is None:
            reason = self.channel.reason or "it does not say where messages go"
            where = place(self._stream.url)
            raise WrongTransport(self._name, f"no SSE transport at {where}: {reason}")

    async def read(self) -> None:
        """Hand on every event until the stream ends, which ends the connection."""
        reason, reader = "the server closed the stream", EventReader()
        try:
            while piece := await self._stream.piece():
                for event in reader.feed(piece):
                    self._take(event)
        except ConnectionLost as exc:
            reason = exc.error.message
        finally:
            self.channel.fail(reason)
            self.peer.close(reason)
            self._found.set()

    def _take(self, event: Event) -> None:
        if event.name == b"endpoint":
            self._take_endpoint(event.data.decode(errors="replace"))
        elif event.name == b"message" and event.data:
            self.peer.receive(event.data)

    def _take_endpoint(self, data: str) -> None:
        try:
            endpoint = self._stream.url.join(URL(data, encoded=data.isascii()))
        except ValueError:
            logger.error("%s: what says where messages go is no URL", self._name)
        else:
            if within_origin(self._stream.url, endpoint):
                self._endpoint = endpoint
            else:
                logger.error("%s: refused to send messages to %s", self._name, place(endpoint))
        self._found.set()

    async def ready(self) -> None:
        """Each message has a POST of its own: there is nothing to wait for."""

    async def send(self, data: bytes) -> None:
        """POST one message.

        Raises:
            ConnectionLost: it could not be delivered.
            StandIn: the server refused it.
        """
        if self._endpoint is None:
            raise ConnectionLost("the server has not said where messages go")
        exchange = CURRENT.get()
        if exchange is not None:
            exchange.sent = True
        try:
            reply = await self._client.open("POST", self._endpoint, self._headers, data)
        except Unsent:
            if exchange is not None:
                exchange.sent = False
            raise
        reply.linger()
        self._check(reply.status, exchange)

    def _check(self, status: int, exchange: Exchange | None) -> None:
        if status < 300:
            return
        if exchange is not None:
            exchange.status = status
        if status in (404, 410):
            if exchange is not None:
                exchange.sent = False
            self.channel.fail("the server has forgotten the session")
            raise ConnectionLost("it has forgotten the session")
        if status == 401:
            self.channel.fail("the server asks for a login (HTTP 401)", needs_auth=True)
        raise StandIn(INTERNAL_ERROR, "the server refused the message")
