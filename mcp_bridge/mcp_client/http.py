"""The HTTP client of one MCP server: its address, headers, proxy, certificates and connections.

aiohttp carries the bytes: measured, a call costs a tenth of the CPU time that it costs through the
SDK's transport on httpx2 (docs/performance.md). What it raises becomes a ConnectionLost here, in
words that name the place and no secret. Unsent is the one after which a call may be sent again: no
byte of it was on its way (L22).

A redirect is followed only within the origin of the request, and only with the same method: the
configured headers are for that server, and a POST that becomes a GET has lost its message.

A server closes a connection that nobody uses, after 5 seconds with uvicorn or Node. A request that
crosses with that is lost, and whether it took effect is not known; so ours are given up earlier.
"""

import asyncio
import errno
import io
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import aiohttp
import anyio
from multidict import CIMultiDict
from yarl import URL

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.proxy import BadProxy, proxy_for

CONNECT_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 4.0
SILENT_SECONDS = 60.0
"""What has no deadline of its own may be silent for so much longer than the longest call."""

LINGER_SECONDS = 1.0
"""How long an answer that we need no more may take to end, so that its connection is kept."""

REFUSAL_SECONDS = 5.0
MOST_OF_A_REFUSAL = 1_000_000
CLOSE_SECONDS = 2.0
MAX_CONNECTIONS = 1000
MAX_REDIRECTS = 5
MAX_HEADER = 65_536
AT_ONCE = 2**20
"""A larger body is written in pieces, so that other requests get their turn."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEP_THE_METHOD = frozenset({307, 308})
NOT_IN_A_HEADER = frozenset("\r\n\0")

FAILURES = (aiohttp.ClientError, OSError, ValueError)
UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    UnicodeError,  # the host cannot be looked up
)
"""Failures that happen before a byte of the request is on its way."""


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


def words(exc: BaseException, url: URL) -> str:
    """A transport failure as people read it."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return f"no connection to {place(url)} in time"
        case aiohttp.ClientProxyConnectionError():
            return f"no connection to the proxy in front of {place(url)}"
        case aiohttp.ClientConnectorError():
            return _unreachable(exc.os_error, place(url))
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {exc.status} ({place(url)})"
        case aiohttp.SocketTimeoutError():
            return f"{place(url)} has been silent for too long"
        case aiohttp.ServerDisconnectedError():
            return f"{place(url)} closed the connection without an answer"
        case aiohttp.ClientPayloadError() if "decode" in str(exc):
            return f"{place(url)} sent an answer that cannot be decompressed"
        case aiohttp.ClientPayloadError():
            return f"{place(url)} broke off in the middle of its answer"
        case aiohttp.ClientResponseError():
            return f"what answers at {place(url)} is no HTTP"
        case UnicodeError():
            return f"there can be no such host ({place(url)})"
        case aiohttp.ClientOSError():
            return f"the connection to {place(url)} broke"
        case _:
            return f"{type(exc).__name__} at {place(url)}"


def _unreachable(error: OSError, where: str) -> str:
    if error.errno == errno.ECONNREFUSED:
        return f"connection refused at {where}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} ({where})"
    return f"{error.strerror or error or type(error).__name__} ({where})"


def lost(exc: BaseException, url: URL) -> ConnectionLost:
    """What a failure of the packages below means for a request."""
    return (Unsent if isinstance(exc, UNSENT) else ConnectionLost)(words(exc, url))


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

    def __init__(self, response: aiohttp.ClientResponse, leftovers: "Leftovers") -> None:
        self._response = response
        self._leftovers = leftovers
        self.status = response.status
        self.headers = response.headers
        self.url = response.url
        self.kind = response.headers.get("content-type", "").lower()
        self._lingers = False

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
        try:
            return await self._response.read()
        except FAILURES as exc:
            raise lost(exc, self.url) from None

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
            return await self._response.content.readany()
        except FAILURES as exc:
            raise lost(exc, self.url) from None

    def close(self) -> None:
        """Break it off, unless it is at its end or lingers: then its connection serves again."""
        if not self._lingers and not self._response.closed:
            self._response.close()

    def linger(self) -> None:
        """It is needed no more, but its connection is if the server ends the answer soon."""
        self._lingers = True
        self._leftovers.keep(self._response)


