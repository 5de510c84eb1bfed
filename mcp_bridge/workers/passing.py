"""Requests that another worker answers: ASGI, carried over a pipe.

Theory of operation. What a request is to an application, its scope and its messages, is written to
the other worker's socket as it is, and what that worker's application sends is read back. So its
checks see the client's own address, host and headers; streams, WebSockets and clients that leave
are what they are without a proxy. Each request has a pipe of its own: its end is the pipe's.

The other worker says that it has accepted a request before its application runs. What was not
accepted, because that worker has ended and starts again, is offered again.
"""

import logging
from dataclasses import dataclass
from typing import Any

import anyio
import orjson
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_bridge.errors import RequestError
from mcp_bridge.types import Json
from mcp_bridge.workers.pipe import LENGTH, Broken, Pipe, dial

logger = logging.getLogger(__name__)

ACCEPT_SECONDS = 10.0
"""How long a request waits for a worker that starts again."""

AGAIN_SECONDS = 0.05
ACCEPTED = b"accepted"
TEXTS = ("type", "http_version", "method", "scheme", "path")
BYTES = ("raw_path", "query_string")
RESTARTED = 1012
"""Why a WebSocket is closed whose worker has ended: the service restarts (RFC 6455's registry)."""

NOT_HERE = RequestError(
    "the part of the bridge that answers this is being restarted: try again in a moment",
    code="restarting",
    status=503,
)


class Gone(Exception):
    """The worker did not accept the request in time: it has not seen it."""


# The worker that the client has come to


async def pass_on(
    address: str,
    road: str,
    scope: Scope,
    receive: Receive,
    send: Send,
    patience: float = ACCEPT_SECONDS,
) -> None:
    """Have the request answered by the worker at `address`, which has so long to accept it."""
    try:
        pipe = await offered(address, opening(road, scope), patience)
    except Gone:
        await refuse(scope, receive, send)
        return
    try:
        await Passage(pipe, scope, send).run(receive)
    finally:
        pipe.abort()


async def offered(address: str, request: bytes, patience: float) -> Pipe:
    """A pipe to a worker that has accepted the request.

    Raises:
        Gone: none has, in time.
    """
    with anyio.move_on_after(patience):
        while True:
            try:
                pipe = await dial(address)
            except OSError:
                await anyio.sleep(AGAIN_SECONDS)
                continue
            try:
                pipe.put(request)
                if await pipe.receive() == ACCEPTED:
                    return pipe
            except Broken:
                pass
            except BaseException:
                pipe.abort()
                raise
            pipe.abort()
            await anyio.sleep(AGAIN_SECONDS)
    raise Gone


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": RESTARTED})
        return
    answer = JSONResponse(NOT_HERE.body(), NOT_HERE.status, {"retry-after": "1"})
    await answer(scope, receive, send)


@dataclass(slots=True)
class Passage:
    """One request on its way through this worker."""

    pipe: Pipe
    scope: Scope
    send: Send
    begun: bool = False
    ended: bool = False

    async def run(self, receive: Receive) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._forth, receive)
            await self._back()
            tasks.cancel_scope.cancel()
        if not self.ended:
            await self._broken(receive)

    async def _forth(self, receive: Receive) -> None:
        """What the client sends, to its last message."""
        try:
            while True:
                message = await receive()
                await self.pipe.send(packed(message))
                if message["type"].endswith(".disconnect"):
                    return
        except Broken:
            pass

    async def _back(self) -> None:
        """What the other worker answers."""
        while not self.ended and (data := await self.pipe.receive()) is not None:
            message = unpacked(data)
            self.begun = True
            self.ended = is_last(message)
            try:
                await self.send(message)
            except OSError:  # a WebSocket whose client has left
                self.ended = True

    async def _broken(self, receive: Receive) -> None:
        """The other worker has ended in the middle of its answer."""
        if self.scope["type"] == "websocket":
            self.ended = True
            await self.send({"type": "websocket.close", "code": RESTARTED})
        elif not self.begun:
            await refuse(self.scope, receive, self.send)
        # Else nothing: the server sees an answer without end, and closes the connection.


