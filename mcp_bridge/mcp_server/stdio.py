"""The whole bridge as a stdio MCP server, for clients that can only start a command.

Messages are lines on stdin and stdout. While they are, the process has other ones: what anybody
prints goes to stderr, and nobody reads the client's words by accident.
"""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager

import anyio
from mcp_types import INVALID_REQUEST

from mcp_bridge.bridge import Bridge
from mcp_bridge.mcp_server.door import mcp_door, visiting
from mcp_bridge.mcp_server.reading import Refused
from mcp_bridge.mcp_server.streams import serve
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.types import ANYONE
from mcp_bridge.websocket import Closed

STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK_BYTES = 65_536
LAST_SECONDS = 1.5
"""How long answers may still be written once the client has closed stdin."""


async def serve_stdio(bridge: Bridge) -> None:
    """Serve the client that started this process, until it closes stdin or sends SIGTERM."""
    limit = bridge.settings.limits.max_request_bytes
    with claimed() as (stdin, stdout):
        async with mcp_door(bridge) as door, anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_at_sigterm, tasks.cancel_scope)
            async with aclosing(lines(stdin, limit)) as messages, AsyncExitStack() as stack:
                send = await writer(stdout, stack)
                with visiting(Visit(ANYONE)):
                    await serve(door.facade.server, messages, send, LAST_SECONDS)
            tasks.cancel_scope.cancel()


async def _stop_at_sigterm(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


@contextmanager
def claimed() -> Iterator[tuple[int, int]]:
    """Descriptors of the client's two pipes, which are then nobody else's stdin and stdout."""
    sys.stdout.flush()
    stdin, stdout = os.dup(STDIN), os.dup(STDOUT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STDIN)
    os.close(nothing)
    os.dup2(STDERR, STDOUT)
    try:
        yield stdin, stdout
    finally:
        sys.stdout.flush()
        os.dup2(stdin, STDIN)
        os.dup2(stdout, STDOUT)
        os.close(stdin)
        os.close(stdout)


async def lines(descriptor: int, limit: int) -> AsyncGenerator[bytes | Refused]:
    """The lines that come in; in place of one that is too long, why it is not taken."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport: asyncio.BaseTransport | None = None
    with os.fdopen(os.dup(descriptor), "rb", 0) as file:
        if is_stream(descriptor):
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.connect_read_pipe(lambda: protocol, file)
        else:
            reader.feed_data(await anyio.to_thread.run_sync(file.read))
            reader.feed_eof()
        cutter = Cutter(limit)
        try:
            while data := await reader.read(CHUNK_BYTES):
                for line in cutter.cut(data):
                    yield line
            for line in cutter.end():
                yield line
        finally:
            if transport is not None:
                transport.close()


class Cutter:
    """Cuts what comes in into lines. Of one that is too long no more than the limit is kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def cut(self, data: bytes) -> Iterator[bytes | Refused]:
        *parts, rest = data.split(b"\n")
        for part in parts:
            self._add(part)
            yield from self.end()
        self._add(rest)

    def end(self) -> Iterator[bytes | Refused]:
        """The line is over. An empty one is nothing."""
        line, size = b"".join(self._parts).strip(), self._size
        self._parts.clear()
        self._size = 0
        if size > self._limit:
            yield Refused(INVALID_REQUEST, f"a message has at most {self._limit} bytes")
        elif line:
            yield line

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            self._parts.clear()
        else:
            self._parts.append(part)


def is_stream(descriptor: int) -> bool:
    """Whether one can wait for it in the event loop; files and /dev/null are not like that."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


Write = Callable[[str], Awaitable[None]]


async def writer(descriptor: int, stack: AsyncExitStack) -> Write:
    """How a line is written, with patience for a client that reads slowly."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return _socket_writer(descriptor, stack)
    if is_stream(descriptor):
        return await _pipe_writer(descriptor, stack)
    return _file_writer(descriptor, stack)


def _socket_writer(descriptor: int, stack: AsyncExitStack) -> Write:
    """Only writes: stdin may be the same socket (sshd, socat), and a transport would read it."""
    connection = stack.enter_context(socket.socket(fileno=os.dup(descriptor)))
    connection.setblocking(False)
    loop = asyncio.get_running_loop()

    async def send(text: str) -> None:
        with leaving():
            await loop.sock_sendall(connection, text.encode() + b"\n")

    return send


async def _pipe_writer(descriptor: int, stack: AsyncExitStack) -> Write:
    loop = asyncio.get_running_loop()
    file = stack.enter_context(os.fdopen(os.dup(descriptor), "wb", 0))
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), file
    )
    stream = asyncio.StreamWriter(transport, protocol, None, loop)
    stack.callback(transport.close)

    async def send(text: str) -> None:
        with leaving():
            stream.write(text.encode() + b"\n")
            await stream.drain()

    return send


def _file_writer(descriptor: int, stack: AsyncExitStack) -> Write:
    file = stack.enter_context(os.fdopen(os.dup(descriptor), "wb", 0))

    async def send(text: str) -> None:
        with leaving():
            await anyio.to_thread.run_sync(file.write, text.encode() + b"\n")

    return send


@contextmanager
def leaving() -> Iterator[None]:
    """What cannot be written any more, for a client that has left or a disk that is full."""
    try:
        yield
    except OSError as exc:
        raise Closed("the client has closed stdout") from exc
