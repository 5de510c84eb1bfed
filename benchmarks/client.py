"""A client of MCP servers in a process of its own: what calls take, made as most clients make them.

    python -m benchmarks.client

reads ways to a tool as lines of JSON, and writes what calling it took. Clients are the SDK's; REST
is called with its HTTP library.
"""

import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from benchmarks.processes import ROOT, Process, Watched, cores, cpu_of, python, started, tell
from benchmarks.scenarios import ECHOED
from benchmarks.suite import USERS
from mcp_bridge import websocket

WARM, COUNT = 32, 320
"""Calls before those that are measured, and how many these are."""

SECONDS = 60.0
STDIO, HTTP, SSE, SOCKET, REST = "stdio", "streamable HTTP", "SSE", "WebSocket", "REST"
ARGUMENTS = {"text": "hello"}


@dataclass(frozen=True, slots=True)
class Way:
    """How a client reaches a tool: at a URL or by a command. `count`: how often it is called."""

    transport: str
    url: str = ""
    command: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    era: str = "legacy"
    tool: str = "sdk_echo"
    count: int = COUNT


@dataclass(frozen=True, slots=True)
class Took:
    """What calls took."""

    per_second: float
    calls: int
    child_cpu: float
    """Seconds of CPU of the server that the client has started, if it has."""
    cpu_ms: float = 0.0


# In the process of the client


Call = Callable[[], Awaitable[None]]


@asynccontextmanager
async def calling(way: Way) -> AsyncGenerator[Call]:
    """A client that is connected, and how it calls."""
    timeout = httpx2.Timeout(SECONDS)
    if way.transport == REST:
        async with httpx2.AsyncClient(headers=way.headers, timeout=timeout) as http:
            yield lambda: over_rest(http, way.url)
        return
    async with opened(way) as server, Client(server, mode=way.era, cache=None) as client:
        yield lambda: over_mcp(client, way.tool)


async def over_rest(http: httpx2.AsyncClient, url: str) -> None:
    response = await http.post(url, json=ARGUMENTS)
    assert ECHOED in response.text


async def over_mcp(client: Client, tool: str) -> None:
    result = await client.call_tool(tool, ARGUMENTS)
    assert not result.is_error


@asynccontextmanager
async def opened(way: Way) -> AsyncGenerator[Any]:
    """What the SDK's client is given for a transport."""
    match way.transport:
        case "stdio":
            command, *args = way.command
            yield StdioServerParameters(command=command, args=args, env=dict(os.environ))
        case "SSE":
            yield sse_client(way.url, headers=way.headers)
        case "WebSocket":
            yield socket_client(way.url, way.headers)
        case _:
            async with httpx2.AsyncClient(headers=way.headers, timeout=SECONDS) as http:
                yield streamable_http_client(way.url, http_client=http)


@asynccontextmanager
async def socket_client(url: str, headers: dict[str, str]) -> AsyncGenerator[Any]:
    """A transport that the SDK has not, on the bridge's own end of it."""
    read_to, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, write_from = anyio.create_memory_object_stream[SessionMessage](0)

    async def reading() -> None:
        async with aclosing(wire.messages()) as messages:
            async for text in messages:
                message = jsonrpc_message_adapter.validate_json(text, by_name=False)
                await read_to.send(SessionMessage(message))

    async def writing() -> None:
        async for message in write_from:
            text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            await wire.send(text)

    with read_to, read, write, write_from:
        async with (
            websocket.connect(url, headers=headers, max_bytes=None, open_seconds=SECONDS) as wire,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(reading)
            tasks.start_soon(writing)
            yield read, write
            tasks.cancel_scope.cancel()


async def carry_out(way: Way) -> Took:
    """Connect and call, so many at a time."""
    with anyio.fail_after(SECONDS):
        async with calling(way) as call:
            await calls(call, WARM)
            child = children() if way.command else []
            cpu, began = sum(map(cpu_of, child)), time.perf_counter()
            await calls(call, way.count)
            seconds = time.perf_counter() - began
            return Took(way.count / seconds, way.count + WARM, sum(map(cpu_of, child)) - cpu)


async def calls(call: Call, count: int) -> None:
    async def user() -> None:
        for _ in range(count // USERS):
            await call()

    async with anyio.create_task_group() as tasks:
        for _ in range(USERS):
            tasks.start_soon(user)


def children() -> list[int]:
    """The processes that this one has started."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


async def main() -> None:
    lines = anyio.wrap_file(sys.stdin)
    while line := await lines.readline():
        print(json.dumps(asdict(await carry_out(Way(**json.loads(line))))), flush=True)


# For whoever measures


@contextmanager
def client(folder: Path) -> Generator[Process]:
    """The process, on the cores of the load."""
    env = {"PYTHONPATH": str(ROOT), "BENCH_CORES": ",".join(map(str, cores()[1]))}
    log = folder / "client.log"
    with started(python("benchmarks.client"), cores()[1], env=env, log=log, talk=True) as process:
        yield process


def calls_of(process: Process, way: Way, server: Watched | None) -> Took:
    """Have it call. The CPU is that of the server, or of the process that the client starts."""
    before = server.cpu() if server else 0.0
    tell(process.popen.stdin, asdict(way))
    assert process.popen.stdout is not None
    line = process.popen.stdout.readline()
    if not line:
        raise RuntimeError("the client has ended; see its log")
    took = Took(**json.loads(line))
    cpu = (server.cpu() - before) / took.calls if server else took.child_cpu / way.count
    return replace(took, cpu_ms=cpu * 1000)


if __name__ == "__main__":
    anyio.run(main)
