"""Where the time goes: py-spy looks at the bridge while it is loaded.

Only the main thread counts. Samples are added up in four ways: by function with all that it called
(inclusive), by function alone (own), by package, and by what they are charged to: the innermost
function of the bridge, which answers for the libraries that it called.
py-spy is not installed with the project: `.venv/bin/python -m pip install py-spy`.
"""

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Load, loading, plan_for
from benchmarks.processes import ROOT, cores
from benchmarks.report import Table
from benchmarks.scenarios import Scenario
from benchmarks.suite import progress
from benchmarks.targets import Target, bridge, inference

SECONDS, LINES = 8, 30
RATE = 200
"""Samples in a second."""

PY_SPY = Path(sys.executable).with_name("py-spy")
LIBRARY = "site-packages/"
MAIN = "_run_module_as_main"
IDLE = "Runner.run ("
"""The frame under which the loop runs, and waits when it is the innermost."""

STARTING = ("(mcp_bridge/__main__.py)", "(mcp_bridge/cli.py)", "(mcp_bridge/serve.py)")


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares of all samples, from 0 to 1, by what they were in."""

    inclusive: Counter[str]
    own: Counter[str]
    packages: Counter[str]
    charged: Counter[str]
    total: int

    def shares(self, counter: Counter[str], most: int) -> list[tuple[str, float]]:
        return [(name, count / self.total) for name, count in counter.most_common(most)]


def profile_tables(folder: Path, scenarios: Iterable[Scenario]) -> Iterator[Table]:
    """What the CPU of the bridge is spent on, scenario by scenario."""
    if profiler() is None:
        raise SystemExit("py-spy is not there: .venv/bin/python -m pip install py-spy")
    with inference(folder) as direct, bridge(folder, direct) as ours, loading(folder) as load:
        for scenario in scenarios:
            progress(f"profiling: {scenario.title}")
            found = profile(load, ours, scenario, SECONDS, folder / "profile.raw")
            for title, counter in (("charged to", found.charged), ("own", found.own)):
                table = Table(f"{scenario.title}: {title}", ["of the samples"])
                for name, share in found.shares(counter, LINES):
                    table.add(f"`{name}`", [f"{share:.1%}"])
                yield table


def profiler() -> str | None:
    """The command, where it is installed."""
    return str(PY_SPY) if PY_SPY.exists() else shutil.which("py-spy")


def profile(load: Load, target: Target, scenario: Scenario, seconds: float, raw: Path) -> Profile:
    """Watch a target under 16 users."""
    spy = profiler()
    assert spy is not None
    assert target.process is not None
    warm = load.run(plan_for(target, scenario, 16, 64))
    command = [spy, "record", "--pid", str(target.process.pids[0]), "--format", "raw"]
    command += ["--rate", str(RATE), "--duration", str(int(seconds)), "--output", str(raw)]
    command += ["--full-filenames"]
    with subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores()[1])), *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as watching:
        while watching.poll() is None:
            load.run(plan_for(target, scenario, 16, max(32, int(warm.per_second / 2))))
    return read(raw.read_text().splitlines())


def read(lines: Iterable[str]) -> Profile:
    """Add up samples in the format `frame;frame;frame count`."""
    found = Profile(Counter(), Counter(), Counter(), Counter(), 0)
    total = 0
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = [shown(frame) for frame in stack.split(";")]
        if MAIN not in frames[0] or frames[-1].startswith(IDLE):
            continue
        samples = int(count)
        total += samples
        found.inclusive.update(dict.fromkeys(frames, samples))
        found.own[frames[-1]] += samples
        found.packages[package_of(frames[-1])] += samples
        found.charged[charged_to(frames)] += samples
    return replace(found, total=total)


def charged_to(frames: list[str]) -> str:
    """The innermost function of the bridge; else the outermost of a library, below the loop."""
    ours = [frame for frame in frames if " (mcp_bridge/" in frame and not frame.endswith(STARTING)]
    if ours:
        return ours[-1]
    loop = max((n for n, frame in enumerate(frames) if frame.startswith(IDLE)), default=-1)
    return frames[min(loop + 1, len(frames) - 1)]


def shown(frame: str) -> str:
    """`function (module/file.py)`, without the line and without this machine's folders."""
    name, _, place = frame.rpartition(" (")
    path = place.rstrip(")").rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({shortened(path)})"


def shortened(path: str) -> str:
    if LIBRARY in path:
        return path.partition(LIBRARY)[2]
    if path.startswith(f"{ROOT}/"):
        return path.removeprefix(f"{ROOT}/")
    return "/".join(path.split("/")[-2:])


def package_of(frame: str) -> str:
    place = frame.rpartition(" (")[2].rstrip(")")
    parts = place.split("/")
    return "/".join(parts[:2]) if parts[0] == "mcp_bridge" else parts[0]
