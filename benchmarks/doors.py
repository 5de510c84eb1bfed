"""Every door with every transport behind: what the bridge adds to a call with the SDK's client.

Each server is called directly, and through each door of a bridge that is in front of it, by the
same client in the same run. The client has the core of the load; the server that is called has the
core of the bridge, so that what the bridge takes is missing in the calls that are possible.
"""

import socket
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.client import HTTP, REST, SECONDS, SOCKET, SSE, STDIO, Took, Way, calls_of, client
from benchmarks.door import LEGACY, MODERN, PLACE
from benchmarks.processes import ROOT, Process, cores, free_port, python, started
from benchmarks.report import Table
from benchmarks.suite import USERS, Bench, progress
from benchmarks.targets import Target

TURNS = 2
"""Of which the best counts."""

DIRECTLY = "directly"
PATHS = {HTTP: ("http", PLACE), SSE: ("sse", "/sse"), SOCKET: ("websocket", "/ws")}
"""How the SDK's server calls a transport, and where it has it."""


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
    watched = server.process if server else None
    turns = [calls_of(process, way, watched) for _ in range(TURNS)]
    rate, cpu_ms = max(t.per_second for t in turns), min(t.cpu_ms for t in turns)
    return replace(turns[0], per_second=rate, cpu_ms=cpu_ms)


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
        REST: Way(REST, f"{root}/mcp/tools/sdk_echo/call", headers=headers),
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
