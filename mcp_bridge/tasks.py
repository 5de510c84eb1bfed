"""Tasks of one owner, who ends them: a task group that may be open while its owner yields."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

import anyio

logger = logging.getLogger(__name__)


class Tasks:
    """Work that runs beside its owner, who ends it in a `finally`.

    A generator may be left at any yield and driven on by another task, so it must not be inside of
    a task group then (STYLE 7). And a task of anyio's costs as much as all the rest of a tool call
    (docs/performance.md). What runs in here is not ended by the scopes around the owner, but by the
    owner, who is.
    """

    def __init__(self, work: Iterable[Coroutine[Any, Any, None]] = ()) -> None:
        loop = asyncio.get_running_loop()
        self._running = [loop.create_task(one) for one in work]

    async def end(self) -> None:
        """Cancel what still runs, and return when all of it is over. What failed is in the log."""
        left = [task for task in self._running if not task.done()]
        for task in left:
            task.cancel()
        if left:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(left)
        for task in self._running:
            if not task.cancelled() and (exc := task.exception()) is not None:
                logger.error("work beside an answer failed unexpectedly", exc_info=exc)
        self._running.clear()  # one that was cancelled holds its frames, and they hold its owner
