"""One inference server as we talk to it: from a request to an open answer, and no further.

Deadlines take the place of the HTTP client's timeouts, for connecting, the first byte of an answer
and the silence between two bytes are three different waits. What comes back are bytes. Every
failure of the packages below becomes an InferenceError here, in our own words: theirs may quote a
header, and with it the key.
"""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from functools import lru_cache
from typing import NoReturn

import anyio

from mcp_bridge.clock import Clock, Clocks
from mcp_bridge.config.redact import HIDDEN, without_secrets
from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError
from mcp_bridge.http1.decoding import decoded
from mcp_bridge.http1.failures import (
    BadUrl,
    Broken,
    HttpFailure,
    NotHttp,
    ProxyRefused,
    ProxyUnreachable,
    TooSlow,
    Undecodable,
    Unreachable,
)
from mcp_bridge.http1.pool import Body, Request
from mcp_bridge.inference.address import Address
from mcp_bridge.inference.clients import Clients, secrets_of
from mcp_bridge.inference.failures import broken, refused
from mcp_bridge.inference.headers import Headers, sendable
from mcp_bridge.proxy import BadProxy

POOL_SECONDS = 30.0
"""How long a request waits for a free connection of the pool."""

DRAIN_SECONDS = 0.1
URLS_KEPT = 256
TIMEOUT = "inference_server_timeout"
UNREACHABLE = "inference_server_unreachable"
MISCONFIGURED = "inference_server_misconfigured"

FAILURES = (
    HttpFailure,
    ValueError,  # a URL, or a header that HTTP cannot carry
)

JSON = {
    "accept": "application/json",
    "content-type": "application/json",
    "user-agent": "mcp-bridge",  # in front of some servers those without one are shut out
}
MOST_OF_A_REFUSAL = 1_000_000

Send = Callable[[Clients, Clock], Awaitable[Request]]
Passed = AsyncIterable[bytes] | bytes | None


