"""The configuration is read again when one of its files changes, and when somebody asks.

Files are compared by content, for what is reported about them differs by editor and mount: some
write in place, some put a new file in its place, and Kubernetes swaps the `..data` symlink that the
path leads through. So directories are watched, each report is only a reason to look, and every
`LOOK_ANYWAY` seconds there is a look without a report (network mounts give none).
"""

import logging
import os
import pathlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing

import anyio
import anyio.to_thread
from watchfiles import awatch

from mcp_bridge.config.load import Loaded
from mcp_bridge.config.substitute import digest
from mcp_bridge.errors import ConfigError

logger = logging.getLogger(__name__)

LOOK_ANYWAY = 10.0

OnLoaded = Callable[[Loaded], Awaitable[None]]
OnRefused = Callable[[ConfigError], Awaitable[None]]


class Watcher:
    """Reads the configuration again when it changes.

        watcher = Watcher(loaded, lambda: load(path, overrides=overrides))
        task_group.start_soon(watcher.run, apply, report)
        ...
        watcher.reload()  # SIGHUP

    A configuration that cannot be used is handed to `on_refused`, and watching goes on: the file's
    next version may be good. A URL is not polled: it is read again with everything else.
    """

    def __init__(self, loaded: Loaded, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._digests = dict(loaded.digests)
        self._asked = False
        self._wake = anyio.Event()
        self._rewatch = anyio.Event()

    def reload(self) -> None:
        """Read everything again, changed or not. Safe to call in a signal handler of the loop."""
        self._asked = True
        self._wake.set()

    async def run(self, on_loaded: OnLoaded, on_refused: OnRefused) -> None:
        """Watch until cancelled. What the two raise ends it."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            try:
                while True:
                    await self._wake.wait()
                    self._wake = anyio.Event()
                    if await self._is_due():
                        await self._reload(on_loaded, on_refused)
            finally:
                # A thread waits inside the watch: only its event ends it at once.
                self._rewatch.set()

    async def _is_due(self) -> bool:
        asked, self._asked = self._asked, False
        now = await anyio.to_thread.run_sync(_digests, tuple(self._digests))
        # A file that is gone is mostly being replaced: wait for its next content.
        changed = any(found and found != self._digests[path] for path, found in now.items())
        self._digests |= {path: found for path, found in now.items() if found}
        return changed or asked

    async def _reload(self, on_loaded: OnLoaded, on_refused: OnRefused) -> None:
        try:
            loaded = await anyio.to_thread.run_sync(self._load)
        except ConfigError as exc:
            await on_refused(exc)
            return
        before = directories(self._digests)
        self._digests = dict(loaded.digests)
        if directories(self._digests) != before:
            self._rewatch.set()
        await on_loaded(loaded)

    async def _watch(self) -> None:
        """Wake the loop at every report. Ends with the task group."""
        while True:
            self._rewatch = anyio.Event()
            try:
                await self._wait_for_reports()
            except OSError as exc:  # no more watches, or the directory went away meanwhile
                logger.warning(
                    "configuration: no change reports from the system (%s); looking every %g s",
                    exc.strerror or exc,
                    LOOK_ANYWAY,
                )
                with anyio.move_on_after(LOOK_ANYWAY):
                    await self._rewatch.wait()
            self._wake.set()

    async def _wait_for_reports(self) -> None:
        watched = directories(self._digests)
        if not watched:
            await self._rewatch.wait()
            return
        reports = awatch(
            *watched,
            watch_filter=None,
            step=100,
            stop_event=self._rewatch,
            rust_timeout=int(LOOK_ANYWAY * 1000),
            yield_on_timeout=True,
            recursive=False,
        )
        self._wake.set()  # for what changed between loading and watching
        async with aclosing(reports):
            async for _ in reports:
                self._wake.set()
                if directories(self._digests) != watched:  # a symlink leads elsewhere now
                    return


def directories(files: Iterable[pathlib.Path]) -> frozenset[pathlib.Path]:
    """Where changes of these files show: beside each link on the way, and beside the file."""
    found: set[pathlib.Path] = set()
    for file in files:
        for _ in range(40):  # as many links as the system follows
            found.add(file.parent)
            if not file.is_symlink():
                break
            file = file.parent / os.readlink(file)
        found.add(file.resolve().parent)
    return frozenset(directory for directory in found if directory.is_dir())


def _digests(files: Iterable[pathlib.Path]) -> Mapping[pathlib.Path, str | None]:
    return {file: _digest(file) for file in files}


def _digest(file: pathlib.Path) -> str | None:
    """None for what is not there, and for pipes, which can be read only once."""
    try:
        return digest(file.read_bytes()) if file.is_file() else None
    except OSError:
        return None
