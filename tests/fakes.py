"""A scripted inference server: real HTTP on loopback, and every byte is the test's to choose.

    calls = [("c1", "add", '{"a": 1}')]
    async with ScriptedInference(answer(calls=calls), answer("It is 1.")) as server:
        ...  # point the bridge at server.base_url
    assert server.requests[1].json["messages"][-1]["role"] == "tool"

Each POST to `…/chat/completions` takes the next item of the script: a `Reply` (`sse`, `whole`,
`page`, `hang`, `refuse`), an `answer` (served streamed or whole, as the request asks), or a
function that gets the request and returns one of these. An `anyio.Event` among the pieces of a
reply holds the rest back until the test sets it.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import anyio

Json = dict[str, Any]
Piece = bytes | anyio.Event
Call = tuple[str, str, str]
"""id, name, arguments."""


@dataclass(frozen=True)
class Request:
    """What the server was sent. `gone` is set when the client left before its answer was whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    gone: anyio.Event = field(default_factory=anyio.Event)

    @property
    def json(self) -> Json:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value

    @property
    def streamed(self) -> bool:
        return self.json.get("stream") is True


@dataclass(frozen=True)
class Reply:
    """One HTTP answer, piece by piece.

    `end`: `finish` ends it as HTTP does, `cut` breaks the connection, `hang` waits for the client
    to leave. `refused` closes the connection without a byte.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[Piece] = ()
    end: Literal["finish", "cut", "hang"] = "finish"
    refused: bool = False


@dataclass(frozen=True)
class Said:
    """What a model says, whatever the shape it is sent in."""

    text: str = ""
    calls: Sequence[Call] = ()
    reasoning: str = ""
    usage: Json | None = None
    finish_reason: str | None = None

    @property
    def reason(self) -> str:
        return self.finish_reason or ("tool_calls" if self.calls else "stop")


Item = Reply | Said | Callable[[Request], "Reply | Said | Awaitable[Reply | Said]"]
USAGE: Json = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def answer(
    text: str = "",
    *,
    calls: Sequence[Call] = (),
    reasoning: str = "",
    usage: Json | None = None,
    finish_reason: str | None = None,
) -> Said:
    """An answer in OpenAI's shape, streamed when the request says `"stream": true`."""
    return Said(text, calls, reasoning, USAGE if usage is None else usage, finish_reason)


def sse(
    *pieces: Piece | Json,
    end: Literal["finish", "cut", "hang"] = "finish",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """A stream of exactly these pieces: bytes as they are, objects as `data:` events."""
    made = [event(piece) if isinstance(piece, dict) else piece for piece in pieces]
    return Reply(status, {"content-type": "text/event-stream", **(headers or {})}, made, end)


def whole(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    content = json.dumps(body).encode()
    return Reply(status, {"content-type": "application/json", **(headers or {})}, [content])


def page(text: str = "<html><body>Bad gateway</body></html>", *, status: int = 502) -> Reply:
    """An HTML page, as proxies send."""
    return Reply(status, {"content-type": "text/html; charset=utf-8"}, [text.encode()])


def hang() -> Reply:
    """Never answers; ends when the client leaves."""
    return Reply(end="hang", refused=True)


def refuse() -> Reply:
    """Closes the connection without a byte (for a port where nothing listens: `closed_port`)."""
    return Reply(refused=True)


DONE = b"data: [DONE]\n\n"


def event(body: Json) -> bytes:
    """One SSE event."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: Json | None, *, finish_reason: str | None = None, **top: Any) -> Json:
    """A `chat.completion.chunk`; `delta` None makes one without choices."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "model-a",
        "choices": [] if delta is None else [choice],
        **top,
    }


def stream_of(said: Said, *, include_usage: bool = True) -> list[Json]:
    """The chunks in which OpenAI streams it."""
    chunks = [chunk({"role": "assistant", "content": None if said.calls else ""})]
    chunks += [chunk({"reasoning_content": piece}) for piece in _pieces(said.reasoning)]
    chunks += [chunk({"content": piece}) for piece in _pieces(said.text)]
    for index, call in enumerate(said.calls):
        chunks += _call_chunks(index, call)
    chunks.append(chunk({}, finish_reason=said.reason))
    if include_usage and said.usage is not None:
        chunks.append(chunk(None, usage=said.usage))
    return chunks


def completion_of(said: Said) -> Json:
    """The same as a whole `chat.completion`."""
    message: Json = {"role": "assistant", "content": said.text or None}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in said.calls
        ]
    whole: Json = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "model-a",
        "choices": [{"index": 0, "message": message, "finish_reason": said.reason}],
    }
    return whole if said.usage is None else {**whole, "usage": said.usage}


