"""The HTTP client of one MCP server: its address, headers, cookies, proxy and connections.

`http1` carries the bytes. What it raises becomes a ConnectionLost here, in words that name the
place and no secret. Unsent is the one after which a call may be sent again: no byte of it was on
its way (L22).

A redirect is followed only within the origin of the request, and only with the same method: the
configured headers are for that server, and a POST that becomes a GET has lost its message.

A server closes a connection that nobody uses, after 5 seconds with uvicorn or Node. A request that
crosses with that is lost, and whether it took effect is not known; so ours are given up earlier.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TypeVar

import anyio
from yarl import URL

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.http1 import failures
from mcp_bridge.http1.decoding import decoded
from mcp_bridge.http1.head import header_lines, is_name
from mcp_bridge.http1.pool import Pool, Request
from mcp_bridge.mcp_client.cookies import Cookies
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.proxy import BadProxy, proxy_for

T = TypeVar("T")

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0
SILENT_SECONDS = 60.0
"""What has no deadline of its own may be silent for so much longer than the longest call."""

LINGER_SECONDS = 1.0
"""How long an answer that we need no more may take to end, so that its connection is kept."""

REFUSAL_SECONDS = 5.0
MOST_OF_A_REFUSAL = 1_000_000
MAX_REDIRECTS = 5
KNOWN_URLS = 16

REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEP_THE_METHOD = frozenset({307, 308})

FAILURES = (failures.HttpFailure, ValueError)


class Unsent(ConnectionLost):
    """The connection failed before a byte of the request was on its way."""


def address(name: str, url: str) -> URL:
    """The URL of a server.

    Raises:
        SourceUnavailable: it is none that HTTP can use.
    """
    try:
        # As it is written: what is quoted in a query must stay so.
        parsed = URL(url, encoded=url.isascii() and " " not in url)
        if parsed.scheme in ("http", "https") and parsed.host:
            return parsed.with_fragment(None)
    except ValueError:
        pass
    raise SourceUnavailable(name, f"the url cannot be used: {place(url)} is no http:// or https://")


def place(url: URL | str) -> str:
    """A URL for messages: where it points to, without what may be secret."""
    try:
        return str(URL(url).with_user(None).with_query(None).with_fragment(None))
    except ValueError:
        return str(url).partition("?")[0].rpartition("@")[2]


def words(exc: BaseException, url: URL, *, begun: bool = False) -> str:
    """A failure as people read it; `begun`: an answer had begun."""
    match exc:
        case failures.TooSlow():
            return f"no connection to {place(url)} in time"
        case failures.ProxyUnreachable():
            return f"no connection to the proxy in front of {place(url)}"
        case failures.Unreachable():
            return f"{exc.why} at {place(url)}"
        case failures.ProxyRefused():
            return f"the proxy answered {exc.status} ({place(url)})"
        case failures.Undecodable():
            return f"{place(url)} sent an answer that cannot be decompressed"
        case failures.NotHttp():
            return f"what answers at {place(url)} is no HTTP"
        case failures.Broken() if begun:
            return f"{place(url)} broke off in the middle of its answer"
        case failures.Broken():
            return f"{place(url)} closed the connection without an answer"
        case TimeoutError():
            return f"{place(url)} has been silent for too long"
        case _:
            return f"{type(exc).__name__} at {place(url)}"


def lost(exc: BaseException, url: URL, *, begun: bool = False) -> ConnectionLost:
    """What a failure means for a request; `begun`: an answer had begun."""
    unsent = isinstance(exc, failures.Unsent | ValueError)
    return (Unsent if unsent else ConnectionLost)(words(exc, url, begun=begun))


def within_origin(url: URL, target: URL) -> bool:
    """Whether `target` is at the same server, or is the same server over TLS."""
    if target.user is not None or target.password is not None:
        return False
    if (target.host or "").lower() != (url.host or "").lower():
        return False
    ends = (url.scheme, url.port), (target.scheme, target.port)
    return ends[0] == ends[1] or ends == (("http", 80), ("https", 443))


class Reply:
    """An answer whose head has arrived. Whoever has it closes it, or lets it linger."""

    def __init__(self, request: Request, url: URL, silence: float | None) -> None:
        """`silence`: the seconds that may pass between two pieces of the body; None: any."""
        response = request.response
        self._request = request
        encoding = response.headers.get("content-encoding")
        self._read = decoded(response.read, encoding) if encoding else response.read
        self._silence = silence
        self._lingers = False
        self.url = url
        self.status = response.status
        self.headers = response.headers
        self.kind = response.headers.get("content-type", "").lower()

    @property
    def is_json(self) -> bool:
        return self.kind.startswith("application/json")

    @property
    def is_events(self) -> bool:
        return self.kind.startswith("text/event-stream")

    @property
    def location(self) -> URL | None:
        """Where it redirects to."""
        given = self.headers.get("location")
        if given is None or self.status not in REDIRECTS:
            return None
        try:
            return self.url.join(URL(given, encoded=given.isascii() and " " not in given))
        except ValueError:
            return None

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            ConnectionLost: it broke off.
        """
        pieces = []
        while piece := await self.piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def beginning(self) -> bytes:
        """As much of a refusal as is worth reading; what breaks off has said enough."""
        body = b""
        try:
            with anyio.move_on_after(REFUSAL_SECONDS):
                while len(body) < MOST_OF_A_REFUSAL and (piece := await self.piece()):
                    body += piece
        except ConnectionLost:
            pass
        return body

    async def piece(self) -> bytes:
        """What arrives next of the body; nothing at its end.

        Raises:
            ConnectionLost: it broke off.
        """
        try:
            piece = self._read()
            return await (piece if self._silence is None else within(self._silence, piece))
        except (*FAILURES, TimeoutError) as exc:
            raise lost(exc, self.url, begun=True) from None

    async def aclose(self) -> None:
        """Break it off, unless it is at its end or lingers: then its connection serves again."""
        if not self._lingers:
            await self._request.aclose()

    def linger(self) -> None:
        """It is needed no more, but its connection is if the server ends the answer soon."""
        self._lingers = True
        response = self._request.response
        if not response.is_over:
            asyncio.get_running_loop().call_later(LINGER_SECONDS, response.close)


