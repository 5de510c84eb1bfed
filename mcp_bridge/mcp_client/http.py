"""MCP servers behind a URL: streamable HTTP, and the older HTTP+SSE.

Streamable HTTP is the SDK's transport under the SDK's dispatcher, with a client that contains
failures: the SDK tears the whole session down when one POST breaks before its answer
(python-sdk #3560, #3522), so a broken POST is turned into an error answer for that request alone.
HTTP+SSE is our own small transport under our own peer: the SDK's dies on an event over 1 MiB, and
its writer dies silently on a POST that is refused.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import anyio
import anyio.abc
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.mcp_client.channel import Channel, NeedsAuth, WrongTransport
from mcp_bridge.mcp_client.exchange import CURRENT, Exchange
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.mcp_client.peer import Peer

logger = logging.getLogger(__name__)

SESSION = "mcp-session-id"
CONNECT_SECONDS = 10.0
ENDPOINT_SECONDS = 10.0
"""How long an SSE server may take to say where messages go."""

LEAVE_SECONDS = 2.0
MAX_REDIRECTS = 5
SHORT_STREAM_SECONDS = 5.0
SHORT_STREAMS = 2
"""So many GET streams that end at once are accident; more of them are slowed down."""

UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
"""Failures that happen before a byte of the request is on its way."""


def place(url: httpx2.URL | str) -> str:
    """A URL for messages: where it points to, without what may be secret."""
    parsed = httpx2.URL(url)
    return str(parsed.copy_with(userinfo=b"", query=None, fragment=None))


def words(exc: BaseException, url: httpx2.URL | str) -> str:
    """A transport failure as people read it."""
    match exc:
        case httpx2.ConnectTimeout():
            return f"no connection to {place(url)} in time"
        case httpx2.ConnectError():
            text = str(exc)
            refused = "refused" in text.lower() or "connection attempts failed" in text.lower()
            return f"connection refused at {place(url)}" if refused else f"{text} ({place(url)})"
        case httpx2.ReadTimeout():
            return f"{place(url)} has been silent for too long"
        case _:
            return f"{type(exc).__name__} at {place(url)}"


def client_options(settings: McpServer) -> dict[str, Any]:
    """The server's headers, and bounds. Our deadlines end calls; the read timeout is a net."""
    return {
        "headers": {key: value.get_secret_value() for key, value in settings.headers.items()},
        "timeout": httpx2.Timeout(
            CONNECT_SECONDS, read=settings.max_timeout + 60, write=60, pool=60
        ),
        "limits": httpx2.Limits(max_connections=1000, max_keepalive_connections=20),
    }


