"""What one connection carries: requests as they are sent, answers however they are framed."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any

import anyio
import pytest

from mcp_bridge.http1.connection import MOST_OF_A_HEAD, MOST_UNREAD, PIECE, Connection
from mcp_bridge.http1.failures import Broken, HttpFailure, NotHttp
from tests.http1.serving import Reader, Site, Writer, keeps_saying, pool_for, says, serving, whole

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"content-length: 5\r\n\r\nhello"


@pytest.mark.parametrize(
    "answer",
    [
        HELLO,
        OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n0\r\ntrailer: 1\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n",
        OK + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + HELLO,
    ],
    ids=["length", "chunks", "trailer", "padded", "to the end", "1.0", "lf", "100", "103"],
)
async def test_a_body_is_read_however_it_is_framed(answer: bytes) -> None:
    async with serving(says(answer)) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            assert await whole(pool, site.url) == b"hello"


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", OK + b"content-length: 5\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", OK + b"content-length: 0\r\n\r\n"),
        ("HEAD", HELLO),
    ],
)
async def test_an_answer_may_have_no_body(method: str, answer: bytes) -> None:
    async with serving(keeps_saying(answer)) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            assert await whole(pool, site.url, method) == b""
            assert await whole(pool, site.url, method) == b""


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", Broken),
        (OK, Broken),
        (OK + b"content-length: 9\r\n\r\nhello", Broken),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", Broken),
        (b"SSH-2.0-OpenSSH_9.2\r\n", NotHttp),
        (OK + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n", NotHttp),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", NotHttp),
        (OK + b"x: " + b"y" * 4 * MOST_OF_A_HEAD, NotHttp),
    ],
    ids=["nothing", "half a head", "half", "no last chunk", "ssh", "chunk", "upgrade", "huge"],
)
async def test_what_breaks_off_or_is_no_http_fails(
    answer: bytes, failure: type[HttpFailure]
) -> None:
    async with serving(says(answer)) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5), pytest.raises(failure):
            await whole(pool, site.url)


async def test_what_has_come_before_a_break_can_be_read() -> None:
    half = OK + b"content-length: 9\r\n\r\nhello"
    async with serving(says(half)) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            request = await pool.send("GET", site.url, b"")
            assert await request.response.read() == b"hello"
            with pytest.raises(Broken):
                await request.response.read()
            await request.aclose()


async def test_headers_are_kept_in_order_and_found_by_lower_case_names() -> None:
    answer = OK + b"X-A: 1\r\nx-a: 2\r\nB: caf\xe9\r\ncontent-length: 0\r\n\r\n"
    async with serving(says(answer)) as site, pool_for(site.url) as pool:
        request = await pool.send("GET", site.url, b"")
        assert request.response.raw_headers[:2] == [(b"X-A", b"1"), (b"x-a", b"2")]
        assert request.response.headers == {"x-a": "1", "b": "café", "content-length": "0"}
        await request.aclose()


async def test_what_follows_a_body_is_no_header() -> None:
    answer = OK + b"transfer-encoding: chunked\r\n\r\n0\r\ncontent-encoding: br\r\n\r\n"
    async with serving(says(answer)) as site, pool_for(site.url) as pool:
        request = await pool.send("GET", site.url, b"")
        assert request.response.headers == {"transfer-encoding": "chunked"}
        assert request.response.raw_headers == [(b"transfer-encoding", b"chunked")]
        await request.aclose()


class Transport(asyncio.Transport):
    """A transport as the event loop has it before it tells what became of it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = self.is_failing = False

    def write(self, data: Any) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_failing or self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (b"HTTP/1.1 100 Go on\r\n\r\n" + OK + b"x-a:\r\nContent-Length: 5\r\n\r\nhello", True),
        (
            OK + b"transfer-encoding: chunked\r\n\r\n2;x\r\nhe\r\n03\r\nllo\r\n0\r\nt: 1\r\n\r\n",
            True,
        ),
        (b"HTTP/1.0 500 No\r\nserver: x\r\n\r\nhello", False),
        (OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello", False),
    ],
    ids=["length", "chunks", "to the end", "closed"],
)
async def test_an_answer_is_the_same_wherever_it_is_cut(answer: bytes, is_kept: bool) -> None:
    expected = await taken([answer])
    assert expected[-2:] == (b"hello", is_kept)
    for at in range(1, len(answer)):
        assert await taken([answer[:at], answer[at:]]) == expected
    assert await taken([answer[at : at + 1] for at in range(len(answer))]) == expected


