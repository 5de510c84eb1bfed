"""Every door with every transport behind: what the bridge adds to a call with the SDK's client.

Each server is called directly, and through each door of a bridge that is in front of it, by the
same client in the same run. The client has the core of the load; the server that is called has the
core of the bridge, so that what the bridge takes is missing in the calls that are possible.

    python -m benchmarks.doors

is that client: it reads ways to a tool as lines of JSON, and writes what calling it took.
"""

import json
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, suppress
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

from benchmarks import targets
from benchmarks.door import LEGACY, MODERN, PLACE, call_of
from benchmarks.processes import ROOT, Process, cores, cpu_of, free_port, python, started
from benchmarks.processes import tell as say_to
from benchmarks.report import Table
from benchmarks.scenarios import ECHOED
from benchmarks.suite import USERS, Bench, progress
from benchmarks.targets import Target
from mcp_bridge import websocket

TOOL = "sdk_echo"
WARM, COUNT, TURNS = 32, 320, 2
"""Calls before, calls in one turn, and turns, of which the best counts."""

SECONDS = 60.0
STDIO, HTTP, SSE, SOCKET, REST = "stdio", "streamable HTTP", "SSE", "WebSocket", "REST"
DIRECTLY = "directly"
PATHS = {HTTP: ("http", PLACE), SSE: ("sse", "/sse"), SOCKET: ("websocket", "/ws")}
"""How the SDK's server calls a transport, and where it has it."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a client reaches a tool: at a URL or by a command."""

    transport: str
    url: str = ""
    command: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    era: str = "legacy"


@dataclass(frozen=True, slots=True)
class Took:
    """What calls took."""

    per_second: float
    calls: int
    child_cpu: float
    """Seconds of CPU of the server that the client has started, if it has."""
    cpu_ms: float = 0.0


# The client


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
        yield lambda: over_mcp(client)


async def over_rest(http: httpx2.AsyncClient, url: str) -> None:
    response = await http.post(url, json=call_of(TOOL)["arguments"])
    assert ECHOED in response.text


async def over_mcp(client: Client) -> None:
    result = await client.call_tool(TOOL, call_of(TOOL)["arguments"])
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
            await calls(call, COUNT)
            seconds = time.perf_counter() - began
            return Took(COUNT / seconds, COUNT + WARM, sum(map(cpu_of, child)) - cpu)


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


# What it calls


def doors(bench: Bench) -> Generator[Table]:
    """Calls a second, and what the bridge takes for each, as ratios to direct calls."""
    columns = [f"{name} behind" for name in (STDIO, *PATHS)]
    rates = Table(
        f"Calls in a second with the SDK's client, {USERS} at a time, of those made directly",
        columns,
        notes="The first row: how many directly. The server has the core that the bridge has.",
    )
    costs = Table(
        "CPU of the bridge for one call (ms), and in terms of what the server takes directly",
        columns,
        notes="The first row: the SDK's server, directly.",
    )
    found: dict[str, list[tuple[float, float]]] = {}
    with client(bench.folder) as process:
        for behind in (STDIO, *PATHS):
            for door, took in taken(bench, process, behind):
                found.setdefault(door, []).append((took.per_second, took.cpu_ms))
    directly = found.pop(DIRECTLY)
    rates.add(DIRECTLY, [rate for rate, _ in directly])
    costs.add(DIRECTLY, [cpu for _, cpu in directly])
    for door, row in found.items():
        pairs = list(zip(row, directly, strict=True))
        rates.add(door, [f"{rate / of:.2f}" for (rate, _), (of, _) in pairs])
        costs.add(door, [f"{cpu:.2f} ({cpu / of:.2f} x)" for (_, cpu), (_, of) in pairs])
    yield rates
    yield costs


@contextmanager
def client(folder: Path) -> Generator[Process]:
    env = {"PYTHONPATH": str(ROOT)}
    log = folder / "doors.log"
    with started(python("benchmarks.doors"), cores()[1], env=env, log=log, talk=True) as process:
        yield process


