"""The `/mcp` door: what a tool call and a list cost through the bridge, and directly."""

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks import targets
from benchmarks.client import ARGUMENTS, HTTP, STDIO, Took, Way, calls_of, client
from benchmarks.load import Plan
from benchmarks.measure import SLICES, Cell, measure
from benchmarks.processes import ROOT, Process, await_url, cores, free_port, get, python, started
from benchmarks.report import Table
from benchmarks.scenarios import ECHOED
from benchmarks.servers.least import ECHO
from benchmarks.suite import USERS, Bench, progress
from benchmarks.targets import Target

MODERN, LEGACY = "2026-07-28", "2025-11-25"
ACCEPT = {"accept": "application/json, text/event-stream"}
PLACE = "/mcp"
REST = "REST"
OVER_HTTP = "SDK server over HTTP"
LIST_SIZE = 500
SDK_CALLS = 800
"""Calls with the SDK's client, which is slow."""

CLIENT = {"name": "bench", "version": "1"}

Request = tuple[str, Mapping[str, str], Any]
"""A path, headers and a body."""


def modern(target: Target, method: str, params: Mapping[str, Any], path: str = PLACE) -> Request:
    """A request of the era without sessions."""
    about = "io.modelcontextprotocol"
    meta = {
        f"{about}/protocolVersion": MODERN,
        f"{about}/clientInfo": CLIENT,
        f"{about}/clientCapabilities": {},
    }
    headers = {**ACCEPT, **target.headers, "mcp-protocol-version": MODERN, "mcp-method": method}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return path, headers, _message(method, {**params, "_meta": meta})


