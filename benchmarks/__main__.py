"""The command: `scripts/bench`, which is `python -m benchmarks`. See docs/performance.md."""

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from benchmarks import door, suite, targets
from benchmarks.doors import doors
from benchmarks.growth import growth
from benchmarks.instructions import instructions
from benchmarks.measure import loading
from benchmarks.processes import Watched
from benchmarks.profiling import profile_tables
from benchmarks.report import Table
from benchmarks.scenarios import BY_NAME, TABLE, Scenario
from benchmarks.soak import soak_tables
from benchmarks.suite import OURS, USERS, YARDSTICK, Bench, progress
from benchmarks.targets import Target

SECONDS, QUICK_SECONDS = 1.2, 0.3
DOORS = "doors"
INFERENCE_PORT = 9099


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, in a minute")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=[*(scenario.name for scenario in TABLE), DOORS],
        help="only this one, and nothing but it (may be given again)",
    )
    parser.add_argument("--markdown", action="store_true", help="the report as Markdown")
    parser.add_argument("--seconds", type=float, help="how long each figure is measured")
    parser.add_argument("--instructions", action="store_true", help="count instructions instead")
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    parser.add_argument(
        "--soak", type=float, metavar="MINUTES", help="load, faults and time instead"
    )
    parser.add_argument("--requests", type=int, metavar="N", help="memory over N answers instead")
    other = parser.add_argument_group("measuring another server")
    other.add_argument("--against", metavar="BASE_URL", help="of any OpenAI-compatible server")
    other.add_argument("--api-key", help="what it wants to be sent")
    other.add_argument(
        "--pid", type=int, action="append", help="its process, to know its CPU (may be given again)"
    )
    other.add_argument("--model", help="a model of its own, when ours is not behind it")
    other.add_argument(
        "--inference-port",
        type=int,
        default=INFERENCE_PORT,
        help=f"where our inference server is for it to use (default {INFERENCE_PORT})",
    )
    return parser.parse_args()


def main() -> None:
    given = arguments()
    # As with Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "logs").mkdir()
        problems: list[str] = []
        if given.instructions:
            tables = instructions(folder)
        elif given.profile:
            tables = profile_tables(folder, chosen(given))
        elif given.soak:
            tables = soak_tables(folder, given.soak, problems)
        else:
            load = stack.enter_context(loading(folder))
            seconds = given.seconds or (QUICK_SECONDS if given.quick else SECONDS)
            port = given.inference_port if given.against else None
            direct = stack.enter_context(targets.inference(folder, port))
            bench = Bench(folder, load, direct, seconds, given.quick, problems=problems)
            tables = measurements(bench, given)
        sys.exit(print_all(tables, given, problems))


def print_all(tables: Iterator[Table], given: argparse.Namespace, problems: Sequence[str]) -> int:
    """Print each table when it is there, and then the problems that it found; the exit code."""
    print(about_this_machine() + "\n", flush=True)
    for table in tables:
        print(table.markdown() if given.markdown else table.text(), flush=True)
    for problem in problems:
        print(f"wrong: {problem}")
    return 1 if problems else 0


def about_this_machine() -> str:
    packages = ("uvicorn", "uvloop", "httptools", "fastapi", "aiohttp", "mcp", "openai")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0))
    busy = os.getloadavg()[0]
    return (
        f"{cores} cores (load {busy:.1f} at the beginning), Python {platform.python_version()}, "
        f"Linux {platform.release().split('-')[0]}; {versions}"
    )


def measurements(bench: Bench, given: argparse.Namespace) -> Iterator[Table]:
    """What was asked for."""
    if given.requests:
        yield from growth(bench, given.requests)
    elif given.against:
        yield from another(bench, given)
    else:
        if given.scenario != [DOORS]:
            yield from report(bench, given)
        if given.scenario and DOORS in given.scenario:
            yield from doors(bench)


def chosen(given: argparse.Namespace) -> list[Scenario]:
    """The scenarios that were asked for, else all of the table."""
    names = [name for name in given.scenario or () if name != DOORS]
    return [BY_NAME[name] for name in names] if given.scenario else list(TABLE)


def report(bench: Bench, given: argparse.Namespace) -> Iterator[Table]:
    """The whole report; with `--scenario` only the tables of these."""
    with ExitStack() as stack:
        measured = everything(bench, stack)
        idle = {t.name: t.process.rss() for t in measured if t.process is not None}
        yield from suite.cpu_tables(bench, measured, chosen(given), USERS)
        if given.scenario:
            yield from suite.cpu_tables(bench, measured, chosen(given), 1)
            return
        if not given.quick:
            yield from suite.cpu_tables(bench, measured, TABLE, 1)
        yield suite.latency(bench, measured)
        yield suite.paced(bench, measured)
        important = [t for t in measured if t.name in (YARDSTICK, OURS)]
        yield suite.more_users(bench, important)
        yield suite.memory(bench, idle, important)
    yield suite.starts(bench)
    if not given.quick:
        yield suite.tools(bench)
    yield door.calls(bench)
    yield door.lists(bench)
    yield suite.goals(bench)


def everything(bench: Bench, stack: ExitStack) -> list[Target]:
    """All that is compared, running side by side."""
    progress("starting")
    folder, direct = bench.folder, bench.direct
    measured = [direct]
    if targets.nginx_is_there():
        measured.append(stack.enter_context(targets.nginx(folder, direct)))
    else:
        progress("nginx is not installed: without it")
    if not bench.quick:
        measured.append(stack.enter_context(targets.least("bare", folder, direct)))
    measured.append(stack.enter_context(targets.least(YARDSTICK, folder, direct)))
    measured.append(stack.enter_context(targets.bridge(folder, direct)))
    return measured


def another(bench: Bench, given: argparse.Namespace) -> Iterator[Table]:
    """Any OpenAI-compatible server, beside the direct way to our inference server."""
    headers = {"authorization": f"Bearer {given.api_key}"} if given.api_key else {}
    watched = Watched(tuple(given.pid)) if given.pid else None
    target = Target(given.against, given.against, watched, headers)
    scenarios = chosen(given)
    if given.model:
        # A real model says what it likes, and calls no echo.
        scenarios = [
            replace(scenario, model=given.model, known=False)
            for scenario in scenarios
            if not scenario.calls
        ]
    measured = [target] if given.model else [bench.direct, target]
    for users in (USERS, 1):
        yield from suite.cpu_tables(bench, measured, scenarios, users)
    yield suite.latency(bench, measured)
    if not given.model:
        yield suite.paced(bench, measured)
    if watched is not None:
        yield memory_of(target, watched)


def memory_of(target: Target, watched: Watched) -> Table:
    table = Table("Memory after all this (MiB)", ["RSS"])
    table.add(target.name, [watched.rss()])
    return table


if __name__ == "__main__":
    main()
