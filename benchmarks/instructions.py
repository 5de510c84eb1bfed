"""How many instructions an answer and a chunk take: the guard that no noise disturbs.

Needs valgrind (callgrind). The bridge is served as always, but in one process with the inference
server and a user; only while it is asked are instructions counted. The yardstick is counted in the
same way. What the inference server and the user take is counted too, without anything between,
and subtracted.
"""

import asyncio
import gc
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio.to_thread
import uvicorn

from benchmarks import door, inference, targets
from benchmarks.load import Plan, carry_out
from benchmarks.measure import plan_for
from benchmarks.processes import CLEAN, ROOT, free_port, get, python
from benchmarks.report import Table, ratio
from benchmarks.scenarios import BY_NAME, ECHOED, KEY
from benchmarks.servers.least import fastapi_app
from benchmarks.suite import DIRECT, OURS, TITLES, YARDSTICK, progress
from benchmarks.targets import Target

CASES = (
    "whole",
    "streamed",
    "burst",
    "call-whole",
    "four-whole",
    "call-streamed",
    "four-streamed",
)
WARM_UP, COUNTED = 5, 10
OUT = "callgrind.out"
PATIENCE = 300
CHUNK = "one more chunk"
DOOR = "door"


def instructions(folder: Path) -> Iterator[Table]:
    """Count, and tell what one answer takes and what one more chunk of it."""
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    counted = {name: under_callgrind(name, folder) for name in (YARDSTICK, OURS)}
    yield table_of(counted)


def under_callgrind(name: str, folder: Path) -> dict[str, int]:
    """Count one of them in a process of its own; the totals by the names of the dumps."""
    progress(f"{name} under callgrind, which takes a minute")
    (place := folder / name).mkdir()
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    command += [f"--callgrind-out-file={place / OUT}"]
    command += python("benchmarks.instructions", name, str(place))
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**CLEAN, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    found = totals(place)
    if done.returncode or not found:
        raise SystemExit(f"counting {name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return found


def totals(place: Path) -> dict[str, int]:
    """The instructions in each dump, by its name."""
    found: dict[str, int] = {}
    for path in sorted(place.glob(f"{OUT}.*")):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: dump (\S+)", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
        if name and total:
            found[name[1]] = int(total[1])
    return found


def table_of(counted: Mapping[str, Mapping[str, int]]) -> Table:
    """Thousands of instructions for each answer, without the user and the inference server."""
    table = Table(
        "Instructions for one answer (thousands)",
        [*(BY_NAME[name].title for name in CASES), CHUNK, "a call through /mcp"],
    )
    rows = {name: figures(found) for name, found in counted.items()}
    for name, row in rows.items():
        table.add(TITLES[name], row)
    pairs = zip(rows[OURS], rows[YARDSTICK], strict=True)
    table.add("**mcp_bridge / FastAPI + aiohttp**", (ratio(ours, yard) for ours, yard in pairs))
    return table


def figures(found: Mapping[str, int]) -> list[float]:
    """One row: each case, one more chunk of a stream, and a tool call through `/mcp`."""
    each = {
        name: (found[name] - found[f"{DIRECT}-{without_calls(name)}"]) / COUNTED / 1000
        for name in CASES
    }
    more = BY_NAME["burst"].tokens - BY_NAME["streamed"].tokens
    # The yardstick has no such door. What a user takes is about what one takes for a whole answer.
    call = found.get(DOOR, math.nan) - found[f"{DIRECT}-whole"]
    chunk = (each["burst"] - each["streamed"]) / more
    return [*each.values(), chunk, call / COUNTED / 1000]


def without_calls(name: str) -> str:
    """The case that can be asked directly, for there nobody runs calls."""
    scenario = BY_NAME[name]
    return name if not scenario.calls else "streamed" if scenario.stream else "whole"


# In the process that is counted


async def callgrind(*words: str) -> None:
    """Tell callgrind, which has this process under it, what to do."""
    told = await asyncio.create_subprocess_exec(
        "callgrind_control", *words, str(os.getpid()), stdout=subprocess.DEVNULL
    )
    await told.wait()


async def ask(name: str, plan: Plan, count: int) -> None:
    """Ask so many times; the answers must be right."""
    measured = await carry_out(replace(plan, users=1, count=count, patience=PATIENCE))
    if measured.problems:
        raise RuntimeError(f"{name}: {measured.problems}")


async def count(name: str, plan: Plan) -> None:
    """Count the instructions of answers, into a dump of this name."""
    await ask(name, plan, WARM_UP)
    gc.collect()
    gc.disable()  # when it runs is chance; what it costs is in the tables of CPU
    await callgrind("--instr=on")
    await ask(name, plan, COUNTED)
    await callgrind("--instr=off")
    await callgrind(f"--dump={name}")
    gc.enable()


async def count_all(target: Target, direct: Target) -> None:
    """Every case, through the server in this process and directly."""
    root = target.url.removesuffix("/v1")
    async with await inference.serve(direct.port):
        while not await anyio.to_thread.run_sync(answers, f"{root}/readyz"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # nobody tells when its MCP servers are connected
        for name in CASES:
            await count(name, plan_for(target, BY_NAME[name], users=1, count=0))
        for name in {without_calls(name) for name in CASES}:
            plan = plan_for(direct, BY_NAME[name], users=1, count=0)
            await count(f"{DIRECT}-{name}", plan)
        if target.name == OURS:
            request = door.modern(target, "tools/call", door.call_of("a_echo"))
            await count(DOOR, door.plan_of(target, request, ECHOED))


def answers(url: str) -> bool:
    try:
        get(url)
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


class Server(uvicorn.Server):
    """uvicorn's server, which tells when it takes requests."""

    on_start: Callable[[], object]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal is not raised again: it is the end that is wanted here."""
        before = signal.signal(signal.SIGTERM, self.handle_exit)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def serve_yardstick(port: int, direct: Target, on_start: Callable[[], object]) -> None:
    app = fastapi_app(direct.url, 10)
    server = Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False))
    server.on_start = on_start
    server.run()


def serve_bridge(port: int, direct: Target, on_start: Callable[[], None], place: Path) -> None:
    from mcp_bridge import serve
    from mcp_bridge.app import create_app
    from mcp_bridge.config.load import load
    from mcp_bridge.listening import listen
    from mcp_bridge.telemetry.logging import set_up

    config = place / "config.json"
    config.write_text(json.dumps(targets.configuration(direct, targets.three_servers())))
    loaded = load(str(config), {}, {"network": {"port": port}})
    with Path(os.devnull).open("w") as nowhere:
        set_up(loaded.settings, nowhere)
        serve.serve(create_app(loaded), listen(loaded.settings.network), on_start)


def main() -> None:
    name, place = sys.argv[1], Path(sys.argv[2])
    direct = Target(DIRECT, f"http://127.0.0.1:{free_port()}/v1")
    port = free_port()
    headers = {"authorization": f"Bearer {KEY}"}
    target = Target(name, f"http://127.0.0.1:{port}/v1", headers=headers)
    running: list[asyncio.Task[None]] = []

    def on_start() -> None:
        task = asyncio.get_running_loop().create_task(count_all(target, direct))
        task.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGTERM))
        running.append(task)

    if name == OURS:
        serve_bridge(port, direct, on_start, place)
    else:
        serve_yardstick(port, direct, on_start)
    running[0].result()


if __name__ == "__main__":
    main()
