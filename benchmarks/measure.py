"""What is measured of one target, with the load and the clocks."""

import json
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks.load import Measured, Plan, Spread
from benchmarks.processes import Process, cores, python, started, tell
from benchmarks.scenarios import IDLE, PACED, Scenario
from benchmarks.targets import Target

FEWEST, MOST = 32, 50_000
"""Answers in one slice."""

SLICES = 3


class Load:
    """The process that makes the load."""

    def __init__(self, process: Process) -> None:
        self._pipes = process.popen

    def run(self, plan: Plan) -> Measured:
        """Carry out a plan. What a plan with `hold` has opened stays open until `release`."""
        tell(self._pipes.stdin, asdict(plan))
        assert self._pipes.stdout is not None
        line = self._pipes.stdout.readline()
        if not line:
            raise RuntimeError("the load generator has ended; see its log")
        told = json.loads(line)
        spreads = {name: Spread(**told[name]) for name in ("latency", "first", "delay")}
        return Measured(**{**told, **spreads})

    def release(self) -> None:
        tell(self._pipes.stdin, None)


@contextmanager
def loading(folder: Path) -> Generator[Load]:
    """Start the load generator, beside the inference server."""
    log = folder / "load.log"
    with started(python("benchmarks.load"), cores()[1], log=log, talk=True) as process:
        yield Load(process)


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of some load on one target."""

    cpu_ms: float = math.nan
    """Milliseconds of the server's CPU for each answer."""
    per_second: float = math.nan
    latency: Spread = field(default_factory=Spread)
    first: Spread = field(default_factory=Spread)
    delay: Spread = field(default_factory=Spread)
    errors: int = 0
    problems: tuple[str, ...] = ()


def plan_for(target: Target, scenario: Scenario, users: int, count: int) -> Plan:
    return Plan(
        host=target.host,
        port=target.port,
        path=target.chat,
        headers=dict(target.headers),
        body=json.dumps(scenario.body),
        users=users,
        count=count,
        stream=scenario.stream,
        tokens=scenario.tokens if scenario.known else None,
        stamped=scenario is PACED,
        hold=scenario is IDLE,
    )


Job = tuple[Target, Plan]


def measure(load: Load, jobs: Sequence[Job], seconds: float) -> list[Cell]:
    """Load targets for about so long each, in slices that take turns.

    What else runs on the machine only ever adds to what a slice costs, so the best one counts; and
    all of them have the same noise, so that ratios hold on a busy machine too.
    """
    sized = [sized_for(load, job, seconds) for job in jobs]
    slices: list[list[Cell]] = [[] for _ in jobs]
    for turn in range(SLICES):
        for cells, (target, plan, most) in zip(slices, sized, strict=True):
            if turn < most:
                cells.append(once(load, target, plan))
    return [best(cells) for cells in slices]


def sized_for(load: Load, job: Job, seconds: float) -> tuple[Target, Plan, int]:
    """The plan of one slice, after a warm-up that shows how fast the target is, and how many."""
    target, plan = job
    warm = load.run(replace(plan, count=max(FEWEST, plan.users)))
    count = int(warm.per_second * seconds) if warm.answers else 0
    slices = max(1, min(SLICES, count // FEWEST))
    return target, replace(plan, count=min(MOST, max(FEWEST, plan.users, count // slices))), slices


def once(load: Load, target: Target, plan: Plan) -> Cell:
    """One slice."""
    before = target.process.cpu() if target.process else math.nan
    measured = load.run(plan)
    used = (target.process.cpu() if target.process else math.nan) - before
    return Cell(
        used * 1000 / measured.answers if measured.answers else math.nan,
        measured.per_second,
        measured.latency,
        measured.first,
        measured.delay,
        measured.errors,
        tuple(measured.problems),
    )


def best(cells: Sequence[Cell]) -> Cell:
    """The best of every figure, and all errors."""
    return Cell(
        min(cell.cpu_ms for cell in cells),
        max(cell.per_second for cell in cells),
        least([cell.latency for cell in cells]),
        least([cell.first for cell in cells]),
        least([cell.delay for cell in cells]),
        sum(cell.errors for cell in cells),
        tuple(problem for cell in cells for problem in cell.problems)[:3],
    )


def least(spreads: Sequence[Spread]) -> Spread:
    """The shortest of every percentile."""
    return Spread(
        min(spread.p50 for spread in spreads),
        min(spread.p99 for spread in spreads),
        min(spread.longest for spread in spreads),
    )
