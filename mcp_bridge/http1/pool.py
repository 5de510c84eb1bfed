"""The connections to one server: those that wait for a request, and how a new one is made."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import Context
from functools import lru_cache

from aiohappyeyeballs import AddrInfoType, start_connection

from mcp_bridge.http1.connection import PIECE, Connection, Response
from mcp_bridge.http1.failures import (
    Broken,
    NotHttp,
    ProxyRefused,
    ProxyUnreachable,
    TooSlow,
    Unreachable,
)
from mcp_bridge.http1.head import Origin, header_lines, request_line
from mcp_bridge.http1.trust import trusted
from mcp_bridge.tasks import Tasks

KEEP_ALIVE_SECONDS = 60.0
NEXT_ADDRESS_SECONDS = 0.25
"""After so long the next address of a host is tried, too (RFC 8305)."""

HEADS_KEPT = 256
TAKES_A_BODY = frozenset({"PATCH", "POST", "PUT"})
MAY_BE_REPEATED = frozenset({"GET", "HEAD", "OPTIONS"})

Body = AsyncGenerator[bytes] | bytes | None
Trust = Callable[[], ssl.SSLContext]


class Request:
    """A request on its way. Whoever has it ends it: its answer, and the sending of its body."""

    def __init__(self, response: Response, upload: Tasks | None) -> None:
        self.response = response
        self._upload = upload

    async def aclose(self) -> None:
        """Break off what is not at its end."""
        self.response.close()
        if self._upload is not None:
            await self._upload.end()


class Pool:
    """Connections to the server at one origin. Made in a running event loop; none is open yet."""

    def __init__(
        self,
        url: str,
        *,
        connect_timeout: float,
        trust: Trust = trusted,
        proxy: str | None = None,
        host: str | None = None,
        keep_alive: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        """`trust` makes what certificates are checked with, when TLS is spoken.

        `connect_timeout`: seconds for a new connection, with TLS and what the proxy takes.
        `keep_alive`: seconds that one may wait for its next request. `host`: what the header says
        where that is not the URL's.

        Raises:
            BadUrl: one of the URLs is none.
        """
        self._loop = asyncio.get_running_loop()
        self.origin = Origin.of(url)
        self._proxy = Origin.of(proxy) if proxy else None
        self._host = host or self.origin.host_header
        self._trust = lru_cache(1)(trust)
        self._connect_timeout = connect_timeout
        self._keep_alive = keep_alive
        self._open: set[Connection] = set()
        self._idle: dict[Connection, float] = {}
        """Since when each waits, the one that was used last at the end."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._line = lru_cache(HEADS_KEPT)(self._request_line)

    async def send(self, method: str, url: str, headers: bytes, body: Body = None) -> Request:
        """Send a request, and wait for the head of its answer.

        `headers` are lines (`head.header_lines`), without those about the body's length; a body
        that is iterated is sent in chunks, unless they hold its `content-length`.

        Raises:
            HttpFailure: there is no answer.
            ValueError: the URL or the method is none.
        """
        start = self._line(method, url) + headers + b"%b\r\n" % length_of(method, headers, body)
        connection = self._waiting()
        if connection is not None:
            try:
                return await self._ask(connection, method, start, body)
            except Broken:
                # It may have been given up by the server in the same moment.
                if method not in MAY_BE_REPEATED or body is not None:
                    raise
        return await self._ask(await self._connected(), method, start, body)

    async def _ask(self, connection: Connection, method: str, start: bytes, body: Body) -> Request:
        takes_body = method != "HEAD"
        if body is None or (isinstance(body, bytes) and len(body) <= PIECE):
            request = Request(connection.ask(start + (body or b""), takes_body=takes_body), None)
        else:
            response = connection.ask(start, is_whole=False, takes_body=takes_body)
            request = Request(response, Tasks([upload(connection, body, start)]))
        try:
            await request.response.head()
        except BaseException:
            await request.aclose()
            raise
        return request

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in tuple(self._open):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await asyncio.sleep(0)  # the event loop closes them now

    # The connections

    def _waiting(self) -> Connection | None:
        """One that waits for a request. The one that was used last is the least likely to end."""
        while self._idle:
            connection, since = self._idle.popitem()
            if connection.is_usable and self._loop.time() - since < self._keep_alive:
                return connection
            connection.abort()  # the sweeper is late, and so are we
        return None

    def _released(self, connection: Connection) -> None:
        """It is free, or closed."""
        if not connection.is_open:
            self._idle.pop(connection, None)
            self._open.discard(connection)
            return
        self._idle[connection] = self._loop.time()
        if self._sweeper is None:
            self._sweep_at(self._loop.time() + self._keep_alive)

    def _sweep(self) -> None:
        """Close those that have waited for too long."""
        long_ago = self._loop.time() - self._keep_alive
        for connection in [idle for idle, since in self._idle.items() if since <= long_ago]:
            connection.abort()
        self._sweeper = None
        if self._idle:
            self._sweep_at(next(iter(self._idle.values())) + self._keep_alive)

    def _sweep_at(self, when: float) -> None:
        # In a context of its own, for it outlives the request that it begins with.
        self._sweeper = self._loop.call_at(when, self._sweep, context=Context())

    async def _connected(self) -> Connection:
        """A new connection."""
        connection = Connection(self._released)
        try:
            # In a context of its own, for it outlives the request that it is made for.
            await self._loop.create_task(self._connect(connection), context=Context())
            if not connection.is_usable:
                raise ConnectionResetError("the connection was closed at once")
        except BaseException as exc:
            connection.abort()
            match exc:
                case TimeoutError() if exc.errno is None:
                    raise TooSlow from None
                case OSError() | UnicodeError():
                    raise Unreachable(exc) from None
            raise
        self._open.add(connection)
        return connection

    async def _connect(self, connection: Connection) -> None:
        async with asyncio.timeout(self._connect_timeout):
            await self._reach(connection)
            if self._proxy is not None and self.origin.is_secure:
                await self._tunnel(connection, self._proxy)

    async def _reach(self, connection: Connection) -> None:
        """Connect to the server, or to the proxy before it."""
        end = self._proxy or self.origin
        addresses = await addresses_of(end)
        try:
            sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
        except OSError as exc:
            raise (ProxyUnreachable if self._proxy else Unreachable)(exc) from None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # answers may take minutes
        await self._loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=self._trust() if end.is_secure else None,
            server_hostname=end.host if end.is_secure else None,
        )

    async def _tunnel(self, connection: Connection, proxy: Origin) -> None:
        """Have the proxy lead to the server, and speak TLS with that (RFC 9110, 9.3.6)."""
        place = self.origin.authority
        headers = [("host", place), *login_at(proxy)]
        connection.is_tunnel = True
        response = connection.ask(
            request_line("CONNECT", place) + header_lines(headers) + b"\r\n", takes_body=False
        )
        try:
            await response.head()
        except Broken:
            raise ConnectionResetError("the proxy closed the connection") from None
        except NotHttp:
            raise ConnectionError("the proxy does not speak HTTP") from None
        connection.is_tunnel = False
        if response.status >= 300:
            raise ProxyRefused(response.status)
        await connection.secure(self._trust(), self.origin.host)

    def _request_line(self, method: str, url: str) -> bytes:
        """What a request to this URL begins with; through a proxy it names the whole of it."""
        target, headers = self.origin.target(url), [("host", self._host)]
        if self._proxy is not None and not self.origin.is_secure:
            target = f"http://{self.origin.host_header}{target}"
            headers += login_at(self._proxy)
        return request_line(method, target) + header_lines(headers)


