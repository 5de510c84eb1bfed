"""The measurements, one function for each table of the report."""

import json
import math
import sys
import time
import urllib.error
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.measure import Cell, Load, best, measure, once, plan_for
from benchmarks.processes import Watched, await_url, cores, free_port, get, python, started
from benchmarks.report import Table, ratio
from benchmarks.scenarios import BY_NAME, IDLE, KEY, PACED, TOOL_COUNTS, Scenario
from benchmarks.targets import Target

USERS = 16
SETTLE_SECONDS = 1.0
YARDSTICK, OURS, DIRECT = "fastapi", "mcp_bridge", "direct"
TITLES = {
    DIRECT: "direct, nothing between",
    "nginx": "nginx, proxy_buffering off",
    "bare": "the least, bare ASGI + aiohttp",
    YARDSTICK: "the least, FastAPI + aiohttp",
    OURS: "mcp_bridge",
}


@dataclass(slots=True)
class Bench:
    """What all measurements share."""

    folder: Path
    load: Load
    direct: Target
    seconds: float
    """How long one figure is measured."""
    quick: bool = False
    cells: dict[tuple[str, str, int], Cell] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    goals: list[tuple[str, float, float]] = field(default_factory=list)
    """What is wanted, what was measured, and the most that it may be."""

    def measure(self, target: Target, scenario: Scenario, users: int) -> Cell:
        """Measure one cell of the main tables, or remember it."""
        key = (target.name, scenario.name, users)
        if key not in self.cells:
            progress(f"{target.name}: {scenario.title}, {users} users")
            plan = plan_for(target, scenario, users, 0)
            self.cells[key] = self.checked(
                f"{target.name}, {scenario.title}", measure(self.load, target, plan, self.seconds)
            )
        return self.cells[key]

    def checked(self, what: str, cell: Cell) -> Cell:
        """Note what went wrong."""
        if cell.errors:
            self.problems.append(f"{what}: {cell.errors} errors: {'; '.join(cell.problems)}")
        return cell

    def goal(self, what: str, value: float, most: float) -> None:
        self.goals.append((what, value, most))


def progress(text: str) -> None:
    print(f"{time.perf_counter():7.1f} s  {text}", file=sys.stderr, flush=True)


def title(target: Target) -> str:
    return TITLES.get(target.name, target.name)


# The main table


def cpu_tables(
    bench: Bench, measured: Sequence[Target], scenarios: Sequence[Scenario], users: int
) -> Generator[Table]:
    """CPU for each answer, and what it is of the yardstick's."""
    columns = [scenario.title for scenario in scenarios]
    who = "1 user" if users == 1 else f"{users} users"
    table = Table(f"CPU of the server for one answer, {who} (ms)", columns)
    for target in measured:
        if target.process is not None:
            table.add(title(target), (cpu(bench, target, each, users) for each in scenarios))
    add_ratios(bench, table, measured, users)
    yield table
    rates = Table(f"Answers in a second, {who}", columns)
    for target in measured:
        rates.add(title(target), (rate(bench, target, each, users) for each in scenarios))
    yield rates


def add_ratios(bench: Bench, table: Table, measured: Sequence[Target], users: int) -> None:
    """How much the bridge costs in terms of the yardstick."""
    by_name = {
        target.name: values
        for target in measured
        for label, values in table.rows
        if label == title(target)
    }
    if YARDSTICK not in by_name or OURS not in by_name:
        return
    pairs = list(zip(table.columns, by_name[OURS], by_name[YARDSTICK], strict=True))
    numbers = [(c, a, b) for c, a, b in pairs if isinstance(a, float) and isinstance(b, float)]
    table.add("**mcp_bridge / FastAPI + aiohttp**", (ratio(a, b) for _, a, b in numbers))
    if users == USERS:
        for column, ours, yardstick in numbers:
            bench.goal(f"CPU, {column}: times the yardstick", ours / yardstick, 2)


def cpu(bench: Bench, target: Target, scenario: Scenario, users: int) -> float | None:
    if scenario.calls and not target.bridges_tools:
        return None
    return bench.measure(target, scenario, users).cpu_ms


def rate(bench: Bench, target: Target, scenario: Scenario, users: int) -> float | None:
    if scenario.calls and not target.bridges_tools:
        return None
    return bench.measure(target, scenario, users).measured.per_second


