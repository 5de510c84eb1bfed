"""One connection: a request, its answer as it arrives, and the next request.

Theory of operation. A connection is the event loop's protocol and carries one exchange at a time.
Each answer has a parser of its own (llhttp), which tells the Response what comes; whoever reads the
Response is woken once for all that has arrived by then, for the bytes of one arrival leave
together. What nobody reads is bounded: then the server has to wait. When an answer is at its end
and both sides keep the connection, it goes back to the pool; in every other case it is closed.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import httptools

from mcp_bridge.http1.failures import Broken, HttpFailure, NotHttp

MOST_UNREAD = 2**18
"""Bytes of an answer that may wait to be read before the server has to wait."""

MOST_OF_A_HEAD = 2**18
PIECE = 2**18
"""A larger body is written in pieces, so that other requests get their turn."""

NO_BODY = frozenset({204, 304})


class Response:
    """An answer. Whoever has it closes it, which breaks it off unless it is at its end."""

    __slots__ = (
        "_connection",
        "_ended",
        "_failure",
        "_framed",
        "_held_back",
        "_pieces",
        "_takes_body",
        "_unread",
        "_waiter",
        "has_begun",
        "head_size",
        "headers",
        "raw_headers",
        "status",
    )

    def __init__(self, connection: "Connection", *, takes_body: bool) -> None:
        """`takes_body`: whether there may be one, which there is not after HEAD and CONNECT."""
        self.status = 0
        self.headers: dict[str, str] = {}
        """By lower-case names; of a header that comes more often, the first."""
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self._connection: Connection | None = connection
        self._takes_body = takes_body
        self._framed = False
        self.has_begun = self._ended = self._held_back = False
        self.head_size = self._unread = 0
        self._pieces: list[bytes] = []
        self._failure: type[HttpFailure] | None = None
        self._waiter: asyncio.Future[None] | None = None

    # For whoever has asked

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            HttpFailure: they did not come.
        """
        while not self.has_begun:
            await self._news()

    async def read(self) -> bytes:
        """Everything that has arrived of the body and was not read; nothing at its end.

        Raises:
            HttpFailure: it broke off.
        """
        while not self._pieces:
            if self._ended:
                return b""
            await self._news()
        pieces, self._pieces = self._pieces, []
        self._unread = 0
        if self._held_back and self._connection is not None:
            self._held_back = False
            self._connection.go_on()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._ended and not self._pieces

    @property
    def is_over(self) -> bool:
        """Whether everything has arrived, or nothing more will."""
        return self._connection is None

    def close(self) -> None:
        """Need it no more. Whoever waits for more of it fails."""
        if self._connection is not None:
            self._connection.abort()

    async def _news(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # For the connection

    def fail(self, failure: type[HttpFailure]) -> None:
        """Nothing more will come; what has come can still be read."""
        self._failure, self._connection = failure, None
        self._wake()

    def eof(self) -> None:
        """The server has closed the connection: how an answer of unknown length ends."""
        if self.has_begun and not self._framed:
            self._end(kept=False)
        else:
            self.fail(Broken)

    # For the parser

    def on_message_begin(self) -> None:
        if self._ended:
            raise ValueError("an answer that nobody has asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_begun:  # a trailer: no header may come so late (RFC 9110, 6.5.1)
            return
        self.raw_headers.append((name, value))
        self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        self.status = self._connection.status() if self._connection is not None else 0
        if self.status < 200:  # what is meant comes after it
            return
        encoding = self.headers.get("transfer-encoding", "").lower()
        chunked = encoding.rpartition(",")[2].strip() == "chunked"
        sized = "content-length" in self.headers and not encoding
        self._framed = chunked or sized or self.status in NO_BODY
        self.has_begun = True
        if self._takes_body:
            self._wake()
        else:
            self._end(kept=False)

    def on_body(self, piece: bytes) -> None:
        if self._ended:  # where there may be none
            return
        self._pieces.append(piece)
        self._unread += len(piece)
        if self._unread > MOST_UNREAD and not self._held_back and self._connection is not None:
            self._held_back = True
            self._connection.hold_back()
        self._wake()

    def on_message_complete(self) -> None:
        if self._ended:
            return
        if self.status < 200:
            self.headers.clear()
            self.raw_headers.clear()
            return
        self._end(kept=True)

    def _end(self, *, kept: bool) -> None:
        connection, self._connection = self._connection, None
        self._ended = True
        self._wake()
        if connection is not None:
            connection.answered(kept=kept)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """A connection as the event loop drives it. `released` is told when it is free, or closed."""

    def __init__(self, released: Callable[["Connection"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._released = released
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser | None = None
        self._response: Response | None = None
        self._is_written = True
        self._writable: asyncio.Future[None] | None = None
        self._is_full = False
        self.is_open = False
        self.is_tunnel = False

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked. What has failed is closing before it is said to be closed."""
        return self.is_open and not self._transport.is_closing()

    # Asking

    def ask(self, head: bytes, *, is_whole: bool = True, takes_body: bool = True) -> Response:
        """Begin a request. `is_whole`: that is all of it, for it holds its body or has none.

        `takes_body`: whether the answer may have one.
        """
        self._is_written = is_whole
        self._response = response = Response(self, takes_body=takes_body)
        self._parser = httptools.HttpResponseParser(response)
        # As browsers read: old servers end lines with a bare line feed or pad a chunk's size.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._transport.write(head)
        return response

    async def write(self, body: bytes) -> None:
        """Send a large body piece by piece. It ends early where the answer does."""
        for start in range(0, len(body), PIECE):
            self._is_written = start + PIECE >= len(body)
            if not await self._sent(body[start : start + PIECE]):
                return

    async def write_from(self, body: AsyncGenerator[bytes], *, chunked: bool) -> None:
        """Send a body as it comes. When it breaks off, so does the connection."""
        try:
            async with aclosing(body):
                async for piece in body:
                    if piece:
                        sent = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
                        if not await self._sent(sent):
                            return
        except Exception:  # boundary: whoever gave the body knows why it broke off
            self.abort()
            return
        self._is_written = True
        if chunked:
            await self._sent(b"0\r\n\r\n")

    async def _sent(self, piece: bytes) -> bool:
        """Write it and wait until more can be written; False: nobody takes more."""
        if not self.is_open or self._response is None:
            return False
        self._transport.write(piece)
        if self._is_full:
            self._writable = self._loop.create_future()
            await self._writable
        else:
            await asyncio.sleep(0)
        return self.is_open

    async def secure(self, context: object, host: str) -> None:
        """Speak TLS from now on, as behind a proxy's CONNECT."""
        self._transport = await self._loop.start_tls(  # type: ignore[assignment]  # never None
            self._transport,
            self,
            context,  # type: ignore[arg-type]  # ssl is imported only where it is needed
            server_hostname=host,
        )

    def abort(self) -> None:
        """Close it at once."""
        self._ends(Broken)

    # For the answer

    def status(self) -> int:
        return self._parser.get_status_code() if self._parser is not None else 0

    def hold_back(self) -> None:
        self._transport.pause_reading()

    def go_on(self) -> None:
        if self.is_open:
            self._transport.resume_reading()

    def answered(self, *, kept: bool) -> None:
        """The answer is at its end. `kept`: as far as it goes, there may be another one."""
        keeps = kept and self._parser is not None and self._parser.should_keep_alive()
        self._response = self._parser = None
        if self.is_tunnel:  # whoever is at its other end has not been spoken with yet
            return
        if not keeps or not self._is_written or self._is_full:  # it may never read the rest
            self.abort()
        elif self.is_open:
            self.go_on()
            self._released(self)

    # For the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream, as we are one
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        parser, response = self._parser, self._response
        if parser is None or response is None:  # nobody has asked
            self.abort()
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._ends(NotHttp)
        if not response.has_begun:
            response.head_size += len(data)
            if response.head_size > MOST_OF_A_HEAD:
                self._ends(NotHttp)

    def eof_received(self) -> None:
        if self._response is not None:
            self._response.eof()
        self._ends(Broken)  # at once: in this moment it may be chosen for the next request

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and self._response is not None:
            self._response.eof()
        self._ends(Broken)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _ends(self, failure: type[HttpFailure]) -> None:
        was_open, self.is_open = self.is_open, False
        if was_open:
            self._transport.abort()
        response, self._response, self._parser = self._response, None, None
        if response is not None:
            response.fail(failure)
        self.resume_writing()
        if was_open:
            self._released(self)
