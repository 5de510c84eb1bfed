"""Connections under test: started, watched, and stopped."""

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from mcp_bridge.config.settings import McpServer
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.tools.source import Answerer, CallContext
from mcp_bridge.types import Json

SCRIPTED = str(Path(__file__).parent.parent / "servers" / "scripted.py")
PATIENCE = 20
"""Seconds after which a test fails instead of waiting: much more than it ever needs."""


def scripted(*behaviours: str, log: Path | None = None, **settings: Any) -> McpServer:
    """The settings of a scripted stdio server."""
    env = {"SCRIPT_LOG": str(log)} if log else {}
    return McpServer.model_validate(
        {
            "command": sys.executable,
            "args": (SCRIPTED, *behaviours),
            "env": env | settings.pop("env", {}),
            **settings,
        }
    )


class Watch:
    """A running connection, and how to wait for what it becomes."""

    def __init__(self, settings: McpServer, name: str = "x", **options: Any) -> None:
        self.changes: list[str] = []
        self._changed = anyio.Event()
        self.connection = Connection(name, settings, on_change=self._note, **options)
        self.scope = anyio.CancelScope()

    def _note(self, kind: str) -> None:
        self.changes.append(kind)
        event, self._changed = self._changed, anyio.Event()
        event.set()

    async def until(self, true: Callable[[Connection], bool]) -> None:
        with anyio.fail_after(PATIENCE):
            while not true(self.connection):
                await self._changed.wait()

    async def until_connected_again(self, since: float) -> None:
        await self.until(lambda c: c.state == "connected" and c.status()["since"] > since)

    async def call(
        self, tool: str, context: CallContext | None = None, /, **arguments: Any
    ) -> Json:
        with anyio.fail_after(PATIENCE):
            return await self.connection.call(tool, arguments, context or CallContext())


@asynccontextmanager
async def running(
    settings: McpServer,
    *,
    default_answerer: Answerer | None = None,
    answers: Json | None = None,
) -> AsyncGenerator[Watch]:
    """A connection whose first attempt has ended."""
    watch = Watch(settings, default_answerer=default_answerer, answers=answers)
    async with anyio.create_task_group() as tasks:

        async def owner() -> None:
            with watch.scope:
                await watch.connection.run()

        tasks.start_soon(owner)
        try:
            with anyio.fail_after(PATIENCE):
                await watch.connection.settled()
            yield watch
        finally:
            tasks.cancel_scope.cancel()


def text(result: Json) -> str:
    value = result["content"][0]["text"]
    assert isinstance(value, str)
    return value


def entries(log: Path) -> list[Json]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def logged(log: Path, wanted: Callable[[Json], bool]) -> Json:
    """The first entry of a scripted server's log like this, once it is there."""
    with anyio.fail_after(PATIENCE):
        while True:
            for entry in entries(log):
                if wanted(entry):
                    return entry
            await anyio.sleep(0.02)  # another process writes it: there is nothing to wait for


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def dead(*pids: int) -> None:
    with anyio.fail_after(PATIENCE):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110  # the kernel tells only the parent
            await anyio.sleep(0.02)


def children() -> set[int]:
    """Our child processes, reaped or not."""
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(entry.name))
    return found
