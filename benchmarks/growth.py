"""Memory over many requests: after them it must be what it was before.

scripts/bench --requests 100000
"""

from collections.abc import Iterator
from dataclasses import replace

from benchmarks import targets
from benchmarks.measure import plan_for
from benchmarks.report import Table
from benchmarks.scenarios import BY_NAME, Scenario
from benchmarks.suite import USERS, Bench, progress
from benchmarks.targets import Target
from benchmarks.verdict import Judged, verdict_table

PARTS = 10
WARM = 20
"""One part in so many comes first, for caches and pools grow to a size and stay there."""

RSS_MORE = 2.0
"""MiB that are noise."""

PATIENCE = 900.0


def growth(bench: Bench, count: int) -> Iterator[Table]:
    """Ask for `count` whole answers, and a fifth as many with a tool call."""
    columns = ["before", *(f"{part / PARTS:.0%}" for part in range(1, PARTS + 1))]
    table = Table(f"RSS while answers are given, {USERS} at a time (MiB)", columns)
    judged = []
    with targets.bridge(bench.folder, bench.direct) as ours:
        counts = {BY_NAME["whole"]: count, BY_NAME["call-whole"]: count // 5}
        for scenario, many in counts.items():
            ask(bench, ours, scenario, many // WARM)
        for scenario, many in counts.items():
            what = f"{many:,} answers: {scenario.title}"
            row = list(sizes(bench, ours, scenario, many))
            table.add(what, [f"{mib:.1f}" for mib in row])
            judged.append(Judged(f"{what}: MiB more than before", row[-1] - row[0], RSS_MORE))
    yield table
    yield verdict_table(judged, "Growth")
    bench.problems += [str(each) for each in judged if not each.met]


def sizes(bench: Bench, target: Target, scenario: Scenario, count: int) -> Iterator[float]:
    """How large the server is before, and after each part."""
    assert target.process is not None
    yield target.process.rss()
    for part in range(1, PARTS + 1):
        ask(bench, target, scenario, count // PARTS)
        rss = target.process.rss()
        progress(f"{scenario.title}: {count // PARTS * part:,} answers, {rss:.1f} MiB")
        yield rss


def ask(bench: Bench, target: Target, scenario: Scenario, count: int) -> None:
    plan = plan_for(target, scenario, USERS, max(count, USERS))
    measured = bench.load.run(replace(plan, patience=PATIENCE))
    bench.problems += [f"{scenario.title}: {problem}" for problem in measured.problems]
