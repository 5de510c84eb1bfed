"""A server that says exactly what it is told to, byte by byte."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from mcp_bridge.http1.pool import Pool

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Talk = Callable[["Site", Reader, Writer], Awaitable[None]]


@dataclass
class Site:
    """Where the server is, and what it was asked: the heads of all requests, as text."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    closed: anyio.Event = field(default_factory=anyio.Event)
    """Set when the server has first closed a connection."""
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    async def head(self, reader: Reader) -> str:
        """Read the head of the next request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        return head


def no_certificates() -> ssl.SSLContext:
    raise AssertionError("TLS was not asked for")


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Site]:
    """Serve each connection with `talk`."""
    site = Site(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def connection(reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        site.connections += 1
        try:
            await talk(site, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connection, "127.0.0.1", ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def says(*answers: bytes) -> Talk:
    """Answers the requests of each connection one after the other, and closes it."""

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        for answer in answers:
            await site.head(reader)
            writer.write(answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        site.closed.set()

    return talk


def keeps_saying(answer: bytes) -> Talk:
    """Answers every request in the same way."""

    async def talk(site: Site, reader: Reader, writer: Writer) -> None:
        while True:
            await site.head(reader)
            writer.write(answer)

    return talk


@asynccontextmanager
async def pool_for(
    url: str,
    *,
    trust: Callable[[], ssl.SSLContext] = no_certificates,
    proxy: str | None = None,
    keep_alive: float = 60.0,
) -> AsyncGenerator[Pool]:
    pool = Pool(url, trust=trust, connect_timeout=5, proxy=proxy, keep_alive=keep_alive)
    try:
        yield pool
    finally:
        await pool.aclose()


async def whole(pool: Pool, url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """Everything of an answer."""
    request = await pool.send(method, url, b"", body)
    try:
        return b"".join([piece async for piece in pieces(request.response.read)])
    finally:
        await request.aclose()


async def pieces(read: Callable[[], Awaitable[bytes]]) -> AsyncGenerator[bytes]:
    while piece := await read():
        yield piece
