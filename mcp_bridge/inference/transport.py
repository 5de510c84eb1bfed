"""One inference server as we talk to it: from a request to an open answer, and no further.

The openai package is the client: its authentication, its base URL, its errors. Its retries are off
(ours are in `retries`), its typed models are not used, and deadlines take the place of its
timeouts, for connecting, the first byte of an answer and the silence between two bytes are three
different waits. What comes back are bytes. Every failure of the packages below becomes an
InferenceError here, in our own words: theirs may quote a header, and with it the key.
"""

import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from typing import NoReturn, cast

import anyio
import httpx2
from openai import APIConnectionError, APIStatusError, AsyncStream

from mcp_bridge.config.redact import HIDDEN, without_secrets
from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.address import Address
from mcp_bridge.inference.clients import Clients, secrets_of
from mcp_bridge.inference.failures import broken, refused
from mcp_bridge.inference.headers import Headers, sendable

DRAIN_SECONDS = 0.1
TIMEOUT = "inference_server_timeout"
UNREACHABLE = "inference_server_unreachable"
MISCONFIGURED = "inference_server_misconfigured"

FAILURES = (
    APIStatusError,
    APIConnectionError,
    httpx2.HTTPError,
    httpx2.StreamError,
    httpx2.InvalidURL,
    UnicodeEncodeError,  # a key or a header that no header can hold
    ssl.SSLError,  # httpx2 lets this and the next through from below (its issue 854)
    anyio.EndOfStream,
)

Send = Callable[[Clients, anyio.CancelScope], Awaitable[httpx2.Response]]
Read = Callable[[httpx2.Response], AsyncGenerator[bytes]]


class Reply:
    """An open answer: its bytes as they arrive. Close it, whatever happens."""

    def __init__(
        self,
        endpoint: "Endpoint",
        response: httpx2.Response,
        pieces: AsyncGenerator[bytes],
        deadline: float,
    ) -> None:
        self._endpoint = endpoint
        self._response = response
        self._pieces = pieces
        self._deadline: float | None = deadline
        """When the first bytes must be there; None once they are."""
        self._begun = b""
        self._closed = False
        self.server = endpoint.name
        self.status = response.status_code
        self.headers = response.headers

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
        first = self._deadline is not None
        idle = self._endpoint.settings.idle_timeout
        with anyio.CancelScope(deadline=self._deadline or anyio.current_time() + idle):
            try:
                piece = await anext(self._pieces, b"")
            except FAILURES as exc:
                self._endpoint.fail(exc, begun=not first)
            self._deadline = None
            return piece
        raise self._endpoint.late() if first else self._endpoint.silent()

    async def drain(self) -> None:
        """Read what may follow the end of a stream, so that the connection can be used again."""
        with anyio.move_on_after(DRAIN_SECONDS):
            try:
                async for _ in self._pieces:
                    pass
            except FAILURES:
                pass

    async def aclose(self) -> None:
        """Release the connection; one whose answer is not at its end is closed."""
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._pieces.aclose()
            await self._response.aclose()
            await self._endpoint.release()


