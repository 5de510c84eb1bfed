"""Processes that are started, pinned to a core, looked at, and stopped by their pid. Linux only."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 8.0
CLEAN = {k: v for k, v in os.environ.items() if not k.upper().startswith("MCP_BRIDGE__")}


def cores() -> tuple[set[int], set[int]]:
    """The core of the server that is measured, and those of everything else."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


@dataclass(frozen=True, slots=True)
class Watched:
    """The processes that a server consists of."""

    pids: tuple[int, ...]

    def cpu(self) -> float:
        """Seconds of CPU that they have used, in all their threads, without their children."""
        return sum(map(cpu_of, self.pids))

    def rss(self) -> float:
        """MiB of memory that they hold."""
        return sum(map(rss_of, self.pids))


@dataclass(frozen=True, slots=True)
class Process(Watched):
    """One that we have started."""

    popen: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.popen.pid

    def alive(self) -> bool:
        return self.popen.poll() is None


def cpu_of(pid: int) -> float:
    """utime + stime of a process, from the clock that the kernel has for each (CPUCLOCK_SCHED)."""
    return time.clock_gettime((~pid << 3) | 2)


def rss_of(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


@contextmanager
def started(
    command: Sequence[str],
    on: set[int],
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    talk: bool = False,
) -> Generator[Process]:
    """Run a command on some cores. What it writes goes to `log`; with `talk`, to us."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def prepare() -> None:
        os.sched_setaffinity(0, on)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    where = (log or Path(os.devnull)).open("a")
    with where:
        popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**CLEAN, **(env or {})},
            stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talk else where,
            stderr=where,
            text=True,
            preexec_fn=prepare,
        )
    try:
        yield Process((popen.pid,), popen)
    finally:
        stop(popen)


def stop(popen: subprocess.Popen[str]) -> None:
    popen.terminate()
    try:
        popen.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
    for stream in (popen.stdin, popen.stdout):
        if stream is not None:
            stream.close()


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_url(
    url: str, process: Process, headers: Mapping[str, str] | None = None, body: Any = None
) -> float:
    """Wait until a URL answers 200; the seconds that it took.

    Raises:
        RuntimeError: the process has ended, or it takes too long.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < START_SECONDS:
        if not process.alive():
            raise RuntimeError(f"{process.popen.args!r} ended with {process.popen.returncode}")
        try:
            get(url, headers, body)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.005)
        else:
            return time.perf_counter() - began
    raise RuntimeError(f"{url} did not answer within {START_SECONDS:g} s")


def get(url: str, headers: Mapping[str, str] | None = None, body: Any = None) -> tuple[bytes, Any]:
    """Fetch a URL, or POST JSON to it; the body and the headers."""
    data = None if body is None else json.dumps(body).encode()
    more = {} if body is None else {"content-type": "application/json"}
    request = urllib.request.Request(url, data, {**more, **(headers or {})})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=30
    ) as r:
        return r.read(), r.headers


def tell(stream: IO[str] | None, value: Any) -> None:
    """Write one line of JSON to a process."""
    assert stream is not None
    stream.write(json.dumps(value) + "\n")
    stream.flush()