def taken(bench: Bench, process: Process, behind: str) -> Generator[tuple[str, Took]]:
    """What each way to a server takes: directly first, then each door of a bridge before it."""
    with ExitStack() as stack:
        way, entry, server = served(stack, behind)
        yield DIRECTLY, measured(process, f"{behind}, directly", way, server)
        servers = {"sdk": {**entry, "required": True}}
        ours = stack.enter_context(targets.bridge(bench.folder, bench.direct, servers))
        for door, through in ways(bench.folder, ours).items():
            what = f"{behind} behind, through {door}"
            yield door, measured(process, what, through, None if through.command else ours)


def measured(process: Process, what: str, way: Way, server: Target | None) -> Took:
    progress(what)
    turns = [once(process, way, server) for _ in range(TURNS)]
    rate, cpu_ms = max(t.per_second for t in turns), min(t.cpu_ms for t in turns)
    return replace(turns[0], per_second=rate, cpu_ms=cpu_ms)


def once(process: Process, way: Way, server: Target | None) -> Took:
    """One turn. The CPU is that of the server, or of the process that the client starts."""
    watched = server.process if server else None
    before = watched.cpu() if watched else 0.0
    say_to(process.popen.stdin, asdict(way))
    assert process.popen.stdout is not None
    line = process.popen.stdout.readline()
    if not line:
        raise RuntimeError("the client of the doors has ended; see its log")
    took = Took(**json.loads(line))
    cpu = (watched.cpu() - before) / took.calls if watched else took.child_cpu / COUNT
    return replace(took, cpu_ms=cpu * 1000)


def served(stack: ExitStack, behind: str) -> tuple[Way, dict[str, Any], Target | None]:
    """A server of the SDK's: how it is reached directly, its entry in a configuration, itself."""
    if behind == STDIO:
        command = on_the_core_of_servers(python("benchmarks.servers.sdk", "stdio"))
        entry = {"command": command[0], "args": command[1:], "env": {"PYTHONPATH": str(ROOT)}}
        return Way(STDIO, command=command), entry, None
    name, path = PATHS[behind]
    port = free_port()
    serving = python("benchmarks.servers.sdk", name, "--port", str(port))
    process = stack.enter_context(started(serving, cores()[0]))
    await_port(port, process)
    scheme = "ws" if behind == SOCKET else "http"
    url = f"{scheme}://127.0.0.1:{port}{path}"
    era = MODERN if behind == HTTP else "legacy"
    target = Target(behind, url, process)
    return Way(behind, url, era=era), {"url": url, "transport": name}, target


def ways(folder: Path, ours: Target) -> dict[str, Way]:
    """The doors of a bridge."""
    root, headers = ours.url.removesuffix("/v1"), dict(ours.headers)
    web = root.replace("http", "ws", 1)
    config = folder / f"bridge-{ours.port}.json"
    command = on_the_core_of_servers(python("mcp_bridge", "stdio", "--config", str(config)))
    return {
        f"/mcp {MODERN}": Way(HTTP, root + PLACE, headers=headers, era=MODERN),
        f"/mcp {LEGACY}": Way(HTTP, root + PLACE, headers=headers),
        SSE: Way(SSE, f"{root}/mcp-server/sse", headers=headers),
        SOCKET: Way(SOCKET, f"{web}/mcp-server/ws", headers=headers),
        "mcp-bridge stdio": Way(STDIO, command=command),
        REST: Way(REST, f"{root}/mcp/tools/{TOOL}/call", headers=headers),
    }


def on_the_core_of_servers(command: Sequence[str]) -> tuple[str, ...]:
    """A command that the client starts, or the bridge, wherever they are."""
    return ("taskset", "-c", ",".join(map(str, cores()[0])), *command)


def await_port(port: int, process: Process) -> None:
    """Wait until a server listens, whatever it speaks."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        if not process.alive():
            raise RuntimeError(f"{process.popen.args!r} ended with {process.popen.returncode}")
        time.sleep(0.02)
    raise RuntimeError(f"nobody listens on port {port} after {SECONDS:g} s")


if __name__ == "__main__":
    anyio.run(main)
