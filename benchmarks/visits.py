"""What clients do, one visit after the other, for the soak: every kind of client that there is.

Each visit checks what it is told and raises `Wrong` when that is not what it should be.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import aiohttp
import anyio

from benchmarks import door
from benchmarks.load import Plan, problem_of
from benchmarks.scenarios import (
    BY_NAME,
    CLIENT,
    ECHOED,
    ILL,
    LONG,
    MIXED,
    PACED,
    SILENT,
    TABLE,
    TOKEN,
    Scenario,
    echo_of,
)
from benchmarks.targets import Target

OF_STDIO, OF_HTTP = "a_echo", "sdk_echo"
"""The echo tools of a server over stdio and of the one over HTTP."""

LEFT_AFTER = 0.3
"""Seconds after which a client has had enough of a model that says nothing."""

SLOW_BYTES, SLOW_SECONDS = 32_768, 0.02
Json = dict[str, Any]


class Wrong(Exception):
    """An answer is not what it should be."""


@dataclass(frozen=True, slots=True)
class Site:
    """A bridge as its clients see it."""

    http: aiohttp.ClientSession
    target: Target
    direct: Target

    @property
    def root(self) -> str:
        return self.target.url.removesuffix("/v1")

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """POST JSON; enter it for the response."""
        return self.http.post(
            self.root + path, json=body, headers={**self.target.headers, **(headers or {})}
        )

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        return self.http.get(self.root + path, headers={**self.target.headers, **(headers or {})})


Visit = Callable[[Site], Awaitable[None]]


async def read(response: aiohttp.ClientResponse, *statuses: int) -> bytes:
    """The body of an answer that must have one of these statuses."""
    body = await response.read()
    if response.status not in (statuses or (200,)):
        raise Wrong(f"status {response.status}: {body[:200].decode('latin-1')}")
    return body


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise Wrong(otherwise)


# Chat


@cache
def plan_of(scenario: Scenario) -> Plan:
    """What is checked of an answer."""
    tokens = scenario.tokens
    return Plan("", 0, "", {}, "", users=1, count=1, stream=scenario.stream, tokens=tokens)


async def chat(scenario: Scenario, site: Site) -> None:
    async with site.post("/v1/chat/completions", scenario.body) as response:
        body = await read(response)
    problem = problem_of(body, plan_of(scenario), closely=scenario.tokens <= 20)
    expect(problem is None, f"{problem}: {body[-200:].decode('latin-1')}")


async def direct(site: Site) -> None:
    """The inference server without the bridge: how fast this machine is just now."""
    async with site.http.post(site.direct.url + "/chat/completions", json=WHOLE.body) as response:
        await read(response)


async def failure(model: str, stream: bool, site: Site) -> None:
    """A model that is ill: the client is told so, as an error."""
    async with site.post(
        "/v1/chat/completions", {**WHOLE.body, "model": model, "stream": stream}
    ) as r:
        body = await read(r, 200, 429, 500, 502, 503, 504)
        told = r.status != 200 or (stream and model == ILL[0])
    expect(told and b'"error"' in body, f"{model} is no error: {body[-200:].decode('latin-1')}")


async def mixed_turn(site: Site) -> None:
    """The client has a tool of its own and sends its result back."""
    mine = {"name": echo_of(CLIENT), "parameters": {"type": "object", "properties": {}}}
    body = {**MIXED.body, "tools": [{"type": "function", "function": mine}]}
    async with site.post("/v1/chat/completions", body) as response:
        message = json.loads(await read(response))["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    names = [call["function"]["name"] for call in calls]
    expect(names == [echo_of(CLIENT)], f"a mixed turn with the calls {names}")
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": f"{ECHOED} mine"}
    follow_up = {**body, "messages": [*MIXED.body["messages"], message, result]}  # type: ignore[misc]  # it is a list
    async with site.post("/v1/chat/completions", follow_up) as response:
        answer = await read(response)
    problem = problem_of(answer, plan_of(MIXED), closely=True)
    expect(problem is None, f"after a mixed turn: {problem}")


async def leave_a_stream(site: Site) -> None:
    """Go away in the middle."""
    async with site.post("/v1/chat/completions", PACED.body) as response:
        expect(response.status == 200, f"status {response.status}")
        seen = b""
        while seen.count(TOKEN.encode()) < 3:
            data = await response.content.readany()
            expect(bool(data), "a stream ended before its client left")
            seen += data
        response.close()


async def leave_unanswered(site: Site) -> None:
    """Go away before there is an answer."""
    with anyio.move_on_after(LEFT_AFTER) as patience:
        async with site.post("/v1/chat/completions", {**WHOLE.body, "model": SILENT}) as response:
            await read(response)
    expect(patience.cancelled_caught, "a model that says nothing was answered")


async def read_slowly(site: Site) -> None:
    """A stream of megabytes for a client that is slow: all of it must come."""
    body = json.dumps(LONG.body).encode()
    lines = [f"POST {site.target.chat} HTTP/1.0", f"host: {site.target.host}:{site.target.port}"]
    lines += [f"{name}: {value}" for name, value in site.target.headers.items()]
    lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
    tokens, tail = 0, b""
    async with await anyio.connect_tcp(site.target.host, site.target.port) as stream:
        await stream.send("\r\n".join(lines).encode() + body)
        while True:
            try:
                data = tail + await stream.receive(SLOW_BYTES)
            except anyio.EndOfStream:
                break
            tokens += data.count(TOKEN.encode())
            tail = data[-len(TOKEN) + 1 :]
            await anyio.sleep(SLOW_SECONDS)
    expect(tokens == LONG.tokens, f"{tokens} words for a slow client instead of {LONG.tokens}")


# MCP


Ask = Callable[[str, Json], Awaitable[Json]]
HELLO = {"protocolVersion": door.LEGACY, "capabilities": {}, "clientInfo": door.CLIENT}


async def converse(ask: Ask, tell: Callable[[str], Awaitable[None]]) -> None:
    """What a client of a session does: it says hello, lists, calls."""
    hello = await ask("initialize", HELLO)
    expect(hello["protocolVersion"] == door.LEGACY, f"another version: {hello}")
    await tell("notifications/initialized")
    names = {tool["name"] for tool in (await ask("tools/list", {}))["tools"]}
    expect({OF_STDIO, OF_HTTP} <= names, f"tools are missing: {sorted(names)}")
    for tool in (OF_STDIO, OF_HTTP):
        result = await ask("tools/call", door.call_of(tool))
        expect(ECHOED in json.dumps(result), f"{tool} said {result}")
    await ask("ping", {})


def request(number: int, method: str, params: Json) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def result_of(answer: Json) -> Json:
    expect("result" in answer, f"an error: {answer.get('error')}")
    result: Json = answer["result"]
    return result


async def data_of(response: aiohttp.ClientResponse) -> AsyncGenerator[str]:
    """The data of each event of a stream."""
    async for line in response.content:
        if line.startswith(b"data:"):
            yield line[5:].strip().decode()


async def answer_in(response: aiohttp.ClientResponse) -> Json:
    """The answer to a request, whether it came as JSON or as an event."""
    if response.content_type != "text/event-stream":
        found: Json = json.loads(await read(response))
        return found
    async with aclosing(data_of(response)) as events:
        async for data in events:
            if data and "method" not in (message := json.loads(data)):
                return dict(message)
    raise Wrong("the stream of a request ended without its answer")


async def mcp_request(tool: str, site: Site) -> None:
    """One call in the era without sessions."""
    path, headers, body = door.modern(site.target, "tools/call", door.call_of(tool))
    async with site.post(path, body, headers) as response:
        result = result_of(await answer_in(response))
    expect(ECHOED in json.dumps(result), f"{tool} said {result}")


async def mcp_session(leave: bool, site: Site) -> None:
    """A session at /mcp; `leave`: first it breaks off its stream and a request, and goes on."""
    headers, numbers = {**door.ACCEPT}, iter(range(1, 100))

    async def ask(method: str, params: Json) -> Json:
        async with site.post(door.PLACE, request(next(numbers), method, params), headers) as answer:
            if session := answer.headers.get("mcp-session-id"):
                headers["mcp-session-id"] = session
                headers["mcp-protocol-version"] = door.LEGACY
            return result_of(await answer_in(answer))

    async def tell(method: str) -> None:
        body = {"jsonrpc": "2.0", "method": method}
        async with site.post(door.PLACE, body, headers) as answer:
            await read(answer, 202)
        if leave:
            async with site.get(door.PLACE, {**headers, "accept": "text/event-stream"}) as stream:
                expect(stream.status == 200, f"status {stream.status} for the session's stream")
                stream.close()
            with anyio.move_on_after(0):
                await ask("tools/call", door.call_of(OF_HTTP))

    try:
        await converse(ask, tell)
    finally:  # or it would stay for half an hour, and look like a leak
        own = {**site.target.headers, **headers}
        async with site.http.delete(site.root + door.PLACE, headers=own) as ended:
            await read(ended, 200, 202, 204)


@asynccontextmanager
async def sse_events(site: Site) -> AsyncGenerator[AsyncGenerator[str]]:
    async with site.get("/mcp-server/sse", {"accept": "text/event-stream"}) as stream:
        expect(stream.status == 200, f"status {stream.status} for SSE")
        async with aclosing(data_of(stream)) as events:
            yield events
        stream.close()


async def sse_session(site: Site) -> None:
    """A session over SSE, which is dropped at its end."""
    numbers = iter(range(1, 100))
    async with sse_events(site) as events:
        place = await anext(events)
        path = place.removeprefix(site.root)

        async def send(message: Json) -> None:
            async with site.post(path, message) as answer:
                await read(answer, 202)

        async def ask(method: str, params: Json) -> Json:
            await send(request(number := next(numbers), method, params))
            async for data in events:
                if data and (message := json.loads(data)).get("id") == number:
                    return result_of(message)
            raise Wrong("an SSE session ended without an answer")

        await converse(ask, lambda method: send({"jsonrpc": "2.0", "method": method}))


async def socket_session(site: Site) -> None:
    """A session over a WebSocket."""
    numbers = iter(range(1, 100))
    headers = dict(site.target.headers)
    url = site.root.replace("http", "ws", 1) + "/mcp-server/ws"
    async with site.http.ws_connect(url, headers=headers, protocols=["mcp"]) as socket:

        async def ask(method: str, params: Json) -> Json:
            await socket.send_json(request(number := next(numbers), method, params))
            while True:
                frame = await socket.receive()
                expect(frame.type is aiohttp.WSMsgType.TEXT, f"a WebSocket said {frame}")
                if (message := json.loads(frame.data)).get("id") == number:
                    return result_of(message)

        await converse(ask, lambda method: socket.send_json({"jsonrpc": "2.0", "method": method}))


# REST


async def rest_call(tool: str, site: Site) -> None:
    async with site.post(f"/mcp/tools/{tool}/call", {"text": "hello"}) as response:
        body = await read(response)
    expect(ECHOED.encode() in body, f"{tool} said {body[:200].decode('latin-1')}")


async def rest_lists(site: Site) -> None:
    wanted = {"/mcp/tools": OF_STDIO, "/mcp/servers": "connected", "/v1/models": "text-20"}
    for path, word in wanted.items():
        async with site.get(path) as response:
            body = await read(response)
        expect(word.encode() in body, f"{path} has no {word}")


# All of them


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of visit, how many of a hundred or so are of it, and what it cannot do without."""

    name: str
    visit: Visit
    weight: int
    tools: bool = False
    model: bool = True


