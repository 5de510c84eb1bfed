"""Whether a process holds no more and is no slower than it was: what is noted, and the judging."""

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from benchmarks.load import Spread
from benchmarks.processes import rss_of
from benchmarks.report import Table

RSS_MORE, SLOWER, FDS_MORE = 4.0, 1.25, 8.0
"""What may be: MiB in all, times, descriptors."""

LEFT_BEHIND, NOISE = 5.0, 2**18
"""Bytes that an answer may leave, which is half of one KiB in 100 answers, or what all of them may.

A soak of which each half has more than 26,000 answers sees such a leak.
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at a moment."""

    at: float
    rss: float
    descriptors: float
    threads: float
    children: float

    @classmethod
    def by(cls, pid: int, at: float) -> "Held":
        proc = Path(f"/proc/{pid}")
        children = (proc / f"task/{pid}/children").read_text().split()
        descriptors, threads = os.listdir(proc / "fd"), os.listdir(proc / "task")
        return cls(at, rss_of(pid), len(descriptors), len(threads), len(children))

    @classmethod
    def median(cls, of: Sequence["Held"], at: float = math.nan) -> "Held":
        """The median of each."""
        return cls(
            at,
            statistics.median(held.rss for held in of),
            statistics.median(held.descriptors for held in of),
            statistics.median(held.threads for held in of),
            statistics.median(held.children for held in of),
        )


@dataclass(frozen=True, slots=True)
class Weight:
    """How many bytes of a process are in use after so many answers, while so many are under way."""

    answers: int
    in_use: int
    under_way: int


@dataclass(frozen=True, slots=True)
class Note:
    """One minute."""

    held: Held
    in_use: float
    answers: int
    excused: int
    cpu_ms: float
    latency: Spread
    direct: Spread


@dataclass(slots=True)
class Minute:
    """What happens in a minute, until it is noted."""

    cpu: float
    """What had been used when it began."""
    answers: int = 0
    excused: int = 0
    latencies: list[float] = field(default_factory=list)
    directs: list[float] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)

    def note(self, at: float, cpu: float) -> Note:
        return Note(
            Held.median(self.held, at),
            statistics.median(w.in_use for w in self.weights) / 2**20 if self.weights else math.nan,
            self.answers,
            self.excused,
            (cpu - self.cpu) * 1000 / self.answers if self.answers else math.nan,
            Spread.of(self.latencies),
            Spread.of(self.directs),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """One property: what was measured and the most that it may be."""

    what: str
    measured: float
    most: float

    @property
    def met(self) -> bool:
        return self.measured <= self.most

    def __str__(self) -> str:
        return f"{self.what}: {self.measured:.3g}, and at most {self.most:.3g} may be"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By how much y grows with x: the median between any two points (Theil and Sen)."""
    pairs = combinations(points, 2)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs if x1 != x2]
    return statistics.median(slopes) if slopes else math.nan


def settled(notes: Sequence[Note]) -> Sequence[Note]:
    """Without the first fifth, and at least one note.

    The allocator's arenas and the collector's generations take minutes to reach their size.
    """
    return notes[max(1, len(notes) // 5) :]


def verdict(notes: Sequence[Note], weights: Sequence[Weight], wrong: int) -> list[Judged]:
    """Whether it stayed as it was."""
    calm = settled(notes)
    third = max(1, len(calm) // 3)
    first, last = calm[:third], calm[-third:]
    before, after = (Held.median([note.held for note in part]) for part in (first, last))
    more = calm[-1].held.rss - calm[0].held.rss
    fds = after.descriptors - before.descriptors
    return [
        left_behind(weights),
        Judged("memory, last minute less first settled one (MiB)", more, RSS_MORE),
        Judged("p50 of whole answers, last third / first third", slowed(first, last), SLOWER),
        Judged("file descriptors, last third less first", fds, FDS_MORE),
        Judged("threads, last third less first", after.threads - before.threads, 1),
        Judged("children, last third less first", after.children - before.children, 2),
        Judged("wrong answers", wrong, 0),
    ]


def left_behind(weights: Sequence[Weight]) -> Judged:
    """Bytes that each answer of the second half has left, seen at moments that were not busy."""
    half = [each for each in weights if each.answers >= weights[-1].answers / 2]
    usual = statistics.median(each.under_way for each in half)
    left = slope([(each.answers, each.in_use) for each in half if each.under_way <= usual])
    answers = max(half[-1].answers - half[0].answers, 1)
    return Judged("bytes in use that an answer leaves", left, max(LEFT_BEHIND, NOISE / answers))


def slowed(first: Sequence[Note], last: Sequence[Note]) -> float:
    """How much slower it has become, where the machine itself has not (asked directly)."""
    machine = statistics.median(n.direct.p50 for n in last)
    machine /= statistics.median(n.direct.p50 for n in first)
    ours = statistics.median(n.latency.p50 for n in last)
    ours /= statistics.median(n.latency.p50 for n in first)
    return ours / max(1.0, machine)


def verdict_table(judged: Sequence[Judged], title: str) -> Table:
    table = Table(title, ["measured", "at most", ""])
    for each in judged:
        figures = (float(each.measured), float(each.most))
        table.add(each.what, (*figures, "met" if each.met else "**missed**"))
    return table