def legacy(target: Target, method: str, params: Mapping[str, Any], path: str = PLACE) -> Request:
    """A request within a session, which this opens."""
    url = target.url.removesuffix("/v1") + path
    headers = {**ACCEPT, **target.headers}
    hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
    _, answered = get(url, headers, {**_message("initialize", hello), "id": "hello"})
    headers |= {"mcp-session-id": answered["mcp-session-id"], "mcp-protocol-version": LEGACY}
    get(url, headers, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    return path, headers, _message(method, params)


def _message(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    # Each user has an id of its own, for they share a session.
    return {"jsonrpc": "2.0", "id": "user-@user@", "method": method, "params": dict(params)}


def plan_of(target: Target, request: Request, contains: str) -> Plan:
    path, headers, body = request
    return Plan(
        host=target.host,
        port=target.port,
        path=path,
        headers=dict(headers),
        body=json.dumps(body),
        users=USERS,
        count=0,
        contains=contains,
    )


def measured(bench: Bench, what: str, target: Target, request: Request, contains: str) -> Cell:
    progress(f"{what}")
    plan = plan_of(target, request, contains)
    [cell] = measure(bench.load, [(target, plan)], bench.seconds)
    bench.check(what, cell)
    return cell


# Calls


def calls(bench: Bench) -> Table:
    """`tools/call` of an echo, each door with each kind of server behind."""
    table = Table(
        f"tools/call, {USERS} at a time",
        ["calls/s", "CPU per call (ms)", "of direct"],
        notes="CPU: of the bridge; in the rows of direct calls of the server. The one that is "
        "behind over HTTP shares the bridge's core, where nothing else is said.",
    )
    if not bench.quick:
        apart(bench, table)
    with sdk_server(cores()[0]) as sdk:
        direct = {era: direct_call(bench, sdk, era, table) for era in (MODERN, LEGACY)}
        if not bench.quick:
            with client(bench.folder) as process:
                over_stdio(process, table)
                clients(bench, process, table, sdk)
        through(bench, table, sdk, direct)
    return table


def apart(bench: Bench, table: Table) -> None:
    """A core for the bridge and one for the server behind it, which shares its with the load."""
    with sdk_server(cores()[1]) as sdk:
        tool, server = behind(sdk)[OVER_HTTP]
        servers = {"a": {**server, "required": True}}
        with targets.bridge(bench.folder, bench.direct, servers) as ours:
            for era, make in ((MODERN, modern), (LEGACY, legacy)):
                rates = []
                for way, target in (("directly", sdk), ("through /mcp", ours)):
                    what = f"SDK server over HTTP on another core, {way}, {era}"
                    request = make(target, "tools/call", call_of(tool))
                    cell = measured(bench, what, target, request, ECHOED)
                    rates.append(cell.per_second)
                    share = f"{rates[1] / rates[0]:.2f}" if len(rates) > 1 else None
                    table.add(what, (cell.per_second, cell.cpu_ms, share))
                what = f"direct calls/s, times those through /mcp {era}, a core for each"
                bench.goal(what, rates[0] / rates[1], 1 / 0.7)


def direct_call(bench: Bench, sdk: Target, era: str, table: Table) -> float:
    what = f"SDK server over HTTP, directly, {era}"
    make = modern if era == MODERN else legacy
    request = make(sdk, "tools/call", call_of("sdk_echo"))
    cell = measured(bench, what, sdk, request, ECHOED)
    table.add(what, (cell.per_second, cell.cpu_ms, None))
    return cell.per_second


def call_of(tool: str) -> dict[str, Any]:
    return {"name": tool, "arguments": ARGUMENTS}


def through(bench: Bench, table: Table, sdk: Target, direct: Mapping[str, float]) -> None:
    """The calls through the bridge."""
    chosen = list(behind(sdk).items())
    for name, (tool, server) in chosen[:1] if bench.quick else chosen:
        with targets.bridge(
            bench.folder, bench.direct, {"a": {**server, "required": True}}
        ) as ours:
            for door, request in doors(ours, tool).items():
                what = f"through {door if door == REST else f'/mcp {door}'}, {name} behind"
                cell = measured(bench, what, ours, request, ECHOED)
                share = cell.per_second / direct[door] if door in direct else None
                if share is None or name != OVER_HTTP:
                    table.add(what, (cell.per_second, cell.cpu_ms, None))
                    continue
                table.add(what, (cell.per_second, cell.cpu_ms, f"{share:.2f}"))


def behind(sdk: Target) -> dict[str, tuple[str, dict[str, Any]]]:
    """The servers that a bridge is put in front of: the name of their echo, and their entry."""
    env = {"BENCH_CORES": ",".join(map(str, cores()[1])), "PYTHONPATH": str(ROOT)}
    command = python("benchmarks.servers.sdk", "stdio")
    sdk_stdio = {"command": command[0], "args": command[1:], "env": env}
    return {
        OVER_HTTP: ("sdk_echo", {"url": sdk.url.removesuffix("/v1") + PLACE}),
        "lean server over stdio": ("a_echo", targets.echo_server("a", 10)),
        "SDK server over stdio": ("sdk_echo", sdk_stdio),
    }


def doors(ours: Target, tool: str) -> dict[str, Request]:
    call = call_of(tool)
    rest = (f"/mcp/tools/{tool}/call", ours.headers, call["arguments"])
    return {
        MODERN: modern(ours, "tools/call", call),
        LEGACY: legacy(ours, "tools/call", call),
        REST: rest,
    }


@contextmanager
def sdk_server(on: set[int]) -> Generator[Target]:
    """The SDK's server over HTTP, on these cores."""
    port = free_port()
    command = python("benchmarks.servers.sdk", "http", "--port", str(port))
    with started(command, on) as process:
        target = Target("sdk", f"http://127.0.0.1:{port}/v1", process)
        _, headers, body = modern(target, "tools/list", {})
        await_url(f"http://127.0.0.1:{port}{PLACE}", process, headers, body)
        yield target


# With the SDK's client, as most clients are made


def over_stdio(process: Process, table: Table) -> None:
    lean = (sys.executable, "-I", "-S", str(ECHO), "a", "10")
    sdk = tuple(python("benchmarks.servers.sdk", "stdio"))
    for name, tool, command in (("lean", "a_echo", lean), ("SDK", "sdk_echo", sdk)):
        what = f"{name} server over stdio, directly with the SDK's client"
        progress(what)
        took = calls_of(process, Way(STDIO, command=command, tool=tool, count=SDK_CALLS), None)
        table.add(what, (took.per_second, took.cpu_ms, None))


def clients(bench: Bench, process: Process, table: Table, sdk: Target) -> None:
    """The SDK's client over HTTP: directly, and through a bridge in front of the same server."""
    tool, server = behind(sdk)[OVER_HTTP]
    with targets.bridge(bench.folder, bench.direct, {"a": {**server, "required": True}}) as ours:
        for era in (MODERN, LEGACY):
            ways = {f"the SDK's client, directly, {era}": sdk}
            ways[what := f"the SDK's client, through /mcp {era}"] = ours
            progress(what)
            turns = [[of(process, way, era, tool) for way in ways.values()] for _ in range(SLICES)]
            directly, through = (max(each, key=rate) for each in zip(*turns, strict=True))
            share = through.per_second / directly.per_second
            for name, took, ratio in zip(
                ways, (directly, through), (None, f"{share:.2f}"), strict=True
            ):
                table.add(name, (took.per_second, took.cpu_ms, ratio))
            bench.goal(f"direct calls/s, times those of {what}", 1 / share, 1 / 0.7)


def of(process: Process, target: Target, era: str, tool: str) -> Took:
    """The calls of the client over HTTP."""
    url = target.url.removesuffix("/v1") + PLACE
    mode = MODERN if era == MODERN else "legacy"
    way = Way(HTTP, url, headers=dict(target.headers), era=mode, tool=tool, count=SDK_CALLS)
    return calls_of(process, way, target.process)


def rate(took: Took) -> float:
    return took.per_second


# Lists


def lists(bench: Bench) -> Table:
    """`tools/list` of many tools."""
    table = Table(f"tools/list of {LIST_SIZE} tools through /mcp", ["lists/s", "CPU (ms)"])
    servers = {"a": targets.echo_server("a", LIST_SIZE)}
    with targets.bridge(bench.folder, bench.direct, servers) as ours:
        for era, make in ((MODERN, modern), (LEGACY, legacy)):
            request = make(ours, "tools/list", {})
            what = f"tools/list, {era}"
            cell = measured(bench, what, ours, request, f'"a_tool_{LIST_SIZE - 1}"')
            table.add(era, (cell.per_second, cell.cpu_ms))
            bench.goal(f"tools/list of {LIST_SIZE} tools, {era}: CPU (ms)", cell.cpu_ms, 1)
    return table