async def taken(pieces: Iterable[bytes]) -> tuple[object, ...]:
    """What is made of an answer that arrives so, before its connection is closed."""
    free: list[bool] = []
    connection = Connection(lambda it: free.append(it.is_open))
    connection.connection_made(Transport())
    response = connection.ask(b"GET / HTTP/1.1\r\n\r\n")
    for piece in pieces:
        connection.data_received(piece)
    is_kept = free == [True]
    connection.eof_received()
    await response.head()
    body = b""
    while piece := await response.read():
        body += piece
    return response.status, response.raw_headers, body, is_kept


async def test_what_the_server_has_closed_is_given_up_in_the_same_moment() -> None:
    released: list[bool] = []
    connection, transport = Connection(lambda it: released.append(it.is_open)), Transport()
    connection.connection_made(transport)
    response = connection.ask(b"POST / HTTP/1.1\r\n\r\n", is_whole=False)
    connection.eof_received()
    with pytest.raises(Broken):
        await response.head()
    assert transport.is_aborted  # whatever of the request is still to be written
    assert released == [False]


async def test_what_was_answered_before_it_was_read_ends_its_connection() -> None:
    released: list[bool] = []
    connection = Connection(lambda it: released.append(it.is_open))
    connection.connection_made(Transport())
    response = connection.ask(b"POST / HTTP/1.1\r\n\r\n")
    connection.pause_writing()
    connection.data_received(HELLO)
    await response.head()
    assert await response.read() == b"hello"
    assert released == [False]


async def test_a_connection_that_has_failed_is_not_to_be_used() -> None:
    connection, transport = Connection(lambda _: None), Transport()
    connection.connection_made(transport)
    assert connection.is_usable
    transport.is_failing = True
    assert not connection.is_usable


async def test_a_server_waits_while_nobody_reads() -> None:
    size = 64 * MOST_UNREAD

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(20):
            request = await pool.send("GET", site.url, b"")
            for _ in range(1000):  # time enough for all of it to come
                await anyio.lowlevel.checkpoint()
            read = 0
            while piece := await request.response.read():
                read += len(piece)
                assert len(piece) < 4 * MOST_UNREAD
            assert read == size
            await request.aclose()


async def test_closing_an_answer_fails_whoever_reads_it() -> None:
    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(OK + b"content-length: 9\r\n\r\n")
        await reader.read()

    async with serving(talk) as site, pool_for(site.url) as pool:
        request = await pool.send("GET", site.url, b"")
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_fails_to_read, request.response.read)
                await anyio.wait_all_tasks_blocked()
                request.response.close()
        await request.aclose()


async def _fails_to_read(read: Callable[[], Awaitable[bytes]]) -> None:
    with pytest.raises(Broken):
        await read()


@pytest.mark.parametrize("size", [0, 10, PIECE, 5 * PIECE + 1])
async def test_a_body_arrives_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    arrived: list[bytes] = []

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        while True:
            assert f"content-length: {size}\r\n" in await site.head(reader)
            arrived.append(await reader.readexactly(size))
            writer.write(HELLO)

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(10):
            for _ in range(2):
                assert await whole(pool, site.url, "POST", body) == b"hello"
    assert arrived == [body, body]
    assert site.connections == 1


async def test_an_answer_may_come_before_the_body_is_sent() -> None:
    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await reader.read()

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            assert await whole(pool, site.url, "POST", b"x" * 200 * PIECE) == b"big"
            assert await whole(pool, site.url, "POST", b"x" * 200 * PIECE) == b"big"
    assert site.connections == 2  # the rest of a body is no request


async def test_a_body_that_is_iterated_is_sent_in_chunks() -> None:
    sent: list[bytes] = []
    first_has_come = anyio.Event()

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        await site.head(reader)
        sent.append(await reader.readuntil(b"one\r\n"))
        first_has_come.set()
        sent.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(HELLO)

    async def slowly() -> AsyncGenerator[bytes]:
        yield b"one"
        await first_has_come.wait()
        yield b""
        yield b"and two"

    async with serving(talk) as site, pool_for(site.url) as pool:
        with anyio.fail_after(5):
            request = await pool.send("POST", site.url, b"", slowly())
            assert await request.response.read() == b"hello"
            await request.aclose()
    assert "transfer-encoding: chunked\r\n" in site.heads[0]
    assert sent == [b"3\r\none\r\n", b"7\r\nand two\r\n0\r\n\r\n"]