# Latency


def latency(bench: Bench, measured: Sequence[Target]) -> Table:
    """What a client waits longer, at one user."""
    table = Table(
        "Latency at one user (ms)",
        ["first chunk p50", "p99", "added p50", "whole answer p50", "p99", "added p50"],
        notes="`added`: more than directly. The stream has 20 chunks.",
    )
    streamed, whole = BY_NAME["streamed"], BY_NAME["whole"]
    direct = bench.measure(bench.direct, streamed, 1).measured.first
    direct_whole = bench.measure(bench.direct, whole, 1).measured.latency
    for target in measured:
        first = bench.measure(target, streamed, 1).measured.first
        answer = bench.measure(target, whole, 1).measured.latency
        added = first.p50 - direct.p50
        both = (answer.p50, answer.p99, answer.p50 - direct_whole.p50)
        table.add(title(target), (first.p50, first.p99, added, *both))
        if target.name == OURS:
            bench.goal("added to the first chunk at one user, p50 (ms)", added, 0.6)
    return table


def paced(bench: Bench, measured: Sequence[Target]) -> Table:
    """What is added to each chunk of streams that come as a model speaks."""
    streams = 64
    table = Table(
        f"{streams} streams, a chunk every 20 ms",
        ["delay p50 (ms)", "p99", "longest", "added p50", "added p99", "CPU per chunk (µs)"],
        notes="From when a chunk leaves the inference server until the client has it.",
    )
    direct = None
    for target in measured:
        progress(f"{target.name}: {streams} paced streams")
        plan = plan_for(target, PACED, streams, streams)
        runs = [once(bench.load, target, plan) for _ in range(1 if bench.quick else 2)]
        cell = bench.checked(f"{target.name}, paced", best(runs))
        delay = cell.measured.delay
        direct = direct or delay
        added = (delay.p50 - direct.p50, delay.p99 - direct.p99)
        each = cell.cpu_ms * 1000 / PACED.tokens
        table.add(title(target), (delay.p50, delay.p99, delay.longest, *added, each))
        if target.name == OURS:
            bench.goal("added to a chunk, 64 streams, p50 (ms)", added[0], 0.1)
            bench.goal("added to a chunk, 64 streams, p99 (ms)", added[1], 1)
    return table


def more_users(bench: Bench, measured: Sequence[Target]) -> Table:
    """Whether it stays as fast with many users."""
    users = (USERS, 256) if bench.quick else (USERS, 64, 256)
    columns = [f"{count} users" for count in users]
    table = Table("Streamed answers in a second, by users", [*columns, "errors"])
    for target in measured:
        cells = [bench.measure(target, BY_NAME["streamed"], count) for count in users]
        rates = [cell.measured.per_second for cell in cells]
        errors = sum(cell.errors for cell in cells)
        table.add(title(target), (*rates, errors))
        if target.name == OURS:
            bench.goal("16 users' throughput, times that of 256", rates[0] / rates[-1], 1.15)
            bench.goal("errors with 256 concurrent streams", cells[-1].errors, 0)
    return table


# Memory and the start


def memory(bench: Bench, idle: Mapping[str, float], measured: Sequence[Target]) -> Table:
    """What it holds: after its start, after all the load before, and with idle streams."""
    streams = 200 if bench.quick else 1000
    table = Table(
        "Memory (MiB), and CPU while nothing happens",
        ["idle", "after load", f"{streams:,} idle streams more", "after them", "their CPU (ms/s)"],
    )
    for target in measured:
        process = target.process
        if process is None:
            continue
        progress(f"{target.name}: {streams} idle streams")
        loaded = process.rss()
        plan = replace(plan_for(target, IDLE, streams, streams), hold=True)
        held = bench.load.run(plan)
        for problem in held.problems:
            bench.problems.append(f"{target.name}, idle streams: {problem}")
        used = resting(process)
        more = process.rss() - loaded
        bench.load.release()
        time.sleep(SETTLE_SECONDS)
        figures = (idle.get(target.name), loaded, more, process.rss(), used)
        table.add(title(target), figures)
        if target.name == OURS:
            bench.goal("1,000 idle streams (MiB more)", more * 1000 / streams, 60)
    return table