WHOLE = BY_NAME["whole"]
WEIGHTS = {"whole": 20, "streamed": 12, "burst": 4, "call-whole": 6, "call-streamed": 6}
CHATS = tuple(
    Kind(each.name, partial(chat, each), WEIGHTS.get(each.name, 2), bool(each.calls))
    for each in TABLE
)
FAILING = tuple(
    Kind(f"{model} {'streamed' if stream else 'whole'}", partial(failure, model, stream), 1)
    for model in ILL
    for stream in (False, True)
)
KINDS = (
    *CHATS,
    *FAILING,
    Kind("mixed turn", mixed_turn, 3, tools=True),
    Kind("leaves a stream", leave_a_stream, 2),
    Kind("leaves unanswered", leave_unanswered, 1),
    Kind("/mcp request, stdio behind", partial(mcp_request, OF_STDIO), 4, True, False),
    Kind("/mcp request, HTTP behind", partial(mcp_request, OF_HTTP), 4, True, False),
    Kind("/mcp session", partial(mcp_session, False), 2, True, False),
    Kind("/mcp session, breaks off", partial(mcp_session, True), 1, True, False),
    Kind("SSE session", sse_session, 1, True, False),
    Kind("WebSocket session", socket_session, 2, True, False),
    Kind("REST call, stdio behind", partial(rest_call, OF_STDIO), 3, True, False),
    Kind("REST call, HTTP behind", partial(rest_call, OF_HTTP), 2, True, False),
    Kind("REST lists", rest_lists, 1, True, True),
    Kind("directly", direct, 6),
)
WHOLE_KIND, DIRECT_KIND = KINDS[0], KINDS[-1]
assert WHOLE_KIND.name == "whole"
