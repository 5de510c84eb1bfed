"""Answers on the wire: one JSON document, or server-sent events.

A stream holds nothing but `data:` lines and comments, for real clients crash on anything else
(DESIGN 3.2). Its status goes out with the first event, or after `keep_alive` seconds of silence;
from then on an error can only be an event.
"""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from starlette.types import Send

from mcp_bridge.agent.events import Asked, Finished
from mcp_bridge.errors import BridgeError
from mcp_bridge.exact import encode
from mcp_bridge.inference.splice import Run
from mcp_bridge.types import Json

RawHeaders = list[tuple[bytes, bytes]]

STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the stream back otherwise
)

LINE_ENDS = {
    "\u0085".encode(): b"\\u0085",
    "\u2028".encode(): b"\\u2028",
    "\u2029".encode(): b"\\u2029",
}
"""Python's `str.splitlines`, and with it httpx's `iter_lines`, ends a line at these."""


class Shape(Protocol):
    """How an answer looks to the client, whose API may be an older one."""

    def chunks(self, chunks: Iterable[Json | Run]) -> Iterable[Json | Run]: ...

    def whole(self, completion: Json) -> Json: ...


class ChatShape:
    """Chat completions go out as the loop made them."""

    def chunks(self, chunks: Iterable[Json | Run]) -> Iterable[Json | Run]:
        return chunks

    def whole(self, completion: Json) -> Json:
        return completion


CHAT = ChatShape()


class Writer(Protocol):
    """Where a conversation's answer goes."""

    started: bool

    async def start(self, headers: Mapping[str, str]) -> None: ...

    async def chunks(self, chunks: Iterable[Json | Run]) -> None: ...

    async def busy(self) -> None: ...

    async def finish(self, end: Finished | Asked) -> None: ...

    async def fail(self, error: BridgeError) -> None: ...

    async def keep_alive(self) -> float: ...


class StreamWriter:
    """Writes each event as an SSE `data:` line as soon as it is there."""

    def __init__(self, send: Send, shape: Shape = CHAT, *, interval: float) -> None:
        self._send = send
        self._shape = shape
        self._interval = interval
        self._last = time.monotonic()
        self._said_something = False
        self._flushed = False
        """The headers are on their way: servers hold them back until something follows them."""
        self._busy = False
        """A piece waits for the client to read it, or was the last one: no comment is due."""
        self.started = False

    async def start(self, headers: Mapping[str, str]) -> None:
        if self.started:
            return
        self.started = True
        await self._send(response_start(200, [*STREAM_HEADERS, *encoded(headers)]))

    async def chunks(self, chunks: Iterable[Json | Run]) -> None:
        data = b"".join(map(event, self._shape.chunks(chunks)))
        if not self._said_something:
            await self.start({})
            self._said_something = bool(data)
        if data or not self._flushed:
            await self._write(data)

    async def busy(self) -> None:
        """A tool is about to run: the client must have had a byte before (L11)."""
        if not self._said_something:
            await self.start({})
            self._said_something = True
            await self._write(b": tools are running\n\n")

    async def finish(self, end: Finished | Asked) -> None:
        await self.start({})
        last = map(event, self._shape.chunks(end.last_chunks()))
        await self._write(b"".join(last) + b"data: [DONE]\n\n", more=False)

    async def fail(self, error: BridgeError) -> None:
        # No [DONE] after an error: nothing must look like a complete answer.
        await self._write(event(error.body()), more=False)

    async def keep_alive(self) -> float:
        """Break the silence with a comment if it is time to; returns the seconds until then."""
        silence = time.monotonic() - self._last
        if silence < self._interval:
            return self._interval - silence
        if not self._busy:
            await self.start({})
            await self._write(b": keep-alive\n\n")
        return self._interval

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        self._last = time.monotonic()
        self._busy = self._flushed = True
        if not data.isascii():
            data = in_whole_lines(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._busy = not more


class WholeWriter:
    """Waits for the end and writes one JSON document."""

    def __init__(self, send: Send, shape: Shape = CHAT) -> None:
        self._send = send
        self._shape = shape
        self._headers: dict[str, str] = {}
        self.started = False

    async def start(self, headers: Mapping[str, str]) -> None:
        self._headers.update(headers)

    async def chunks(self, chunks: Iterable[Json | Run]) -> None:
        pass  # the whole completion holds them

    async def busy(self) -> None:
        pass

    async def finish(self, end: Finished | Asked) -> None:
        self.started = True
        await send_json(self._send, 200, self._shape.whole(end.completion()), self._headers)

    async def fail(self, error: BridgeError) -> None:
        raise error

    async def keep_alive(self) -> float:
        return math.inf


def event(value: Json | Run) -> bytes:
    """A chunk as an event, or a run of them as events."""
    if isinstance(value, Run):
        return value.encoded(b"data: ", b"\n\n")
    return b"data: %b\n\n" % encode(value)


def in_whole_lines(events: bytes) -> bytes:
    """The same events; what some clients take for line ends is escaped, for it stands in JSON."""
    for character, escaped in LINE_ENDS.items():
        events = events.replace(character, escaped)
    return events


async def send_json(send: Send, status: int, value: Json, headers: Mapping[str, str]) -> None:
    body = encode(value)
    length = b"%d" % len(body)
    ours = ((b"content-type", b"application/json"), (b"content-length", length))
    await send(response_start(status, [*encoded(headers), *ours]))
    await send({"type": "http.response.body", "body": body})


def encoded(headers: Mapping[str, str]) -> RawHeaders:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def response_start(status: int, headers: RawHeaders) -> Json:
    return {"type": "http.response.start", "status": status, "headers": headers}