async def within(seconds: float, wait: Awaitable[T]) -> T:
    """What is waited for.

    Raises:
        TimeoutError: it took longer.
    """
    async with asyncio.timeout(seconds):
        return await wait


class Client:
    """The connections to one server. Made in a running event loop; nothing is open yet.

    Raises:
        SourceUnavailable: the settings hold what HTTP cannot use.
    """

    def __init__(self, name: str, settings: McpServer) -> None:
        url = address(name, settings.url or "")
        self.url = url.with_user(None)
        self._headers = own_headers(name, settings, url)
        self._proxy = proxy_of(name, url)
        self._silence = settings.max_timeout + SILENT_SECONDS
        self._cookies = Cookies()
        self._text_of = lru_cache(KNOWN_URLS)(str)
        self._pools = {self.url.origin(): self._pool(self.url)}

    def headers(self, more: Mapping[str, str]) -> dict[str, str]:
        """The configured headers and these, which win; the names of both are lower-case."""
        return {**self._headers, **more}

    async def open(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        has_deadline: bool = False,
    ) -> Reply:
        """Send a request and wait for the head of its answer, at the end of its redirects.

        Raises:
            Unsent: nothing was sent.
            ConnectionLost: no answer came.
        """
        silence = None if has_deadline else self._silence
        for _ in range(MAX_REDIRECTS):
            reply = await self._once(method, url, headers, body, silence)
            target = reply.location
            if target is None or not within_origin(url, target):
                return reply
            if method != "GET" and reply.status not in KEEP_THE_METHOD:
                return reply
            reply.linger()
            url = target
        return await self._once(method, url, headers, body, silence)

    async def _once(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
        silence: float | None,
    ) -> Reply:
        where = self._text_of(url)
        try:
            lines = header_lines((*headers.items(), *self._cookies.for_url(where)))
            pool = self._pools.get(url.origin()) or self._pools.setdefault(
                url.origin(), self._pool(url)
            )
            answer = pool.send(method, where, lines, body)
            request = await (answer if silence is None else within(silence, answer))
        except (*FAILURES, TimeoutError) as exc:
            raise lost(exc, url) from None
        if "set-cookie" in request.response.headers:
            self._cookies.take(where, request.response.raw_headers)
        return Reply(request, url, silence)

    def _pool(self, url: URL) -> Pool:
        return Pool(
            str(url),
            connect_timeout=CONNECT_SECONDS,
            proxy=self._proxy,
            keep_alive=KEEP_ALIVE_SECONDS,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            await pool.aclose()


@asynccontextmanager
async def opened(name: str, settings: McpServer) -> AsyncGenerator[Client]:
    """The client of a server, until this is left.

    Raises:
        SourceUnavailable: the settings hold what HTTP cannot use.
    """
    client = Client(name, settings)
    try:
        yield client
    finally:
        await client.aclose()


def own_headers(name: str, settings: McpServer, url: URL) -> dict[str, str]:
    """What every request carries: the configured headers, and a login that the URL holds."""
    headers = {"user-agent": "mcp-bridge", "accept-encoding": "gzip, deflate"}
    for key, secret in settings.headers.items():
        value = secret.get_secret_value().strip()  # a file's last line often ends in a line break
        try:
            header_lines([(key, value)])
        except ValueError:
            raise SourceUnavailable(
                name, f"mcp_servers.{name}: headers.{key.strip()} holds what no header can carry"
            ) from None
        if not is_name(key):
            raise SourceUnavailable(
                name, f"mcp_servers.{name}: headers: {key!r} is no name that a header can have"
            )
        headers[key.lower()] = value
    if url.user is not None:
        login = f"{url.user}:{url.password or ''}".encode()
        headers["authorization"] = f"Basic {b64encode(login).decode()}"
    return headers


def proxy_of(name: str, url: URL) -> str | None:
    """The proxy that the environment names for a server.

    Raises:
        SourceUnavailable: it is none that we can use.
    """
    try:
        return proxy_for(str(url))
    except BadProxy as exc:
        raise SourceUnavailable(name, str(exc)) from None