def resting(process: Watched) -> float:
    """Milliseconds of CPU in a second in which nothing is asked."""
    time.sleep(SETTLE_SECONDS)
    before, began = process.cpu(), time.monotonic()
    time.sleep(1)
    return (process.cpu() - before) * 1000 / (time.monotonic() - began)


def starts(bench: Bench) -> Table:
    """From the start of the process to its first answer, with more and more MCP servers."""
    counts = (0,) if bench.quick else (0, 3, 10, 50)
    table = Table(
        "Start (s) and idle memory (MiB), by MCP servers",
        ["to the first answer", "all servers connected", "idle memory"],
    )
    for count in counts:
        progress(f"start with {count} MCP servers")
        servers = {f"s{n}": targets.echo_server(f"s{n}", 10) for n in range(count)}
        answered, connected, rss = start(bench, servers)
        table.add(f"{count} servers", (answered, connected, rss))
        if count == 0:
            bench.goal("start to the first answer, no MCP servers (s)", answered, 1.5)
        if count == 10:
            bench.goal("idle memory with 10 MCP servers (MiB)", rss, 90)
    return table


def start(bench: Bench, servers: Mapping[str, Any]) -> tuple[float, float, float]:
    """Start a bridge; the seconds to its first answer and to the last server, and its memory."""
    port = free_port()
    config = bench.folder / f"start-{port}.json"
    config.write_text(json.dumps(targets.configuration(bench.direct, servers)))
    command = python("mcp_bridge", "serve", "--config", str(config), "--port", str(port))
    began = time.perf_counter()
    with started(command, cores()[0], log=bench.folder / "logs" / "start.log") as process:
        url = f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {KEY}"}
        answered = first_answer(f"{url}/v1/chat/completions", headers, began)
        await_url(f"{url}/readyz", process)
        connected = time.perf_counter() - began
        time.sleep(1)
        return answered, connected, process.rss()


def first_answer(url: str, headers: Mapping[str, str], began: float) -> float:
    body = BY_NAME["whole"].body
    while time.perf_counter() - began < 30:
        try:
            get(url, headers, body)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.005)
        else:
            return time.perf_counter() - began
    return math.nan


# Tools


def tools(bench: Bench) -> Table:
    """What a request costs when it gets more tools."""
    counts = TOOL_COUNTS
    columns = [f"{count:,} tools" for count in counts]
    table = Table(
        f"CPU for one whole answer, by the tools in the request, {USERS} users (ms)", columns
    )
    ways: tuple[tuple[str, Callable[..., Any]], ...] = (
        (YARDSTICK, yardstick_with_tools),
        (OURS, bridge_with_tools),
    )
    for name, way in ways:
        with way(bench, counts) as offered:
            row = []
            for target in offered:
                progress(f"{target.name} tools for {name}")
                plan = plan_for(target, BY_NAME["whole"], USERS, 0)
                cell = measure(bench.load, target, plan, bench.seconds)
                row.append(bench.checked(f"{name}, {target.name} tools", cell).cpu_ms)
            table.add(TITLES[name], row)
    return table


@contextmanager
def bridge_with_tools(bench: Bench, counts: Sequence[int]) -> Generator[list[Target]]:
    """One bridge; toolsets choose how many tools."""
    servers = {f"s{count}": targets.echo_server(f"s{count}", count) for count in counts if count}
    sets = {f"t{count}": {"include": [f"s{count}:*"]} for count in counts if count}
    with targets.bridge(bench.folder, bench.direct, servers, {"toolsets": sets}) as target:
        base = target.url.removesuffix("/v1")
        offered = [f"{base}/t/{f't{count}' if count else 'none'}/v1" for count in counts]
        yield [
            replace(target, name=str(count), url=url)
            for count, url in zip(counts, offered, strict=True)
        ]


@contextmanager
def yardstick_with_tools(bench: Bench, counts: Sequence[int]) -> Generator[list[Target]]:
    """The yardstick takes the same, from its path."""
    with targets.least(YARDSTICK, bench.folder, bench.direct) as target:
        base = target.url.removesuffix("/v1")
        yield [replace(target, name=str(n), url=f"{base}/t/{n}/v1") for n in counts]


def goals(bench: Bench) -> Table:
    """What issue 4 wants, and whether it is so."""
    table = Table("Goals", ["measured", "at most", ""])
    for what, value, most in bench.goals:
        table.add(what, (value, most, "met" if value <= most else "**missed**"))
    return table