class Containing(httpx2.AsyncClient):
    """A client whose requests fail alone, and that notes on the exchange what became of it."""

    def __init__(self, channel: Channel, **options: Any) -> None:
        super().__init__(**options)
        self._channel = channel
        self._short_streams = 0
        self._stream_opened = 0.0
        self.session_id: str | None = None
        self.protocol_version: str | None = None

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        exchange = CURRENT.get()
        if request.method == "GET":
            await self._pace()
        if exchange is not None:
            exchange.sent = True
        try:
            response = await super().send(request, **options)
        except httpx2.TransportError as exc:
            return self._contained(request, exc, exchange)
        self._note_session(request, response)
        if response.status_code >= 400:
            return await self._refused(request, response, exchange)
        if request.method == "GET":
            self._stream_opened = time.monotonic()
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = ContainedStream(response.stream, exchange, request.url)
        return response

    def _contained(
        self, request: httpx2.Request, exc: httpx2.TransportError, exchange: Exchange | None
    ) -> httpx2.Response:
        reason = words(exc, request.url)
        unsent = isinstance(exc, UNSENT)
        if request.method == "GET":
            self._channel.fail(reason)
        elif exchange is not None:
            exchange.broken = reason
            exchange.sent = not unsent
        error = {"code": CONNECTION_CLOSED, "message": reason}
        return httpx2.Response(
            502, request=request, json={"jsonrpc": "2.0", "id": None, "error": error}
        )

    def _note_session(self, request: httpx2.Request, response: httpx2.Response) -> None:
        self.session_id = response.headers.get(SESSION) or self.session_id
        version = request.headers.get(MCP_PROTOCOL_VERSION_HEADER)
        self.protocol_version = version or self.protocol_version

    async def _refused(
        self, request: httpx2.Request, response: httpx2.Response, exchange: Exchange | None
    ) -> httpx2.Response:
        status = response.status_code
        if request.method == "GET" and self._stream_opened:
            # It was open before, and the SDK tries no more: nobody would hear of changes.
            self._channel.fail(f"the event stream cannot be opened again (HTTP {status})")
        if request.method != "POST":
            return response
        self._channel.status = status
        if await self._session_is_gone(request, response):
            self.session_id = None
            self._channel.fail("the server has forgotten the session")
            if exchange is not None:
                exchange.sent, exchange.broken = False, "it has forgotten the session"
            return response
        if status == 401:
            self._channel.fail("the server asks for a login (HTTP 401)", needs_auth=True)
        if exchange is not None:
            exchange.status = status
            if status >= 500 and not _is_json(response):
                exchange.broken = f"HTTP {status} from {place(request.url)}"
        return response

    async def _session_is_gone(self, request: httpx2.Request, response: httpx2.Response) -> bool:
        """A legacy server that was restarted: 404 by the specification, 400 by old SDKs."""
        if SESSION not in request.headers:
            return False
        if response.status_code == 404:
            return True
        if response.status_code != 400:
            return False
        try:
            return b"session" in (await response.aread()).lower()
        except (httpx2.TransportError, httpx2.StreamError):
            return False

    async def _pace(self) -> None:
        """Slow down the SDK's loop on servers that end each GET stream at once (T2)."""
        if self._stream_opened and time.monotonic() - self._stream_opened < SHORT_STREAM_SECONDS:
            self._short_streams += 1
            if self._short_streams > SHORT_STREAMS:
                await anyio.sleep(min(60, 2 ** (self._short_streams - SHORT_STREAMS)))
        else:
            self._short_streams = 0


class ContainedStream(httpx2.AsyncByteStream):
    """The body of an answer; when it breaks, only its own request fails."""

    def __init__(
        self, inner: httpx2.AsyncByteStream, exchange: Exchange | None, url: httpx2.URL
    ) -> None:
        self._inner = inner
        self._exchange = exchange
        self._url = url

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                yield chunk
        except httpx2.TransportError as exc:
            reason = words(exc, self._url)
            if self._exchange is not None:
                self._exchange.broken = reason
            raise httpx2.StreamError(reason) from exc

    async def aclose(self) -> None:
        await self._inner.aclose()


def _is_json(response: httpx2.Response) -> bool:
    return str(response.headers.get("content-type", "")).lower().startswith("application/json")


@asynccontextmanager
async def open_streamable(name: str, settings: McpServer) -> AsyncGenerator[Channel]:
    """Talk streamable HTTP; on leaving, tell the server that the session has ended."""
    url = settings.url or ""
    channel = Channel("http", _no_dispatcher(), is_http=True)
    async with Containing(channel, **client_options(settings)) as client:
        try:
            async with streamable_http_client(
                url, http_client=client, terminate_on_close=False, max_sse_event_size=None
            ) as (read, write):
                channel.dispatcher = JSONRPCDispatcher(read, write)
                yield channel
        finally:
            with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                await _leave(name, client, url)


def _no_dispatcher() -> JSONRPCDispatcher[Any]:
    """A dispatcher on closed streams, until the transport is open."""
    send, receive = anyio.create_memory_object_stream[Any](0)
    send.close()
    receive.close()
    return JSONRPCDispatcher(receive, send)


async def _leave(name: str, client: Containing, url: str) -> None:
    """The specification's DELETE of the session, for servers that keep one.

    Also of one that we give up: most servers keep it, with all it holds, until they are told.
    """
    if client.session_id is None:
        return
    headers = {SESSION: client.session_id}
    if client.protocol_version:
        headers[MCP_PROTOCOL_VERSION_HEADER] = client.protocol_version
    response = await client.delete(url, headers=headers)
    logger.debug("%s: session ended (HTTP %d)", name, response.status_code)


