"""Answers that are streams of events (SSE), which are never silent for long."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
from starlette.types import Receive, Send

from mcp_bridge.mcp_server.http import RawHeaders

PING = b": ping\r\n\r\n"
LINE_BREAKS = tuple((c.encode(), b"\\u%04x" % ord(c)) for c in "\x85\u2028\u2029")
"""What JSON leaves as it is and some clients take for the end of a line (httpx splits lines so)."""

HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"connection", b"keep-alive"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What happens to an answer while its work goes on, in seconds."""

    look: float = 0.2
    """After so long somebody watches whether its client leaves. What is there sooner is not worth
    a task that watches."""

    held_back: float = 2.0
    """So long it may still become JSON. Some clients do not wait long for the headers."""

    ping: float = 15.0
    """So long a stream may be silent: what stands in between closes one that says nothing."""


def event(message: bytes) -> bytes:
    """A message as one event."""
    for character, escaped in LINE_BREAKS:
        message = message.replace(character, escaped)
    return b"event: message\r\ndata: %b\r\n\r\n" % message


class EventStream:
    """A stream that several tasks write to. It begins by itself with the first write."""

    def __init__(self, send: Send, headers: RawHeaders = ()) -> None:
        self._send = send
        self._headers = [*HEADERS, *headers]
        self._lock = anyio.Lock()
        self._begun = False
        self._ended = False

    async def begin(self) -> None:
        """Let the client know that it is heard."""
        async with self._lock:
            await self._begin()

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Write something whole. After the last there is nothing."""
        async with self._lock:
            if self._ended:
                return
            await self._begin()
            self._ended = last
            await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            start = {"type": "http.response.start", "status": 200, "headers": self._headers}
            await self._send(start)


async def until_left(
    receive: Receive, ping: Callable[[], Awaitable[None]], first: float, then: float
) -> None:
    """Return when the client has left; `ping` after `first` seconds, and after `then` again."""
    seconds = first
    while True:
        with anyio.move_on_after(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await ping()
        seconds = then