async def addresses_of(end: Origin) -> Sequence[AddrInfoType]:
    """Where a host is. Its name is looked up in a thread, but an address needs none.

    Raises:
        OSError: there is no such host.
    """
    kind = socket.SOCK_STREAM
    try:
        return socket.getaddrinfo(end.host, end.port, type=kind, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(end.host, end.port, type=kind)


async def upload(connection: Connection, body: AsyncGenerator[bytes] | bytes, start: bytes) -> None:
    """Send a body beside waiting for its answer, which may come first."""
    if isinstance(body, bytes):
        await connection.write(body)
    else:
        chunked = b"transfer-encoding: chunked\r\n" in start
        await connection.write_from(body, chunked=chunked)


def login_at(proxy: Origin) -> list[tuple[str, str]]:
    return [("proxy-authorization", proxy.login)] if proxy.login else []


def length_of(method: str, headers: bytes, body: Body) -> bytes:
    """The header that says where the body ends."""
    if isinstance(body, bytes):
        return b"content-length: %d\r\n" % len(body)
    if body is None:
        return b"content-length: 0\r\n" if method in TAKES_A_BODY else b""
    known = headers.startswith(b"content-length:") or b"\r\ncontent-length:" in headers
    return b"" if known else b"transfer-encoding: chunked\r\n"
