"""What is measured of one target, with the load and the clocks."""

import json
import math
from collections.abc import Generator, Iterable
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
    """One figure of a table: an amount of load on one target."""

    measured: Measured
    cpu_ms: float = math.nan
    """Milliseconds of the server's CPU for each answer."""
    errors: int = 0
    problems: tuple[str, ...] = field(default=())


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


def measure(load: Load, target: Target, plan: Plan, seconds: float) -> Cell:
    """Load a target for about so long, in slices, after a warm-up that finds out its speed.

    Others on the machine only ever add to what a slice costs, so the cheapest is the figure.
    """
    warm = load.run(replace(plan, count=max(FEWEST, plan.users)))
    if not warm.answers:
        return Cell(warm, errors=warm.errors, problems=tuple(warm.problems))
    count = int(warm.per_second * seconds)
    slices = max(1, min(SLICES, count // FEWEST))
    plan = replace(plan, count=min(MOST, max(FEWEST, plan.users, count // slices)))
    return best([once(load, target, plan) for _ in range(slices)])


def once(load: Load, target: Target, plan: Plan) -> Cell:
    """One slice."""
    before = target.process.cpu() if target.process else math.nan
    measured = load.run(plan)
    used = (target.process.cpu() if target.process else math.nan) - before
    each = used * 1000 / measured.answers if measured.answers else math.nan
    return Cell(measured, each, measured.errors, tuple(measured.problems))


def best(cells: Iterable[Cell]) -> Cell:
    """The cheapest slice (the quickest, where nobody's CPU is known), with all errors."""
    cells = list(cells)
    chosen = min(cells, key=lambda cell: (cell.cpu_ms, cell.measured.latency.p50))
    if math.isnan(chosen.cpu_ms):
        chosen = min(cells, key=lambda cell: cell.measured.latency.p50)
    problems = tuple(problem for cell in cells for problem in cell.problems)
    return replace(chosen, errors=sum(cell.errors for cell in cells), problems=problems[:3])