@asynccontextmanager
async def open_sse(name: str, settings: McpServer) -> AsyncGenerator[Channel]:
    """Talk HTTP+SSE: one GET stream brings everything, each message is a POST.

    Raises:
        SourceUnavailable: there is no such stream, and why.
    """
    url = settings.url or ""
    async with httpx2.AsyncClient(**client_options(settings)) as client:
        async with _event_stream(name, client, url) as response:
            wire = SseWire(name, client, httpx2.EventSource(response, max_event_size=None))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wire.read)
                try:
                    await wire.find_endpoint()
                    yield wire.channel
                finally:
                    wire.peer.close("the bridge has left")
                    tasks.cancel_scope.cancel()


@asynccontextmanager
async def _event_stream(
    name: str, client: httpx2.AsyncClient, url: str
) -> AsyncGenerator[httpx2.Response]:
    target = httpx2.URL(url)
    for _ in range(MAX_REDIRECTS):
        request = client.build_request("GET", target, headers={"accept": "text/event-stream"})
        try:
            response = await client.send(request, stream=True)
        except httpx2.TransportError as exc:
            raise SourceUnavailable(name, words(exc, target)) from exc
        try:
            following = response.next_request
            if following is not None and _origin(following.url) == _origin(target):
                target = following.url
                continue
            _check_stream(name, response, target)
            yield response
            return
        finally:
            await response.aclose()
    raise SourceUnavailable(name, f"{place(url)} redirects without end")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _check_stream(name: str, response: httpx2.Response, url: httpx2.URL) -> None:
    status = response.status_code
    if status in (401, 403):
        raise NeedsAuth(name, f"{place(url)} asks for a login (HTTP {status}); check its headers")
    kind = str(response.headers.get("content-type", "")).lower()
    if status != 200 or not kind.startswith("text/event-stream"):
        found = f"HTTP {status}" if status != 200 else f"content type {kind or 'missing'}"
        raise WrongTransport(name, f"no SSE stream at {place(url)}: {found}")


class SseWire:
    """One open SSE stream with the POSTs that belong to it."""

    def __init__(self, name: str, client: httpx2.AsyncClient, events: httpx2.EventSource) -> None:
        self._name = name
        self._client = client
        self._events = events
        self._url = events.response.request.url
        self._endpoint = ""
        self._found = anyio.Event()
        self.peer = Peer(name, self)
        self.channel = Channel("sse", self.peer, noise=lambda: self.peer.noise)

    async def find_endpoint(self) -> None:
        """Wait until the server has said where messages go."""
        with anyio.move_on_after(ENDPOINT_SECONDS):
            await self._found.wait()
        if not self._endpoint:
            reason = self.channel.reason or "it does not say where messages go"
            raise WrongTransport(self._name, f"no SSE transport at {place(self._url)}: {reason}")

    async def read(self) -> None:
        """Hand on every event until the stream ends, which ends the connection."""
        reason = "the server closed the stream"
        try:
            async for event in self._events:
                if event.event == "endpoint":
                    self._take_endpoint(event.data)
                elif event.event == "message" and event.data:
                    self.peer.receive(event.data)
        except (httpx2.TransportError, httpx2.StreamError) as exc:
            reason = words(exc, self._url)
        finally:
            self.channel.fail(reason)
            self.peer.close(reason)
            self._found.set()

    def _take_endpoint(self, data: str) -> None:
        endpoint = urljoin(str(self._url), data)
        if _origin(httpx2.URL(endpoint)) == _origin(self._url):
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
            MCPError: the server refused it.
        """
        exchange = CURRENT.get()
        if exchange is not None:
            exchange.sent = True
        try:
            response = await self._client.post(
                self._endpoint, content=data, headers={"content-type": "application/json"}
            )
        except httpx2.TransportError as exc:
            reason = words(exc, self._url)
            if exchange is not None:
                exchange.sent = not isinstance(exc, UNSENT)
            raise ConnectionLost(reason) from exc
        self._check(response.status_code, exchange)

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
        raise MCPError(INTERNAL_ERROR, "the server refused the message")