def render(said: Said, request: Request) -> Reply:
    """Serve an answer the way the request asks for it."""
    if not request.streamed:
        return whole(completion_of(said))
    options = request.json.get("stream_options") or {}
    chunks = stream_of(said, include_usage=options.get("include_usage") is True)
    return sse(*chunks, DONE)


def _pieces(text: str, size: int = 7) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def _call_chunks(index: int, call: Call) -> Iterator[Json]:
    id, name, arguments = call
    head = {"index": index, "id": id, "type": "function"}
    yield chunk({"tool_calls": [{**head, "function": {"name": name, "arguments": ""}}]})
    for piece in _pieces(arguments):
        yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})


@contextmanager
def closed_port() -> Iterator[int]:
    """A port where nothing listens, kept free of others while the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class ScriptedInference:
    """The server. Enter it to start it; leaving stops everything it started."""

    def __init__(
        self, *script: Item, models: Sequence[str] = ("model-a",), then: Item | None = None
    ) -> None:
        """`then` answers every request after the script has ended; without it they get a 500."""
        self.script = list(script)
        self.then = then
        self.models: Item = whole(
            {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}
        )
        self.routes: dict[tuple[str, str], Item] = {}
        """Answers for other (method, path without query); the rest is echoed as JSON."""
        self.requests: list[Request] = []
        """Chat requests, in order."""
        self.others: list[Request] = []
        """All other requests."""
        self.connections = 0
        """How many connections were ever opened."""
        self.disconnected = anyio.Event()
        """Set when a client first left before its answer was whole."""
        self._arrived = anyio.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(limit=2**26, loop=loop), self._connection),
            "127.0.0.1",
            self.port,
            backlog=1024,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many chat requests have arrived."""
        while len(self.requests) < count:
            await self._arrived.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self.connections += 1
        try:
            while (request := await _read_request(reader, writer)) is not None:
                if not await self._serve(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side has left, or the test has ended
        finally:
            self._handlers.discard(task)
            writer.transport.abort()

    async def _serve(
        self, request: Request, reader: "_Reader", writer: asyncio.StreamWriter
    ) -> bool:
        reply = await self._reply(request)
        sending = asyncio.ensure_future(_send(reply, writer))  # noqa: TID251 - ended below
        leaving = asyncio.ensure_future(reader.gone.wait())  # noqa: TID251 - ended below
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() or isinstance(sending.exception(), ConnectionError):
                request.gone.set()
                self.disconnected.set()
                return False
            return sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _reply(self, request: Request) -> Reply:
        item = self._item(request)
        while not isinstance(item, Reply | Said):
            found = item(request)
            item = await found if isinstance(found, Awaitable) else found
        return render(item, request) if isinstance(item, Said) else item

    def _item(self, request: Request) -> Item:
        path = request.path.partition("?")[0]
        if path.endswith("/chat/completions"):
            self.requests.append(request)
            self._arrived.set()
            self._arrived = anyio.Event()
            if self.script:
                return self.script.pop(0)
            return self.then or whole({"error": {"message": "the script has ended"}}, status=500)
        self.others.append(request)
        if (request.method, path) in self.routes:
            return self.routes[request.method, path]
        if request.method == "GET" and path.endswith("/models"):
            return self.models
        return _echo(request)


class _Reader(asyncio.StreamReader):
    """A reader that tells when the peer has gone."""

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=limit, loop=loop)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.rstrip().split("\r\n")
    method, path, _ = start.split(" ")
    fields = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in fields}
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return Request(method, path, headers, await _read_body(reader, headers))


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def _send(reply: Reply, writer: asyncio.StreamWriter) -> bool:
    """Send it; whether the connection can be used again."""
    if reply.refused:
        if reply.end == "hang":
            await anyio.sleep_forever()
        return False
    head = [f"HTTP/1.1 {reply.status} -"]
    head += [f"{name}: {value}" for name, value in reply.headers.items()]
    if reply.status == 204:  # has no body, by definition
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        await writer.drain()
        return True
    head += ["transfer-encoding: chunked", "", ""]
    writer.write("\r\n".join(head).encode("latin-1"))
    for piece in reply.pieces:
        if isinstance(piece, anyio.Event):
            await piece.wait()
        elif piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(0)  # lets the piece leave by itself, as a slow model's tokens do
    if reply.end == "hang":
        await anyio.sleep_forever()
    if reply.end == "cut":
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _echo(request: Request) -> Reply:
    return whole(
        {
            "method": request.method,
            "path": request.path,
            "headers": request.headers,
            "body": request.body.decode("latin-1"),
        }
    )


def with_headers(reply: Reply, **headers: str) -> Reply:
    """The same reply with more headers; underscores in their names become dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(reply, headers={**reply.headers, **named})
