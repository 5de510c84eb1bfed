"""The least that bridges tools: the yardstick. No policy, no care for errors, not a product.

    python -m benchmarks.servers.least fastapi --port 8001 --inference http://127.0.0.1:9099/v1

Chat completions, streamed and whole, with the tools of stdio MCP servers spliced into the request
and run until the model calls none: `fastapi` inside FastAPI, `bare` as a plain ASGI application.
Both on uvicorn (uvloop, httptools) with aiohttp's client, and the same code between.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from copy import copy
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from benchmarks.scenarios import SERVERS, TOOL_COUNTS
from benchmarks.servers.echo import tool

ECHO = str(Path(__file__).with_name("echo.py"))
JSON_TYPE = {"content-type": "application/json"}
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Stdio(asyncio.SubprocessProtocol):
    """A raw JSON-RPC client of one stdio server."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tail = b""
        self._ended = asyncio.Event()
        self._stdin: asyncio.WriteTransport
        self.tools: list[Any] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, prefix: str, count: int) -> AsyncGenerator["Stdio"]:
        command = [sys.executable, "-I", "-S", ECHO, prefix, str(count)]
        loop = asyncio.get_running_loop()
        transport, client = await loop.subprocess_exec(cls, *command, env=dict(os.environ))
        try:
            client._stdin = transport.get_pipe_transport(0)  # type: ignore[assignment]  # it is one
            await client.request("initialize", {})
            client.tools = (await client.request("tools/list", {}))["tools"]
            yield client
        finally:
            transport.close()
            await client._ended.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self._tail = (self._tail + data).split(b"\n")
        for line in lines:
            answer = orjson.loads(line)
            self._waiting.pop(answer["id"]).set_result(answer["result"])

    async def request(self, method: str, params: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        number = id(future)
        self._waiting[number] = future
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        self._stdin.write(orjson.dumps(message) + b"\n")
        return await future


class Bridge:
    """Asks the model, runs its calls, asks again."""

    def __init__(self, inference: str, http: aiohttp.ClientSession, servers: list[Stdio]) -> None:
        self._url = f"{inference}/chat/completions"
        self._http = http
        self._servers = {each["name"]: server for server in servers for each in server.tools}
        definitions = [as_function(each) for server in servers for each in server.tools]
        self._tools: orjson.Fragment | None = orjson.Fragment(orjson.dumps(definitions))

    def offering(self, count: int) -> "Bridge":
        """The same with so many tools that nobody calls."""
        other = copy(self)
        definitions = [as_function(tool("t", number)) for number in range(count)]
        other._tools = orjson.Fragment(orjson.dumps(definitions)) if count else None
        return other

    def _ask(self, body: Any) -> Any:
        if self._tools is not None:
            body["tools"] = self._tools
        return self._http.post(self._url, data=orjson.dumps(body), headers=JSON_TYPE)

    async def whole(self, body: Any) -> bytes:
        """The answer, when the model has no more calls."""
        while True:
            async with self._ask(body) as response:
                raw: bytes = await response.read()
            message = orjson.loads(raw)["choices"][0]["message"]
            if not message.get("tool_calls"):
                return raw
            body["messages"] += [message, *await self._run(message["tool_calls"])]

    async def streamed(self, body: Any) -> AsyncGenerator[bytes]:
        """The events as they come, but those with calls."""
        while True:
            calls: list[Any] = []
            async with self._ask(body) as response:
                tail = b""
                async for data in response.content.iter_any():
                    whole, cut, tail = (tail + data).rpartition(b"\n\n")
                    if shown := self._shown(whole + cut, calls):
                        yield shown
            if not calls:
                return
            message = {"role": "assistant", "content": None, "tool_calls": calls}
            body["messages"] += [message, *await self._run(calls)]

    def _shown(self, events: bytes, calls: list[Any]) -> bytes:
        if not calls and b"tool_calls" not in events:
            return events
        for event in events.split(b"\n\n"):
            if b'"delta"' in event:
                fold(orjson.loads(event[6:])["choices"][0]["delta"].get("tool_calls"), calls)
        return b""

    async def _run(self, calls: list[Any]) -> list[Any]:
        results = await asyncio.gather(*map(self._call, calls))
        return [
            {"role": "tool", "tool_call_id": call["id"], "content": text}
            for call, text in zip(calls, results, strict=True)
        ]

    async def _call(self, call: Any) -> str:
        name, arguments = call["function"]["name"], orjson.loads(call["function"]["arguments"])
        params = {"name": name, "arguments": arguments}
        result = await self._servers[name].request("tools/call", params)
        return "".join(part["text"] for part in result["content"])


def as_function(definition: Any) -> Any:
    function = {"name": definition["name"], "description": definition["description"]}
    function["parameters"] = definition["inputSchema"]
    return {"type": "function", "function": function}


def fold(pieces: Any, calls: list[Any]) -> None:
    """Put the pieces of calls together."""
    for piece in pieces or ():
        if "id" in piece:
            calls.append({key: value for key, value in piece.items() if key != "index"})
        else:
            calls[-1]["function"]["arguments"] += piece["function"]["arguments"]


@asynccontextmanager
async def open_bridge(inference: str, count: int) -> AsyncGenerator[Bridge]:
    """A bridge with `count` tools on each server."""
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        servers = [
            await stack.enter_async_context(Stdio.open(prefix, count))
            for prefix in (SERVERS if count else ())
        ]
        yield Bridge(inference, http, servers)


def fastapi_app(inference: str, count: int) -> FastAPI:
    """The yardstick of the goals. `/t/{count}/v1` offers other numbers of tools."""
    bridges: dict[int | None, Bridge] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_bridge(inference, count) as bridge:
            bridges[None] = bridge
            bridges.update({n: bridge.offering(n) for n in TOOL_COUNTS})
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/readyz")
    async def ready() -> None:
        return None

    @app.post("/v1/chat/completions")
    @app.post("/t/{tools}/v1/chat/completions")
    async def chat(request: Request, tools: int | None = None) -> Response:
        body = orjson.loads(await request.body())
        bridge = bridges[tools]
        if body.get("stream"):
            return StreamingResponse(bridge.streamed(body), media_type="text/event-stream")
        return Response(await bridge.whole(body), media_type="application/json")

    return app


class BareApp:
    """The same without a framework."""

    def __init__(self, inference: str, count: int) -> None:
        self._opened = open_bridge(inference, count)
        self._bridge: Bridge

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["method"] == "GET":
            await self._answer(send, b"null", b"application/json")
        else:
            body = orjson.loads(await whole_body(receive))
            if body.get("stream"):
                await self._stream(body, send)
            else:
                await self._answer(send, await self._bridge.whole(body), b"application/json")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._opened as self._bridge:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, send: Send, body: bytes, kind: bytes) -> None:
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, body: Any, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for data in self._bridge.streamed(body):
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body"})


async def whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.servers.least", description=__doc__)
    parser.add_argument("kind", choices=("fastapi", "bare"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--inference", required=True)
    parser.add_argument("--tools", type=int, default=10, help="tools of each of the servers")
    given = parser.parse_args()
    app = fastapi_app if given.kind == "fastapi" else BareApp
    uvicorn.run(
        app(given.inference, given.tools),
        port=given.port,
        log_level="warning",
        access_log=False,
        backlog=4096,
    )


if __name__ == "__main__":
    main()