def is_last(message: Message) -> bool:
    match message["type"]:
        case "http.response.body" | "websocket.http.response.body":
            return not message.get("more_body", False)
        case kind:
            return bool(kind == "websocket.close")


# The worker that answers


async def serve_passed(pipe: Pipe, request: Json, app: ASGIApp) -> None:
    """Answer a request that another worker passes on."""
    scope = scope_of(request)
    gone: Message = {"type": f"{scope['type']}.disconnect"}
    if scope["type"] == "websocket":
        gone["code"] = 1006

    async def receive() -> Message:
        data = await pipe.receive()
        return unpacked(data) if data is not None else gone

    async def send(message: Message) -> None:
        try:
            await pipe.send(packed(message))
        except Broken as exc:
            if scope["type"] == "websocket":  # as the server does; HTTP answers go nowhere then
                raise OSError("the client has left") from exc

    try:
        pipe.put(ACCEPTED)
        await app(scope, receive, send)
    except Broken:
        pass  # it has left before it knew that we are here
    except Exception:  # boundary: as the server that runs us does with every application
        logger.exception("a request that was passed on failed in an unexpected way")
    finally:
        pipe.close()


# How it is written


def opening(road: str, scope: Scope) -> bytes:
    """The first message: which request it is. `road` tells what it has passed here already."""
    texts = {name: scope[name] for name in TEXTS if name in scope}
    raw = {name: as_text(scope[name]) for name in BYTES if scope.get(name) is not None}
    return orjson.dumps(
        {
            "kind": "request",
            "road": road,
            **texts,
            **raw,
            # Not what a mount has made of it: the other worker's routes begin from the start.
            "root_path": scope.get("app_root_path", scope.get("root_path", "")),
            "headers": headers_as_text(scope["headers"]),
            "client": scope.get("client"),
            "server": scope.get("server"),
            "asgi": scope.get("asgi"),
            "subprotocols": list(scope.get("subprotocols", ())),
            "extensions": {name: {} for name in scope.get("extensions") or ()},
            "request_id": scope.get("state", {}).get("request_id"),
        }
    )


def scope_of(request: Json) -> Scope:
    scope: Scope = {name: request[name] for name in TEXTS if name in request}
    scope.update((name, as_bytes(request[name])) for name in BYTES if name in request)
    scope["headers"] = headers_as_bytes(request["headers"])
    for name in ("client", "server"):
        scope[name] = tuple(request[name]) if request[name] else None
    for name in ("root_path", "asgi", "subprotocols", "extensions"):
        scope[name] = request[name]
    scope["state"] = {"request_id": request["request_id"]} if request["request_id"] else {}
    return scope


def packed(message: Message) -> bytes:
    """An ASGI message: its fields as JSON, and its bytes as they are."""
    fields: dict[str, Any] = dict(message)
    raw = b""
    for name in ("body", "bytes"):
        if isinstance(fields.get(name), bytes | bytearray | memoryview):
            fields["raw"], raw = name, bytes(fields.pop(name))
    if "headers" in fields:
        fields["headers"] = headers_as_text(fields["headers"])
    head = orjson.dumps(fields)
    return LENGTH.pack(len(head)) + head + raw


def unpacked(data: bytes) -> Message:
    end = LENGTH.size + LENGTH.unpack_from(data)[0]
    fields: Message = orjson.loads(data[LENGTH.size : end])
    if "raw" in fields:
        fields[fields.pop("raw")] = data[end:]
    if "headers" in fields:
        fields["headers"] = headers_as_bytes(fields["headers"])
    return fields


def headers_as_text(headers: Any) -> list[tuple[str, str]]:
    return [(as_text(name), as_text(value)) for name, value in headers]


def headers_as_bytes(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(as_bytes(name), as_bytes(value)) for name, value in headers]


def as_text(value: bytes) -> str:
    return value.decode("latin-1")


def as_bytes(text: str) -> bytes:
    return text.encode("latin-1")
