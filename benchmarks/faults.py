"""What goes wrong in the soak, by a timetable: servers that die, configurations that change.

After each fault everything must be as it was, within `REPAIR_SECONDS`. Until then the tools (or
the model) may be missing; what does not need them must not notice.
"""

import json
import os
import signal
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread

from benchmarks import targets, visits
from benchmarks.processes import Process
from benchmarks.scenarios import SERVERS
from benchmarks.visits import Site, Wrong, read

REPAIR_SECONDS = 30.0
LOOK_SECONDS = 0.1
SENT_SECONDS = 0.1
"""After which a call has reached its server."""

EXTRA = "extra"
"""A server that the configuration has, and has not."""


class Restarted:
    """A server that can be killed, and started again in its old place."""

    def __init__(self, start: Callable[[], AbstractContextManager[Process]]) -> None:
        self._start = start
        self._running = start()
        self._process = self._running.__enter__()

    async def kill_and_restart(self) -> None:
        self._process.popen.kill()
        await anyio.to_thread.run_sync(self._again)

    def _again(self) -> None:
        self.stop()
        self._running = self._start()
        self._process = self._running.__enter__()

    def stop(self) -> None:
        self._running.__exit__(None, None, None)


@contextmanager
def restarted(start: Callable[[], AbstractContextManager[Process]]) -> Generator[Restarted]:
    server = Restarted(start)
    try:
        yield server
    finally:
        server.stop()


@dataclass(slots=True)
class Trouble:
    """Until when something may be missing."""

    tools: bool
    model: bool
    began: float
    ended: float | None = None


@dataclass
class Faults:
    """The timetable, and what it has done."""

    site: Site
    config: Path
    inference: Restarted
    over_http: Restarted
    troubles: list[Trouble] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)
    repairs: list[float] = field(default_factory=list)
    """Seconds until everything was as before."""
    problems: list[str] = field(default_factory=list)
    _victims: Iterator[str] = field(default_factory=lambda: cycle(SERVERS))

    async def run(self, seconds_between: float, until: float) -> None:
        """One fault after the other."""
        timetable: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("an MCP server is killed in mid-call", self.kill_in_a_call),
            ("SIGHUP", self.hang_up),
            ("the MCP server over HTTP is killed", self.kill_over_http),
            ("the configuration changes", self.change),
            ("the inference server is killed", self.kill_inference),
            ("a slow reader", self.slow_reader),
        )
        for name, fault in cycle(timetable):
            if anyio.current_time() + seconds_between > until:
                return
            await anyio.sleep(seconds_between)
            try:
                with anyio.fail_after(REPAIR_SECONDS):
                    await fault()
            except (Wrong, TimeoutError, OSError, aiohttp.ClientError) as exc:
                self.problems.append(f"{name}: {exc!r}")
            self.done[name] = self.done.get(name, 0) + 1

    def excuses(self, kind: visits.Kind, began: float) -> bool:
        """Whether something that a visit needs was missing while it lasted."""
        return any(
            ((kind.tools and trouble.tools) or (kind.model and trouble.model))
            and (trouble.ended is None or trouble.ended >= began)
            for trouble in reversed(self.troubles)
        )

    @contextmanager
    def trouble(self, *, tools: bool = False, model: bool = False) -> Generator[None]:
        trouble = Trouble(tools, model, anyio.current_time())
        self.troubles.append(trouble)
        try:
            yield
        finally:
            trouble.ended = anyio.current_time()
            self.repairs.append(trouble.ended - trouble.began)

    async def ready(self) -> None:
        """Wait until every server is connected and its tool answers."""
        while True:
            async with self.site.get("/readyz") as response:
                if response.status == 200:
                    return
            await anyio.sleep(LOOK_SECONDS)

    async def kill_in_a_call(self) -> None:
        """One server over stdio dies while it is asked. The caller is told, and soon."""
        name = next(self._victims)
        async with self.site.get("/mcp/servers") as response:
            servers = json.loads(await read(response))["servers"]
        pid = next(server["pid"] for server in servers if server["name"] == name)
        with self.trouble(tools=True):
            os.kill(pid, signal.SIGSTOP)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._call, f"{name}_echo")
                await anyio.sleep(SENT_SECONDS)
                os.kill(pid, signal.SIGKILL)
            await self.ready()
            await visits.rest_call(f"{name}_echo", self.site)

    async def _call(self, tool: str) -> None:
        async with self.site.post(f"/mcp/tools/{tool}/call", {"text": "hello"}) as response:
            await read(response, 200, 502, 503, 504)

    async def kill_over_http(self) -> None:
        with self.trouble(tools=True):
            await self.over_http.kill_and_restart()
            while True:
                try:
                    await visits.rest_call(visits.OF_HTTP, self.site)
                except Wrong:
                    await anyio.sleep(LOOK_SECONDS)
                else:
                    return

    async def kill_inference(self) -> None:
        with self.trouble(model=True):
            await self.inference.kill_and_restart()
            while True:
                try:
                    await visits.chat(visits.WHOLE, self.site)
                except Wrong:
                    await anyio.sleep(LOOK_SECONDS)
                else:
                    return

    async def hang_up(self) -> None:
        """The configuration is read again; nobody notices."""
        process = self.site.target.process
        assert process is not None
        os.kill(process.pids[0], signal.SIGHUP)

    async def change(self) -> None:
        """A server comes into the configuration or leaves it; nobody else notices."""
        config: dict[str, Any] = json.loads(self.config.read_text())
        there = config["mcp_servers"].pop(EXTRA, None) is None
        if there:
            config["mcp_servers"][EXTRA] = targets.echo_server(EXTRA, 3)
        written = self.config.with_suffix(".new")
        written.write_text(json.dumps(config))
        written.replace(self.config)
        while True:
            async with self.site.get("/mcp/tools") as response:
                if (f'"{EXTRA}_echo"'.encode() in await read(response)) == there:
                    return
            await anyio.sleep(LOOK_SECONDS)

    async def slow_reader(self) -> None:
        await visits.read_slowly(self.site)
