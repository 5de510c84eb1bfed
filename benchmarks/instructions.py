"""How many instructions a request and a chunk take: the guard that no noise disturbs.

Needs valgrind (callgrind). The whole application runs in one process under it, asked through ASGI,
with the inference server on the same loop; only while questions are asked are instructions counted.
What the inference server takes of it is a small constant.
"""

import asyncio
import gc
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from starlette.types import ASGIApp

from benchmarks import targets
from benchmarks.inference import serve
from benchmarks.load import Plan, problem_of
from benchmarks.processes import CLEAN, ROOT, free_port, python
from benchmarks.report import Table
from benchmarks.scenarios import BY_NAME, KEY, Scenario
from benchmarks.suite import progress
from benchmarks.targets import Target

CASES = ("whole", "streamed", "burst", "call-streamed")
WARM_UP, COUNTED = 5, 10
OUT = "callgrind.out"
PATIENCE = 300

Message = dict[str, Any]


def instructions(folder: Path) -> Iterator[Table]:
    """Count, and tell what one request takes and what one more chunk takes."""
    if shutil.which("valgrind") is None or shutil.which("callgrind_control") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    progress("counting under callgrind; this takes a minute")
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
    command += [f"--callgrind-out-file={folder / OUT}", *python("benchmarks.instructions")]
    env = {**CLEAN, "PYTHONHASHSEED": "0", "BENCH_FOLDER": str(folder)}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise SystemExit(f"counting failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    yield table_of(totals(folder))


def totals(folder: Path) -> dict[str, int]:
    """The instructions in each dump, by its name."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob(f"{OUT}.*")):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: dump (\S+)", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)", text, re.MULTILINE)
        if name and total:
            found[name[1]] = int(total[1])
    return found


def table_of(counted: Mapping[str, int]) -> Table:
    """Thousands of instructions, less what switching the counting on and off takes."""
    each = {name: (counted[name] - counted["nothing"]) / COUNTED / 1000 for name in CASES}
    table = Table("Instructions (thousands)", ["in the whole application"])
    table.add("one whole answer", [each["whole"]])
    table.add("one streamed answer, 20 chunks", [each["streamed"]])
    table.add("one burst, 200 chunks", [each["burst"]])
    table.add("one streamed answer with a tool call", [each["call-streamed"]])
    more = (BY_NAME["burst"].tokens or 0) - (BY_NAME["streamed"].tokens or 0)
    table.add("one more chunk of a stream", [(each["burst"] - each["streamed"]) / more])
    return table


# In the process that is counted


class Counting:
    """Switches callgrind's counting on and off, from inside."""

    def __init__(self) -> None:
        self._pid = str(os.getpid())

    async def _tell(self, *words: str) -> None:
        told = await asyncio.create_subprocess_exec(
            "callgrind_control", *words, self._pid, stdout=subprocess.DEVNULL
        )
        await told.wait()

    async def on(self) -> None:
        await self._tell("--instr=on")

    async def off(self, name: str) -> None:
        """Stop counting, and keep what was counted under this name."""
        await self._tell("--instr=off")
        await self._tell(f"--dump={name}")


def scope_of(method: str, path: str) -> Message:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"authorization", f"Bearer {KEY}".encode()),
            (b"content-type", b"application/json"),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }


async def through_asgi(app: ASGIApp, scope: Message, body: bytes = b"") -> tuple[int, bytes]:
    """One request; the status and the body of its answer."""
    incoming = [{"type": "http.request", "body": body, "more_body": False}]
    never = asyncio.Event()
    outgoing: list[MutableMapping[str, Any]] = []

    async def receive() -> Message:
        if not incoming:
            await never.wait()
        return incoming.pop()

    async def send(message: MutableMapping[str, Any]) -> None:
        outgoing.append(message)

    await app(scope, receive, send)
    return outgoing[0]["status"], b"".join(message.get("body", b"") for message in outgoing)


async def ask(app: ASGIApp, scenario: Scenario) -> None:
    """One chat request; the answer must be right."""
    scope = scope_of("POST", "/v1/chat/completions")
    _, answer = await through_asgi(app, scope, json.dumps(scenario.body).encode())
    plan = Plan("", 0, "", {}, "", 1, 1, stream=scenario.stream, tokens=scenario.tokens)
    if problem := problem_of(answer, plan, closely=True):
        raise RuntimeError(f"{scenario.name}: {problem}: {answer[:500]!r}")


@asynccontextmanager
async def application(folder: Path) -> AsyncGenerator[ASGIApp]:
    """The bridge in this process, with the inference server and one MCP server, ready."""
    from mcp_bridge.app import create_app
    from mcp_bridge.config.load import load
    from mcp_bridge.telemetry.logging import set_up

    port = free_port()
    config = folder / "instructions.json"
    behind = Target("direct", f"http://127.0.0.1:{port}/v1")
    config.write_text(json.dumps(targets.configuration(behind, targets.three_servers())))
    loaded = load(str(config), {})
    set_up(loaded.settings, io.StringIO())
    app = create_app(loaded)
    async with await serve(port), app.router.lifespan_context(app):
        while (await through_asgi(app, scope_of("GET", "/readyz")))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # nobody tells when they are connected
        yield app


async def count(folder: Path) -> None:
    """Serve, ask, count."""
    counting = Counting()
    async with application(folder) as app:
        await counting.on()
        await counting.off("nothing")
        for name in CASES:
            scenario = BY_NAME[name]
            for _ in range(WARM_UP):
                await ask(app, scenario)
            gc.collect()
            gc.disable()  # when it runs is chance; what it costs is in the tables of CPU
            await counting.on()
            for _ in range(COUNTED):
                await ask(app, scenario)
            await counting.off(name)
            gc.enable()


if __name__ == "__main__":
    uvloop.run(count(Path(os.environ["BENCH_FOLDER"])))