class Leftovers:
    """Answers that nobody reads to their end. Their connections serve again if that comes soon."""

    def __init__(self) -> None:
        self._timers: dict[aiohttp.ClientResponse, asyncio.TimerHandle] = {}

    def keep(self, response: aiohttp.ClientResponse) -> None:
        if not response.closed:
            loop = asyncio.get_running_loop()
            self._timers[response] = loop.call_later(LINGER_SECONDS, self._drop, response)
            response.content.on_eof(partial(self._drop, response))

    def _drop(self, response: aiohttp.ClientResponse) -> None:
        if (timer := self._timers.pop(response, None)) is not None:
            timer.cancel()
            response.close()  # which has no effect on one that is at its end

    def close(self) -> None:
        for response in tuple(self._timers):
            self._drop(response)


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
        self._net = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_SECONDS, sock_read=settings.max_timeout + SILENT_SECONDS
        )
        self._patient = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
        self._leftovers = Leftovers()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                ssl=trusted() if url.scheme == "https" else True,
            ),
            # A balancer's cookie leads to the machine that has the session.
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )

    def headers(self, more: Mapping[str, str]) -> "CIMultiDict[str]":
        """The configured headers and these, which win."""
        headers = self._headers.copy()
        headers.update(more)
        return headers

    async def open(
        self,
        method: str,
        url: URL,
        headers: "CIMultiDict[str]",
        body: bytes | None = None,
        *,
        has_deadline: bool = False,
    ) -> Reply:
        """Send a request and wait for the head of its answer, at the end of its redirects.

        Raises:
            Unsent: nothing was sent.
            ConnectionLost: no answer came.
        """
        timeout = self._patient if has_deadline else self._net
        for _ in range(MAX_REDIRECTS):
            reply = await self._once(method, url, headers, body, timeout)
            target = reply.location
            if target is None or not within_origin(url, target):
                return reply
            if method != "GET" and reply.status not in KEEP_THE_METHOD:
                return reply
            reply.linger()
            url = target
        return await self._once(method, url, headers, body, timeout)

    async def _once(
        self,
        method: str,
        url: URL,
        headers: "CIMultiDict[str]",
        body: bytes | None,
        timeout: aiohttp.ClientTimeout,
    ) -> Reply:
        try:
            response = await self._session.request(
                method,
                url,
                headers=headers,
                data=io.BytesIO(body) if body is not None and len(body) > AT_ONCE else body,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=timeout,
            )
        except FAILURES as exc:
            raise lost(exc, url) from None
        return Reply(response, self._leftovers)

    async def aclose(self) -> None:
        """Close every connection."""
        self._leftovers.close()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await self._session.close()


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


def own_headers(name: str, settings: McpServer, url: URL) -> "CIMultiDict[str]":
    """What every request carries: the configured headers, and a login that the URL holds."""
    headers = CIMultiDict({"user-agent": "mcp-bridge", "accept-encoding": "gzip, deflate"})
    for key, secret in settings.headers.items():
        value = secret.get_secret_value().strip()  # a file's last line often ends in a line break
        if NOT_IN_A_HEADER & set(key + value):
            raise SourceUnavailable(
                name, f"mcp_servers.{name}: headers.{key.strip()} holds what no header can carry"
            )
        headers[key] = value
    if url.user is not None:
        login = f"{url.user}:{url.password or ''}".encode()
        headers["authorization"] = f"Basic {b64encode(login).decode()}"
    return headers


def trusted() -> ssl.SSLContext:
    """The certificates of the system, wherever it keeps them, or those of SSL_CERT_FILE."""
    from httpx2 import create_ssl_context  # here, for only TLS needs it

    context = create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def proxy_of(name: str, url: URL) -> str | None:
    """The proxy that the environment names for a server.

    Raises:
        SourceUnavailable: it is none that we can use.
    """
    try:
        return proxy_for(str(url))
    except BadProxy as exc:
        raise SourceUnavailable(name, str(exc)) from None