class Patience:
    """Ends the wait for bytes when it has been too long.

    One timer for a whole answer: it is moved only when it goes off, for most bytes come in time.
    """

    def __init__(self, deadline: float, idle: float, end: Callable[[], None]) -> None:
        """`deadline`: the loop's time by which the first bytes must be there; then `idle` counts.

        `end` makes whoever waits fail.
        """
        self._loop = asyncio.get_running_loop()
        self._limit = deadline
        self._idle = idle
        self._end = end
        self._waiting = False
        self._timer = self._loop.call_at(deadline, self._look)
        self.first = True
        self.is_over = False

    def wait(self) -> None:
        """The wait begins. The time in between, while a slow client reads, does not count."""
        self._waiting = True
        if not self.first:
            self._limit = self._loop.time() + self._idle

    def heard(self) -> None:
        """Bytes have come."""
        self._waiting = False
        if self.first:
            self.first = False
            self._timer.cancel()
            self._timer = self._loop.call_later(self._idle, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._waiting and now >= self._limit:
            self.is_over = True
            self._end()
            return
        again = self._limit if self._waiting else now + self._idle
        self._timer = self._loop.call_at(again, self._look)


class Reply:
    """An open answer: its bytes as they arrive. Close it, whatever happens."""

    def __init__(
        self, endpoint: "Endpoint", request: Request, deadline: float, *, as_it_is: bool
    ) -> None:
        """`as_it_is`: what is compressed stays so."""
        response = request.response
        self._endpoint = endpoint
        self._request = request
        self._patience = Patience(deadline, endpoint.settings.idle_timeout, response.close)
        encoding = "" if as_it_is else response.headers.get("content-encoding", "")
        self._read = decoded(response.read, encoding)
        self._begun = b""
        self._closed = False
        self.server = endpoint.name
        self.status = response.status
        self.headers = response.headers

    @property
    def header_list(self) -> Headers:
        """The headers as they came, each as often as it came."""
        headers = self._request.response.raw_headers
        return [(k.decode("latin-1"), v.decode("latin-1")) for k, v in headers]

    async def begin(self) -> None:
        """Wait for the first bytes.

        Raises:
            InferenceError: none came in time, or the connection broke.
        """
        self._begun = await self._next()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body.

        Raises:
            InferenceError: the server was silent for too long, or the connection broke.
        """
        return self

    async def __anext__(self) -> bytes:
        piece, self._begun = self._begun or await self._next(), b""
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _next(self) -> bytes:
        """What arrives next; nothing at the end."""
        patience = self._patience
        patience.wait()
        try:
            piece = await self._read()
        except FAILURES as exc:
            if patience.is_over:
                raise (self._endpoint.late if patience.first else self._endpoint.silent)() from None
            self._endpoint.fail(exc, begun=not patience.first)
        patience.heard()
        return piece

    async def drain(self) -> None:
        """Read what may follow the end of a stream, so that the connection can be used again."""
        if self._request.response.at_end:
            return
        with anyio.move_on_after(DRAIN_SECONDS):
            try:
                while await self._read():
                    pass
            except FAILURES:
                pass

    async def aclose(self) -> None:
        """Release the connection; one whose answer is not at its end is closed."""
        if self._closed:
            return
        self._closed = True
        self._patience.stop()
        try:
            await self._request.aclose()
        finally:
            await self._endpoint.release()


class Upload:
    """A body on its way through. `failure` is what broke it off."""

    def __init__(self, body: Passed) -> None:
        self._body = body
        self.failure: Exception | None = None

    def sent(self, clock: Clock, seconds: float) -> Body:
        """The body; the first byte of the answer is waited for from when it is sent."""
        body = self._body
        if body is None or isinstance(body, bytes):
            return body
        return self._pieces(body, clock, seconds)

    async def _pieces(
        self, body: AsyncIterable[bytes], clock: Clock, seconds: float
    ) -> AsyncGenerator[bytes]:
        try:
            async for piece in body:
                clock.deadline = asyncio.get_running_loop().time() + seconds
                yield piece
        except Exception as exc:  # boundary: what is sent must know only that it broke off
            self.failure = exc.with_traceback(None)  # or both hold each other, and the request
            raise Broken from None


class Endpoint:
    """An inference server. Nothing is opened before the first request."""

    def __init__(self, settings: InferenceServer) -> None:
        self.settings = settings
        self.address = Address.of(settings)
        self.name = settings.name or self.address.host
        self._secrets = secrets_of(settings)
        self._clients: Clients | None = None
        self._turns = asyncio.Semaphore(settings.max_connections)
        self._url = lru_cache(URLS_KEPT)(self.address.full)
        self._clocks = Clocks()
        self._open = 0
        self._retired = False

    # Asking

    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str], model: str | None
    ) -> Reply:
        """Send a JSON body. The answer has begun, and its status is no error.

        Raises:
            InferenceError: it refused, it is out of reach, or no byte came in time.
        """
        # No compression: a proxy that compresses events holds them back until it has enough.
        theirs = {**JSON, **dict(sendable(headers.items())), "accept-encoding": "identity"}
        url = self._url(path, "", model if self.address.is_azure else None)

        async def send(clients: Clients, _: Clock) -> Request:
            return await clients.send("POST", url, theirs.items(), body)

        reply = await self._reply(send)
        try:
            if reply.status >= 300:
                raise await self._refusal(reply)
            await reply.begin()
        except BaseException:
            await reply.aclose()
            raise
        return reply

    async def get(self, path: str) -> bytes:
        """Fetch a whole body.

        Raises:
            InferenceError: it refused, it is out of reach, or it took too long.
        """
        url = self.address.full(path, "", None)

        async def send(clients: Clients, _: Clock) -> Request:
            return await clients.send("GET", url, JSON.items())

        reply = await self._reply(send)
        try:
            if reply.status >= 300:
                raise await self._refusal(reply)
            return b"".join([piece async for piece in reply])
        finally:
            await reply.aclose()

    async def forward(self, method: str, url: str, headers: Headers, body: Passed) -> Reply:
        """Send a request as it is, with our credentials. Any status is an answer.

        Raises:
            InferenceError: it is out of reach, or did not answer in time.
        """
        upload = Upload(body)

        async def send(clients: Clients, clock: Clock) -> Request:
            sent = upload.sent(clock, self.settings.first_byte_timeout)
            return await clients.send(method, url, headers, sent)

        try:
            return await self._reply(send, as_it_is=True)
        except InferenceError:
            if upload.failure:
                raise upload.failure from None  # not the server's failure but the client's
            raise
        finally:
            upload.failure = None

    async def _reply(self, send: Send, *, as_it_is: bool = False) -> Reply:
        await self._take_turn()
        self._open += 1
        deadline = asyncio.get_running_loop().time() + self.settings.first_byte_timeout
        clock = Clock(self._clocks, deadline)
        try:
            with clock:
                request = await send(self._opened(), clock)
                return Reply(self, request, clock.deadline, as_it_is=as_it_is)
        except FAILURES as exc:
            await self.release()
            self.fail(exc, begun=False)
        except BaseException:
            await self.release()
            raise
        await self.release()
        raise self.late()

    async def _take_turn(self) -> None:
        """Wait for one of the connections that there may be."""
        if not self._turns.locked():
            await self._turns.acquire()  # at once
            return
        with anyio.move_on_after(POOL_SECONDS) as scope:
            await self._turns.acquire()
        if scope.cancelled_caught:
            most = self.settings.max_connections
            why = f"all {most} connections are in use (max_connections)"
            raise self._unreachable(why, status=503)

    # The connections

    def _opened(self) -> Clients:
        if self._clients is None:
            self._clients = Clients(self.settings, self.address)
        return self._clients

    async def release(self) -> None:
        """A request has ended."""
        self._turns.release()
        self._open -= 1
        if self._retired and not self._open:
            with anyio.CancelScope(shield=True):
                await self._close()

    async def aclose(self) -> None:
        """Close the pool, now or with the last request in it. A later request opens it again."""
        self._retired = True
        if not self._open:
            await self._close()

    async def _close(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.aclose()

    # What goes wrong

    def late(self) -> InferenceError:
        seconds = self.settings.first_byte_timeout
        what = f"has not begun to answer within {seconds:g} s (first_byte_timeout)"
        return broken(self.name, what, status=504, code=TIMEOUT)

    def silent(self) -> InferenceError:
        seconds = self.settings.idle_timeout
        what = f"has sent nothing for {seconds:g} s (idle_timeout)"
        return broken(self.name, what, status=504, code=TIMEOUT)

    def fail(self, exc: Exception, *, begun: bool) -> NoReturn:
        """Raise what a failure of the packages below means.

        The failure itself stays visible as the cause only where it cannot hold a secret. The error
        is given no name: this frame would hold it, and it the frame, and both the whole request.
        """
        raise self.failure(exc, begun=begun) from None if isinstance(exc, ValueError) else exc

    def failure(self, exc: BaseException, *, begun: bool) -> InferenceError:
        """What a failure of the packages below means."""
        match exc:
            case BadUrl():
                return self._misconfigured("its base_url is no http:// or https:// URL")
            case TooSlow():
                seconds = self.settings.connect_timeout
                return self._unreachable(f"no connection within {seconds:g} s", status=504)
            case ProxyUnreachable():
                return self._unreachable(f"the proxy before it: {exc.why}")
            case Unreachable():
                return self._unreachable(exc.why)
            case ProxyRefused():
                return self._unreachable(str(exc))
            case NotHttp():
                return broken(self.name, "sent what is no HTTP")
            case Undecodable():
                return broken(self.name, "sent an answer that cannot be decompressed")
            case BadProxy():
                return self._misconfigured(str(exc))
            case ValueError():
                return self._misconfigured(
                    "a header (api_key, headers) holds what HTTP cannot carry"
                )
            case _:
                return broken(
                    self.name,
                    "broke off in the middle of its answer"
                    if begun
                    else "closed the connection without an answer",
                )

    def _unreachable(self, why: str, *, status: int = 502) -> InferenceError:
        return InferenceError(
            f'inference server "{self.name}" cannot be reached at {self.address.shown}: {why}',
            status=status,
            code=UNREACHABLE,
            unsent=True,
        )

    def _misconfigured(self, why: str) -> InferenceError:
        what = f"cannot be asked: {why}"
        return broken(self.name, what, status=500, code=MISCONFIGURED)

    async def _refusal(self, reply: Reply) -> InferenceError:
        """What an answer with such a status says."""
        if reply.status < 400:
            place = without_secrets(str(reply.headers.get("location", "another place")))
            what = f"redirects to {place}: correct base_url, for a request is not sent twice"
            return broken(self.name, what, code=MISCONFIGURED)
        body = await self._beginning(reply)
        for secret in self._secrets:
            body = body.replace(secret, HIDDEN.encode())
        return refused(self.name, reply.status, body, reply.headers)

    async def _beginning(self, reply: Reply) -> bytes:
        """As much of a refusal as is worth reading; what breaks off has said enough."""
        body = b""
        try:
            async for piece in reply:
                body += piece
                if len(body) > MOST_OF_A_REFUSAL:
                    break
        except InferenceError:
            pass
        return body
