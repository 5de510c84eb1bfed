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
from benchmarks.load import Spread
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

    def measure(self, targets: Sequence[Target], scenario: Scenario, users: int) -> None:
        """Fill the cells of one column, if they are empty; its targets take turns."""
        able = [target for target in targets if target.bridges_tools or not scenario.calls]
        missing = [t for t in able if (t.name, scenario.name, users) not in self.cells]
        if not missing:
            return
        progress(f"{scenario.title}, {users} at a time")
        jobs = [(target, plan_for(target, scenario, users, 0)) for target in missing]
        cells = measure(self.load, jobs, self.seconds)
        for target, cell in zip(missing, cells, strict=True):
            self.cells[target.name, scenario.name, users] = cell
            self.check(f"{target.name}, {scenario.title}, {users} at a time", cell)

    def cell(self, target: Target, scenario: Scenario, users: int) -> Cell | None:
        """A cell that was filled; None where the target cannot do this."""
        return self.cells.get((target.name, scenario.name, users))

    def check(self, what: str, cell: Cell) -> None:
        """Note what went wrong."""
        if cell.errors:
            self.problems.append(f"{what}: {cell.errors} errors: {'; '.join(cell.problems)}")

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
    for scenario in scenarios:
        bench.measure(measured, scenario, users)
    columns = [scenario.title for scenario in scenarios]
    who = "1 user" if users == 1 else f"{users} users"
    table = Table(f"CPU of the server for one answer, {who} (ms)", columns)
    rates = Table(f"Answers in a second, {who}", columns)
    for target in measured:
        cells = [bench.cell(target, scenario, users) for scenario in scenarios]
        rates.add(title(target), (cell.per_second if cell else None for cell in cells))
        if target.process is not None:
            table.add(title(target), (cell.cpu_ms if cell else None for cell in cells))
    add_ratios(bench, table, users)
    yield table
    yield rates


def add_ratios(bench: Bench, table: Table, users: int) -> None:
    """How much the bridge costs in terms of the yardstick."""
    rows = dict(table.rows)
    if TITLES[YARDSTICK] not in rows or TITLES[OURS] not in rows:
        return
    pairs = list(zip(table.columns, rows[TITLES[OURS]], rows[TITLES[YARDSTICK]], strict=True))
    numbers = [(c, a, b) for c, a, b in pairs if isinstance(a, float) and isinstance(b, float)]
    table.add("**mcp_bridge / FastAPI + aiohttp**", (ratio(a, b) for _, a, b in numbers))
    if users == USERS:
        for column, ours, yardstick in numbers:
            bench.goal(f"CPU, {column}: times the yardstick", ours / yardstick, 2)


# Latency


def latency(bench: Bench, measured: Sequence[Target]) -> Table:
    """What a client waits longer, at one user."""
    table = Table(
        "Latency at one user (ms)",
        ["first chunk p50", "p99", "added p50", "whole answer p50", "p99", "added p50"],
        notes="`added`: more than directly. The stream has 20 chunks.",
    )
    streamed, whole = BY_NAME["streamed"], BY_NAME["whole"]
    for scenario in (streamed, whole):
        bench.measure(measured, scenario, 1)
    direct: Cell | None = None
    for target in measured:
        first, answer = bench.cell(target, streamed, 1), bench.cell(target, whole, 1)
        assert first is not None
        assert answer is not None
        before = direct = direct or replace(first, latency=answer.latency)
        added = first.first.p50 - before.first.p50
        both = (answer.latency.p50, answer.latency.p99, answer.latency.p50 - before.latency.p50)
        table.add(title(target), (first.first.p50, first.first.p99, added, *both))
        if target.name == OURS:
            bench.goal("added to the first chunk at one user, p50 (ms)", added, 0.6)
    return table


def paced(bench: Bench, measured: Sequence[Target]) -> Table:
    """What is added to each chunk of streams that come as a model speaks."""
    streams, turns = 64, 1 if bench.quick else 3
    table = Table(
        f"{streams} streams, a chunk every 20 ms",
        ["delay p50 (ms)", "p99", "longest", "added p50", "added p99", "CPU per chunk (µs)"],
        notes="From when a chunk leaves the inference server until the client has it.",
    )
    progress(f"{streams} paced streams")
    plans = [(target, plan_for(target, PACED, streams, streams)) for target in measured]
    runs = [[once(bench.load, *plan) for plan in plans] for _ in range(turns)]
    direct: Spread | None = None
    for target, cells in zip(measured, zip(*runs, strict=True), strict=True):
        cell = best(cells)
        bench.check(f"{target.name}, paced", cell)
        delay, before = cell.delay, (direct := direct or cell.delay)
        added = (delay.p50 - before.p50, delay.p99 - before.p99)
        each = cell.cpu_ms * 1000 / PACED.tokens
        table.add(title(target), (delay.p50, delay.p99, delay.longest, *added, each))
        if target.name == OURS:
            bench.goal("added to a chunk, 64 streams, p50 (ms)", added[0], 0.1)
            bench.goal("added to a chunk, 64 streams, p99 (ms)", added[1], 1)
    return table


def more_users(bench: Bench, measured: Sequence[Target]) -> Table:
    """Whether it stays as fast with many users."""
    users = (USERS, 256) if bench.quick else (USERS, 64, 256)
    columns = [f"{count} users: answers/s" for count in users]
    columns += [f"{count}: CPU (ms)" for count in users]
    table = Table("Streamed answers, by users", [*columns, "errors"])
    for count in users:
        bench.measure(measured, BY_NAME["streamed"], count)
    for target in measured:
        cells = [bench.cells[target.name, "streamed", count] for count in users]
        errors = sum(cell.errors for cell in cells)
        rates = [cell.per_second for cell in cells]
        table.add(title(target), (*rates, *(cell.cpu_ms for cell in cells), errors))
        if target.name == OURS:
            growth = cells[-1].cpu_ms / cells[0].cpu_ms
            bench.goal("CPU for an answer at 256 users, times that at 16", growth, 1.15)
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
            progress(f"{name} with more and more tools")
            jobs = [(target, plan_for(target, BY_NAME["whole"], USERS, 0)) for target in offered]
            cells = measure(bench.load, jobs, bench.seconds)
            for target, cell in zip(offered, cells, strict=True):
                bench.check(f"{name}, {target.name} tools", cell)
            table.add(TITLES[name], [cell.cpu_ms for cell in cells])
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