class Endpoint:
    """An inference server. Nothing is opened before the first request."""

    def __init__(self, settings: InferenceServer) -> None:
        self.settings = settings
        self.address = Address.of(settings)
        self.name = settings.name or self.address.host
        self._secrets = secrets_of(settings)
        self._clients: Clients | None = None
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
        theirs = {**dict(sendable(headers.items())), "accept-encoding": "identity"}
        below = self.address.path(path, model)

        async def send(clients: Clients, _: anyio.CancelScope) -> httpx2.Response:
            answered = await clients.openai.post(
                below,
                cast_to=httpx2.Response,
                content=body,
                options={"headers": {**theirs, **clients.headers}},
                stream=True,
                stream_cls=AsyncStream[object],
            )
            return cast(httpx2.Response, answered)  # which is what this cast_to brings back

        reply = await self._reply(send, httpx2.Response.aiter_bytes)
        try:
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

        async def send(clients: Clients, _: anyio.CancelScope) -> httpx2.Response:
            return await clients.openai.get(
                path, cast_to=httpx2.Response, options={"headers": clients.headers}
            )

        reply = await self._reply(send, httpx2.Response.aiter_bytes)
        try:
            return b"".join([piece async for piece in reply])
        finally:
            await reply.aclose()

    async def forward(
        self, method: str, url: str, headers: Headers, body: AsyncIterable[bytes] | bytes | None
    ) -> Reply:
        """Send a request as it is, with our credentials. Any status is an answer.

        Raises:
            InferenceError: it is out of reach, or did not answer in time.
        """

        async def send(clients: Clients, scope: anyio.CancelScope) -> httpx2.Response:
            content = self._timed(body, scope) if isinstance(body, AsyncIterable) else body
            request = clients.http.build_request(
                method, url, headers=clients.with_credentials(headers), content=content
            )
            return await clients.http.send(request, stream=True)

        return await self._reply(send, httpx2.Response.aiter_raw)

    async def _timed(
        self, body: AsyncIterable[bytes], scope: anyio.CancelScope
    ) -> AsyncGenerator[bytes]:
        """The first byte is waited for from when the request is sent, however large it is."""
        async for piece in body:
            scope.deadline = anyio.current_time() + self.settings.first_byte_timeout
            yield piece

    async def _reply(self, send: Send, read: Read) -> Reply:
        self._open += 1
        try:
            deadline = anyio.current_time() + self.settings.first_byte_timeout
            with anyio.CancelScope(deadline=deadline) as scope:
                response = await send(self._opened(), scope)
                return Reply(self, response, read(response), scope.deadline)
            raise self.late()
        except FAILURES as exc:
            await self.release()
            self.fail(exc, begun=False)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.release()
            raise

    # The connections

    def _opened(self) -> Clients:
        if self._clients is None:
            self._clients = Clients(self.settings, self.address)
        return self._clients

    async def release(self) -> None:
        """A request has ended."""
        self._open -= 1
        if self._retired and not self._open:
            await self._close()

    async def aclose(self) -> None:
        """Close the pool, now or with the last request in it. A later request opens it again."""
        self._retired = True
        if not self._open:
            await self._close()

    async def _close(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.http.aclose()

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

        The failure itself stays visible as the cause only where it cannot hold a secret.
        """
        error = self.failure(exc, begun=begun)
        quotes = isinstance(exc, APIStatusError) or error.code == MISCONFIGURED
        raise error from None if quotes else exc

    def failure(self, exc: BaseException, *, begun: bool) -> InferenceError:
        """What a failure of the packages below means."""
        match exc:
            case APIStatusError():
                return self._status(exc.response)
            case APIConnectionError() if exc.__cause__ is not None:
                return self.failure(exc.__cause__, begun=begun)
            case httpx2.UnsupportedProtocol() | httpx2.InvalidURL():
                return self._misconfigured("its base_url is no http:// or https:// URL")
            case httpx2.LocalProtocolError() | UnicodeEncodeError():
                return self._misconfigured(
                    "a header (api_key, headers) holds what HTTP cannot carry"
                )
            case httpx2.ConnectTimeout():
                seconds = self.settings.connect_timeout
                return self._unreachable(f"no connection within {seconds:g} s", status=504)
            case httpx2.PoolTimeout():
                most = self.settings.max_connections
                why = f"all {most} connections are in use (max_connections)"
                return self._unreachable(why, status=503)
            case httpx2.ConnectError() | httpx2.ProxyError():
                return self._unreachable(reason(exc))
            case httpx2.DecodingError():
                return broken(self.name, "sent an answer that cannot be decompressed")
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

    def _status(self, response: httpx2.Response) -> InferenceError:
        if response.is_redirect:
            place = without_secrets(str(response.headers.get("location", "another place")))
            what = f"redirects to {place}: correct base_url, for a request is not sent twice"
            return broken(self.name, what, code=MISCONFIGURED)
        body = response.content
        for secret in self._secrets:
            body = body.replace(secret, HIDDEN.encode())
        return refused(self.name, response.status_code, body, response.headers)


def reason(exc: Exception) -> str:
    """Why no connection came about. Such errors name hosts and certificates, never headers."""
    text = str(exc)
    return "connection refused" if "connection attempts failed" in text.lower() else text
