"""The soak: the bridge under steady load of every kind, with faults, for a long time.

    scripts/bench --soak 30

The load is about a third of what one core can do (`benchmarks/visits.py`), the faults come by a
timetable (`benchmarks/faults.py`). Each minute it is noted what the bridge holds and how fast it
is; at the end it must hold no more and be no slower than before (`benchmarks/verdict.py`). How much
of its memory is in use it says itself (`benchmarks/servers/weighed.py`).
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import uvloop
from anyio.abc import TaskGroup

from benchmarks import door, targets
from benchmarks.faults import Faults, restarted
from benchmarks.processes import Process, Watched, await_url, cores, free_port, python, started
from benchmarks.report import Table
from benchmarks.suite import progress
from benchmarks.targets import Target
from benchmarks.verdict import Held, Minute, Note, Weight, verdict, verdict_table
from benchmarks.visits import DIRECT_KIND, KINDS, WHOLE_KIND, Kind, Site, Wrong

SHARE = 1 / 3
"""Of a core, which the bridge may use."""

FIRST_RATE, SLOWEST, FASTEST = 50.0, 10.0, 400.0
"""Visits in a second, before it is known what they cost, and at least and at most."""

CALIBRATE_SECONDS = 15.0
MOST_OPEN = 200
PATIENCE = 30.0
NOTE_SECONDS, FEWEST_NOTES = 60.0, 10
WEIGHED = 4
"""How often in the time of a note its memory is weighed."""

FAULT_SECONDS, FEWEST_FAULTS = 10.0, 6
KEPT_SECONDS = 30
"""How long the bridge keeps its half of a mixed turn: an hour's worth would look like a leak."""

SCALE = "logs/in-use"
"""Not beside the configuration, whose folder the bridge watches."""

PROBLEMS = 20


