"""An MCP server over plain HTTP that writes exactly the bytes that a test says."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from mcp_bridge.types import Json

NOTHING: Mapping[str, str] = MappingProxyType({})
CHUNKED = {"transfer-encoding": "chunked"}
TOOL: Json = {"name": "do", "inputSchema": {"type": "object"}}
DISCOVERED: Json = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "resultType": "complete",
}
INITIALIZED: Json = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "raw", "version": "1"},
}


@dataclass(frozen=True)
class Asked:
    """A request as it came: on which connection, counted from 1."""

    connection: int
    verb: str
    path: str
    headers: dict[str, str]
    message: Json

    @property
    def id(self) -> Any:
        return self.message.get("id")

    @property
    def method(self) -> str:
        return str(self.message.get("method", ""))


class Pipe:
    """The connection that a request came on."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def write(self, data: bytes) -> None:
        await self._stream.send(data)

    async def answer(
        self,
        body: bytes = b"",
        kind: str = "application/json",
        status: int = 200,
        headers: Mapping[str, str] = NOTHING,
    ) -> None:
        """A whole answer."""
        length = {"content-length": str(len(body))}
        await self.write(head(status, kind, {**length, **headers}) + body)

    async def result(self, asked: Asked, text: str) -> None:
        """The answer of a tool, as JSON."""
        await self.answer(json.dumps(answer_to(asked.id, text)).encode())

    async def begin(self) -> None:
        """The head of an event stream."""
        await self.write(head(200, "text/event-stream", CHUNKED))

    async def chunk(self, data: bytes) -> None:
        await self.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.write(b"0\r\n\r\n")

    async def cut(self) -> None:
        """Close the connection, wherever in an answer it is."""
        await self._stream.aclose()

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        try:
            while await self._stream.receive():
                pass
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass


Handler = Callable[[Asked, Pipe], Awaitable[None]]


def head(status: int, kind: str, headers: Mapping[str, str] = NOTHING) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *([f"content-type: {kind}"] if kind else [])]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer_to(request_id: Any, text: str) -> Json:
    content = [{"type": "text", "text": text}]
    return {"jsonrpc": "2.0", "id": request_id, "result": {"content": content}}


def event(message: Json, event_id: str = "") -> bytes:
    start = f"id: {event_id}\n" if event_id else ""
    return f"{start}event: message\ndata: {json.dumps(message)}\n\n".encode()


async def no_stream(asked: Asked, pipe: Pipe) -> None:
    await pipe.answer(status=405)


async def accepted(asked: Asked, pipe: Pipe) -> None:
    await pipe.answer(status=202, kind="")


@dataclass
class Raw:
    """The server. `call` answers `tools/call`, `stream` GET, `told` what is no request.

    Nothing is answered before `opens`, if there is such an event.
    """

    call: Handler
    stream: Handler = no_stream
    told: Handler = accepted
    tool: Json = field(default_factory=lambda: TOOL)
    session: str | None = "s1"
    cookie: str | None = None
    opens: anyio.Event | None = None
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    _connections: int = 0
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def until(self, true: Callable[[Asked], bool]) -> Asked:
        """The first request like this, once it is there."""
        with anyio.fail_after(20):
            while True:
                for asked in self.asked:
                    if true(asked):
                        return asked
                await self.next()

    async def next(self) -> None:
        """Return when another request has come."""
        await self._changed.wait()

    async def serve(self, stream: ByteStream) -> None:
        self._connections += 1
        number, reader = self._connections, BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    asked = await self._read(number, reader)
                    self.asked.append(asked)
                    event, self._changed = self._changed, anyio.Event()
                    event.set()
                    await self._answer(asked, Pipe(stream))
            except (
                anyio.IncompleteRead,
                anyio.EndOfStream,
                anyio.BrokenResourceError,
                anyio.ClosedResourceError,
            ):
                return

    async def _read(self, number: int, reader: BufferedByteReceiveStream) -> Asked:
        lines = (await reader.receive_until(b"\r\n\r\n", 100_000)).decode().split("\r\n")
        verb, path, _ = lines[0].split(" ")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
        body = await reader.receive_exactly(int(headers.get("content-length", 0)))
        return Asked(number, verb, path, headers, json.loads(body) if body else {})

    async def _answer(self, asked: Asked, pipe: Pipe) -> None:
        if self.opens is not None:
            await self.opens.wait()
        match asked.verb, asked.method:
            case "GET", _:
                await self.stream(asked, pipe)
            case "POST", "tools/call":
                await self.call(asked, pipe)
            case "POST", "server/discover":
                await self._say(asked, pipe, DISCOVERED)
            case "POST", "initialize":
                more = {"mcp-session-id": self.session} if self.session else {}
                more |= {"set-cookie": self.cookie} if self.cookie else {}
                await self._say(asked, pipe, INITIALIZED, more)
            case "POST", "tools/list":
                await self._say(asked, pipe, {"tools": [self.tool]})
            case "POST", _ if asked.id is None or not asked.method:
                await self.told(asked, pipe)
            case _:
                await pipe.answer(status=200)

    async def _say(
        self, asked: Asked, pipe: Pipe, result: Json, headers: Mapping[str, str] = NOTHING
    ) -> None:
        message = {"jsonrpc": "2.0", "id": asked.id, "result": result}
        await pipe.answer(json.dumps(message).encode(), headers=headers)


@asynccontextmanager
async def raw(call: Handler, **options: Any) -> AsyncGenerator[Raw]:
    """Serve on a free port of loopback."""
    server = Raw(call, **options)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        server.port = listener.extra(SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, server.serve)
            yield server
            tasks.cancel_scope.cancel()
