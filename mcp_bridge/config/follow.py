"""A running bridge follows its configuration: changed files, and SIGHUP, are applied."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from mcp_bridge.config.load import Loaded
from mcp_bridge.config.settings import Settings
from mcp_bridge.config.watch import Watcher
from mcp_bridge.errors import ConfigError

logger = logging.getLogger(__name__)

Reload = Callable[[], Loaded]
Apply = Callable[[Settings], object]


@asynccontextmanager
async def following(loaded: Loaded, reload: Reload | None, apply: Apply) -> AsyncGenerator[None]:
    """Until this is left, what `reload` reads after a change goes to `apply`.

    What does not load changes nothing, and the log says why. Without `reload` nothing is followed.
    """
    if reload is None:
        yield
        return

    async def take(again: Loaded) -> None:
        for warning in again.warnings:
            logger.warning("configuration: %s", warning)
        apply(again.settings)

    async def refuse(error: ConfigError) -> None:
        logger.error("the new configuration is not used, the old one stays")
        for mistake in error.mistakes:
            logger.error("configuration: %s", mistake)
        for warning in error.warnings:
            logger.warning("configuration: %s", warning)

    watcher = Watcher(loaded, reload)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run, take, refuse)
        with hearing_sighup(watcher):
            yield
        tasks.cancel_scope.cancel()


@contextmanager
def hearing_sighup(watcher: Watcher) -> Iterator[None]:
    """Reload at SIGHUP, where there are signals and we may hear them."""
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(watcher.reload))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)