@dataclass
class Soak:
    """A soak that is under way, and what it has found."""

    site: Site
    process: Watched
    seconds: float
    faults: Faults
    scale: Path
    """Where the bridge writes how much memory it uses."""
    rate: float = FIRST_RATE
    notes: list[Note] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    visits: Counter[str] = field(default_factory=Counter)
    held_back: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)
    _minute: Minute = field(default_factory=lambda: Minute(0))
    _open: int = 0
    _began: float = 0.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return anyio.current_time() - self._began

    async def run(self) -> None:
        self._began = anyio.current_time()
        self._minute = Minute(self.process.cpu())
        until = self._began + self.seconds
        between = min(FAULT_SECONDS, self.seconds / (FEWEST_FAULTS + 1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._note)
            tasks.start_soon(self._weigh)
            tasks.start_soon(self.faults.run, between, until)
            tasks.start_soon(self._calibrate)
            await self._load(tasks, until)
        self.problems += self.faults.problems
        self.wrong += len(self.faults.problems)

    async def _calibrate(self) -> None:
        """Find out what a visit costs, and how many of them are the share of a core."""
        await anyio.sleep(seconds := min(CALIBRATE_SECONDS, self.seconds / 10))
        before, first = self.process.cpu(), self.visits.total()
        await anyio.sleep(seconds)
        if done := self.visits.total() - first:
            rate = SHARE * done / (self.process.cpu() - before)
            self.rate = min(FASTEST, max(SLOWEST, rate))
        progress(f"{self.rate:.0f} visits a second from now on")

    async def _load(self, tasks: TaskGroup, until: float) -> None:
        """Visits at a steady rate, whatever becomes of them."""
        dice = random.Random(1)
        deck: list[Kind] = []
        due = anyio.current_time()
        while (now := anyio.current_time()) < until:
            if not deck:
                deck = [kind for kind in KINDS for _ in range(kind.weight)]
                dice.shuffle(deck)
            kind = deck.pop()
            if self._open < MOST_OPEN:
                self._open += 1
                tasks.start_soon(self._visit, kind)
            else:
                self.held_back += 1
            due = max(due + 1 / self.rate, now - 1)
            await anyio.sleep(max(0.0, due - now))

    async def _visit(self, kind: Kind) -> None:
        began, clock = anyio.current_time(), time.perf_counter()
        try:
            with anyio.fail_after(PATIENCE):
                await kind.visit(self.site)
        # Whatever a client library may raise is an answer that is not as it should be.
        except Exception as exc:
            self._failed(kind, began, exc)
        else:
            self._went_well(kind, time.perf_counter() - clock)
        finally:
            self._open -= 1

    def _failed(self, kind: Kind, began: float, exc: Exception) -> None:
        if self.faults.excuses(kind, began):
            self._minute.excused += 1
            return
        self.wrong += 1
        if len(self.problems) < PROBLEMS:
            what = str(exc) if isinstance(exc, Wrong) else repr(exc)
            self.problems.append(f"{kind.name}, after {began - self._began:.1f} s: {what}")

    def _went_well(self, kind: Kind, seconds: float) -> None:
        if kind is DIRECT_KIND:
            self._minute.directs.append(seconds)
            return
        self.visits[kind.name] += 1
        self._minute.answers += 1
        if kind is WHOLE_KIND:
            self._minute.latencies.append(seconds)

    @property
    def every(self) -> float:
        """Seconds from note to note."""
        return min(NOTE_SECONDS, self.seconds / FEWEST_NOTES)

    async def _weigh(self) -> None:
        """Have the bridge say how much memory it uses, again and again."""
        while self.now < self.seconds:
            await anyio.sleep(self.every / WEIGHED)
            self.scale.unlink(missing_ok=True)
            os.kill(self.process.pids[0], signal.SIGUSR2)
            with anyio.fail_after(PATIENCE):
                while not self.scale.exists():  # noqa: ASYNC110  # it is written by another process
                    await anyio.sleep(0.01)
            in_use = int(self.scale.read_text())
            weight = Weight(self.visits.total(), in_use, self._open)
            self.weights.append(weight)
            self._minute.weights.append(weight)

    async def _note(self) -> None:
        """Look once in a second or so, and note each minute."""
        every = self.every
        while len(self.notes) < round(self.seconds / every):
            await anyio.sleep(min(1.0, every / 5))
            held = Held.by(self.process.pids[0], self.now)
            self._minute.held.append(held)
            if held.at < every * (len(self.notes) + 1):
                continue
            cpu = self.process.cpu()
            self.notes.append(note := self._minute.note(held.at, cpu))
            self._minute = Minute(cpu)
            progress(
                f"{held.at:.0f} s: {note.held.rss:.1f} MiB, {note.in_use:.1f} in use, "
                f"{note.held.descriptors:.0f} fds, "
                f"{note.answers} answers, {note.cpu_ms:.2f} ms of CPU each, "
                f"p50 {note.latency.p50:.1f} ms, {self.wrong} wrong, {note.excused} excused"
            )


# What it found


def minutes_of(soak: Soak) -> Table:
    columns = ["RSS (MiB)", "in use (MiB)", "fds", "threads", "children", "answers", "excused"]
    columns += ["CPU per answer (ms)", "whole p50 (ms)", "p99", "directly p50"]
    notes = f"{soak.rate:.0f} visits in a second. `excused`: wrong while what they need was down. "
    notes += "`directly`: whole answers of the inference server, by the same client."
    table = Table("Minute by minute", columns, notes=notes)
    for note in soak.notes:
        held, times = note.held, (note.latency.p50, note.latency.p99, note.direct.p50)
        counts = [round(count) for count in (held.descriptors, held.threads, held.children)]
        counts += [note.answers, note.excused]
        memory = f"{held.rss:.1f}", f"{note.in_use:.1f}"
        table.add(f"{held.at / 60:.1f}", (*memory, *counts, note.cpu_ms, *times))
    return table


def what_happened(soak: Soak) -> Table:
    table = Table("What happened", ["times"])
    for name, count in (*soak.visits.items(), *soak.faults.done.items()):
        table.add(name, [count])
    table.add("not begun, for too many were open", [soak.held_back])
    if repairs := soak.faults.repairs:
        table.add("longest repair (s)", [max(repairs)])
    return table


# The whole of it


def soak_tables(folder: Path, minutes: float, problems: list[str]) -> Generator[Table]:
    """Run it, and note what was wrong."""
    with ExitStack() as stack:
        target, direct, faults = everything(folder, stack)
        scale = folder / SCALE
        stack.enter_context(on_the_cores_of_the_load())
        progress(f"a soak of {minutes:g} minutes")
        soak = uvloop.run(soaked(target, direct, minutes * 60, faults, scale))
    judged = verdict(soak.notes, soak.weights, soak.wrong)
    problems += soak.problems
    problems += [str(each) for each in judged if not each.met]
    yield minutes_of(soak)
    yield what_happened(soak)
    yield verdict_table(judged, f"Verdict after {minutes:g} minutes")


MakeFaults = partial[Faults]


def everything(folder: Path, stack: ExitStack) -> tuple[Target, Target, MakeFaults]:
    """Start the servers and the bridge: three MCP servers over stdio and one over HTTP."""
    (folder / "logs").mkdir(exist_ok=True)
    port, sdk_port, others = free_port(), free_port(), cores()[1]
    inference = stack.enter_context(restarted(partial(inference_at, folder, port, others)))
    over_http = stack.enter_context(restarted(partial(sdk_at, sdk_port, others)))
    direct = Target("direct", f"http://127.0.0.1:{port}/v1")
    sdk = {"url": f"http://127.0.0.1:{sdk_port}{door.PLACE}", "required": True}
    servers = {**targets.three_servers(), "sdk": sdk}
    more = {"tools": {"memory_ttl": KEPT_SECONDS}}
    run = "benchmarks.servers.weighed", str(folder / SCALE)
    target = stack.enter_context(targets.bridge(folder, direct, servers, more, run))
    config = folder / f"bridge-{target.port}.json"
    return target, direct, partial(Faults, config=config, inference=inference, over_http=over_http)


@contextmanager
def inference_at(folder: Path, port: int, on: set[int]) -> Generator[Process]:
    command = python("benchmarks.inference", "--port", str(port))
    with started(command, on, log=folder / "logs" / "inference.log") as process:
        await_url(f"http://127.0.0.1:{port}/v1/models", process)
        yield process


@contextmanager
def sdk_at(port: int, on: set[int]) -> Generator[Process]:
    command = python("benchmarks.servers.sdk", "http", "--port", str(port))
    with started(command, on) as process:
        target = Target("sdk", f"http://127.0.0.1:{port}/v1")
        _, headers, body = door.modern(target, "tools/list", {})
        await_url(f"http://127.0.0.1:{port}{door.PLACE}", process, headers, body)
        yield process


@contextmanager
def on_the_cores_of_the_load() -> Generator[None]:
    """The core of the bridge is the bridge's."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores()[1])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


async def soaked(
    target: Target, direct: Target, seconds: float, faults: MakeFaults, scale: Path
) -> Soak:
    connector = aiohttp.TCPConnector(limit=0)
    assert target.process is not None
    async with aiohttp.ClientSession(connector=connector) as http:
        site = Site(http, target, direct)
        soak = Soak(site, target.process, seconds, faults(site), scale)
        await soak.run()
    return soak
