"""The `/mcp` door: what a tool call and a list cost through the bridge, and directly."""

import argparse
import json
import os
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from benchmarks import targets
from benchmarks.load import Plan
from benchmarks.measure import SLICES, Cell, best, measure
from benchmarks.processes import ROOT, Watched, await_url, cores, free_port, get, python, started
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
        notes="CPU: of the bridge; in the rows of direct calls of the server (over HTTP) or of the "
        "SDK's client (over stdio). The server that is behind over HTTP shares the bridge's core.",
    )
    with sdk_server() as sdk:
        direct = {era: direct_call(bench, sdk, era, table) for era in (MODERN, LEGACY)}
        if not bench.quick:
            over_stdio(bench, table)
            clients(bench, table, sdk)
        through(bench, table, sdk, direct)
    return table


def direct_call(bench: Bench, sdk: Target, era: str, table: Table) -> float:
    what = f"SDK server over HTTP, directly, {era}"
    make = modern if era == MODERN else legacy
    request = make(sdk, "tools/call", call_of("sdk_echo"))
    cell = measured(bench, what, sdk, request, ECHOED)
    table.add(what, (cell.per_second, cell.cpu_ms, None))
    return cell.per_second


def call_of(tool: str) -> dict[str, Any]:
    return {"name": tool, "arguments": {"text": "hello"}}


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
def sdk_server() -> Generator[Target]:
    """The SDK's server over HTTP, on the core of servers."""
    port = free_port()
    command = python("benchmarks.servers.sdk", "http", "--port", str(port))
    with started(command, cores()[0]) as process:
        target = Target("sdk", f"http://127.0.0.1:{port}/v1", process)
        _, headers, body = modern(target, "tools/list", {})
        await_url(f"http://127.0.0.1:{port}{PLACE}", process, headers, body)
        yield target


# With the SDK's client, as most clients are made


def over_stdio(bench: Bench, table: Table) -> None:
    lean = [sys.executable, "-I", "-S", str(ECHO), "a", "10"]
    sdk = python("benchmarks.servers.sdk", "stdio")
    for name, tool, server in (("lean", "a_echo", lean), ("SDK", "sdk_echo", sdk)):
        what = f"{name} server over stdio, directly with the SDK's client"
        progress(what)
        told = sdk_client(cores()[0], tool, *server)
        table.add(what, (told["per_second"], told["cpu_ms"], None))


def clients(bench: Bench, table: Table, sdk: Target) -> None:
    """The SDK's client over HTTP: directly, and through a bridge in front of the same server."""
    tool, server = behind(sdk)[OVER_HTTP]
    with targets.bridge(bench.folder, bench.direct, {"a": {**server, "required": True}}) as ours:
        for era in (MODERN, LEGACY):
            ways = {f"the SDK's client, directly, {era}": sdk}
            ways[what := f"the SDK's client, through /mcp {era}"] = ours
            progress(what)
            turns = [[of_client(way, era, tool) for way in ways.values()] for _ in range(SLICES)]
            direct, through = map(best, zip(*turns, strict=True))
            share = through.per_second / direct.per_second
            for name, cell, of in zip(ways, (direct, through), (None, f"{share:.2f}"), strict=True):
                table.add(name, (cell.per_second, cell.cpu_ms, of))
            bench.goal(f"direct calls/s, times those of {what}", 1 / share, 1 / 0.7)


def of_client(target: Target, era: str, tool: str) -> Cell:
    """The calls of one client process, which has the cores of the load."""
    assert target.process is not None
    url = target.url.removesuffix("/v1") + PLACE
    before = target.process.cpu()
    told = sdk_client(cores()[1], tool, url, era, json.dumps(dict(target.headers)))
    cpu_ms = (target.process.cpu() - before) * 1000 / told["calls"]
    return Cell(cpu_ms=cpu_ms, per_second=told["per_second"])


def sdk_client(on: set[int], tool: str, *server: str) -> dict[str, float]:
    """What a client tells that has called a tool: of a command, or at a URL."""
    command = python("benchmarks.door", tool, str(SDK_CALLS), *server)
    env = {"BENCH_CORES": ",".join(map(str, cores()[1])), "PYTHONPATH": str(ROOT)}
    with started(command, on, env=env, talk=True) as process:
        assert process.popen.stdout is not None
        told: dict[str, float] = json.loads(process.popen.stdout.readline())
    return told


async def call_over_http(
    tool: str, count: int, url: str, era: str, headers: str
) -> dict[str, float]:
    mode = MODERN if era == MODERN else "legacy"
    async with httpx2.AsyncClient(headers=json.loads(headers), timeout=60) as http:
        way = streamable_http_client(url, http_client=http)
        async with Client(way, mode=mode, cache=None) as client:
            return await timed(client, tool, count)


async def call_over_stdio(tool: str, count: int, command: list[str]) -> dict[str, float]:
    server = StdioServerParameters(command=command[0], args=command[1:], env=dict(os.environ))
    async with Client(server) as client:
        return await timed(client, tool, count)


async def timed(client: Client, tool: str, count: int) -> dict[str, float]:
    """Call a tool as any client does that is made with the SDK."""
    us = Watched((os.getpid(),))

    async def user(calls: int) -> None:
        for _ in range(calls):
            result = await client.call_tool(tool, {"text": "hello"})
            assert not result.is_error

    await user(50)
    cpu, began = us.cpu(), time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(USERS):
            tasks.start_soon(user, count // USERS)
    done = count // USERS * USERS
    seconds = time.perf_counter() - began
    used = (us.cpu() - cpu) * 1000 / done
    return {"per_second": done / seconds, "cpu_ms": used, "calls": done + 50}


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.door")
    parser.add_argument("tool")
    parser.add_argument("count", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.command[0].startswith("http"):
        told = anyio.run(call_over_http, given.tool, given.count, *given.command)
    else:
        told = anyio.run(call_over_stdio, given.tool, given.count, given.command)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
