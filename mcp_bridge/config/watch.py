"""The configuration is read again when one of its files changes, and when somebody asks.

Once in `LOOK_SECONDS` the files are looked at: not for reports of the system, which come for every
other file in the folder too (a log costs two for each line), and not at all from network mounts.
A look asks for size, times and inode of what a path leads to, through all its links, so it sees
what is written in place, what an editor or `mv` puts there, and Kubernetes swapping its `..data`.
Only where these differ is the content read, and only other content is a change. Every tenth look
reads it anyway, for a mount may keep what it knows of a file for long, until the file is opened.
"""

import os
import pathlib
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import anyio
import anyio.to_thread

from mcp_bridge.config.load import Loaded
from mcp_bridge.config.substitute import digest
from mcp_bridge.errors import ConfigError

LOOK_SECONDS = 1.0
READ_ANYWAY = 10
"""Every so many looks."""

FRESH_NS = 2_000_000_000
"""A file that was written so short ago may be written again without another time to show it."""

OnLoaded = Callable[[Loaded], Awaitable[None]]
OnRefused = Callable[[ConfigError], Awaitable[None]]
T = TypeVar("T")


class Watcher:
    """Reads the configuration again when it changes.

        watcher = Watcher(loaded, lambda: load(path, overrides=overrides))
        task_group.start_soon(watcher.run, apply, report)
        ...
        watcher.reload()  # SIGHUP

    A configuration that cannot be used is handed to `on_refused`, and watching goes on: the file's
    next version may be good. A URL is not polled: it is read again with everything else.
    """

    def __init__(
        self, loaded: Loaded, load: Callable[[], Loaded], every: float = LOOK_SECONDS
    ) -> None:
        self._load = load
        self._every = every
        self._files = files_of(loaded)
        self._asked = anyio.Event()

    def reload(self) -> None:
        """Read everything again, changed or not. Safe to call in a signal handler of the loop."""
        self._asked.set()

    async def run(self, on_loaded: OnLoaded, on_refused: OnRefused) -> None:
        """Watch until cancelled. What the two raise ends it."""
        for number in count(1):
            with anyio.move_on_after(self._every):
                await self._asked.wait()
            asked, self._asked = self._asked.is_set(), anyio.Event()
            if await self._has_changed(read=number % READ_ANYWAY == 0) or asked:
                await self._reload(on_loaded, on_refused)

    async def _has_changed(self, *, read: bool) -> bool:
        def look() -> bool:
            return any([file.has_changed(read=read) for file in self._files])  # each is looked at

        return await in_thread(look)

    async def _reload(self, on_loaded: OnLoaded, on_refused: OnRefused) -> None:
        try:
            loaded = await in_thread(self._load)
        except ConfigError as exc:
            await on_refused(exc)
            return
        self._files = files_of(loaded)
        await on_loaded(loaded)


async def in_thread(work: Callable[[], T]) -> T:
    """Do it in a thread, which is left alone at the end.

    A mount or a server of the configuration that hangs must not keep the bridge from ending.
    """
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


Stamp = tuple[int, ...]


@dataclass(slots=True)
class File:
    """What was in a file when it was read, and what it looked like then."""

    path: pathlib.Path
    digest: str | None
    stamp: Stamp | None = None
    """None before the first look, and while it is fresh: then the content is read."""

    def has_changed(self, *, read: bool = False) -> bool:
        """Whether it has other content than at the last look.

        A file that is gone has not: it is mostly being replaced, and its next content is waited
        for. Nor has a pipe, which can be read only once.
        """
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode) or (stamp_of(status) == self.stamp and not read):
                return False
            content = self.path.read_bytes()
        except (OSError, ValueError):  # ValueError: no path at all, with a NUL in it
            return False
        fresh = time.time_ns() - status.st_mtime_ns < FRESH_NS
        self.stamp = None if fresh else stamp_of(status)
        before, self.digest = self.digest, digest(content)
        return self.digest != before


def stamp_of(status: os.stat_result) -> Stamp:
    """What differs when a file has been written or replaced."""
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def files_of(loaded: Loaded) -> list[File]:
    return [File(path, found) for path, found in loaded.digests.items()]
