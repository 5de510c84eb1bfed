"""Processes that tests start, and that are gone afterwards."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import Process


@asynccontextmanager
async def started(command: Sequence[str], **options: Any) -> AsyncGenerator[Process]:
    """A process that is killed at the end if it still runs.

    anyio's own end waits for it, for ever when an assertion has failed before it was told to end.
    """
    async with await anyio.open_process(command, **options) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
