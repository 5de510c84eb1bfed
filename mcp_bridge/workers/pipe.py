"""Whole messages between workers, over a unix socket: in order, and with patience both ways."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

from mcp_bridge.exact import encode
from mcp_bridge.types import Json

LENGTH = struct.Struct(">I")
MOST_UNREAD = 1024 * 1024
"""Bytes that have come and are not read yet; then the other side has to wait."""


class Broken(Exception):
    """The other side is gone."""


class Pipe(asyncio.Protocol):
    """One end of a connection: `put` or `send` messages, and `receive` them (one reader)."""

    def __init__(self, opened: Callable[["Pipe"], None] | None = None) -> None:
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._messages: deque[bytes] = deque()
        self._unread = 0
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._paused = False
        self.closed = False

    # asyncio tells us.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()
        if self._opened is not None:
            self._opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (message := taken(self._buffer)) is not None:
            self._messages.append(message)
            self._unread += len(message)
        if self._unread > MOST_UNREAD and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._news.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # We tell it.

    async def receive(self) -> bytes | None:
        """The next message; None when the other side is gone and everything has been read."""
        while not self._messages:
            if self.closed:
                return None
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        self._unread -= len(message)
        if self._paused and not self._unread and self._transport is not None and not self.closed:
            self._paused = False
            self._transport.resume_reading()
        return message

    async def ready(self) -> None:
        """Wait, with nothing sent, while the other side does not read."""
        await self._writable.wait()

    async def send(self, data: bytes) -> None:
        """Write one message.

        Raises:
            Broken: the other side is gone.
        """
        self.put(data)
        await self._writable.wait()

    def put(self, data: bytes) -> None:
        """Write one message without waiting. Raises as `send`."""
        if self.closed or self._transport is None or self._transport.is_closing():
            raise Broken
        self._transport.write(LENGTH.pack(len(data)) + data)

    def tell(self, method: str, params: Json) -> None:
        """Put a JSON-RPC notification; for one who is gone, nothing."""
        try:
            self.put(encode({"jsonrpc": "2.0", "method": method, "params": params}))
        except Broken:
            pass

    @property
    def waiting(self) -> int:
        """Bytes that the other side has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self) -> None:
        """Close it once what was put has been sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close it now."""
        if self._transport is not None:
            self._transport.abort()


async def dial(path: str) -> Pipe:
    """Connect to a worker. Raises OSError when there is none."""
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_unix_connection(Pipe, path)
    return pipe


async def adopt(end: socket.socket) -> Pipe:
    """A connection that is open already."""
    loop = asyncio.get_running_loop()
    _, pipe = await loop.create_unix_connection(Pipe, sock=end)
    return pipe


def taken(buffer: bytearray) -> bytes | None:
    """The first message of a buffer, taken out of it; None while it is not whole."""
    if len(buffer) < LENGTH.size:
        return None
    end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    message = bytes(buffer[LENGTH.size : end])
    del buffer[:end]
    return message


def read_at_once(end: socket.socket) -> bytes:
    """The next message, for who has no loop yet. Raises EOFError when the other side is gone."""
    (length,) = LENGTH.unpack(_exactly(end, LENGTH.size))
    return _exactly(end, length)


def _exactly(end: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = end.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
