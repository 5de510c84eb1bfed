"""Clients that leave: their work is stopped, streamed or whole (DESIGN 3.11)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from starlette.types import Receive

LOOK_SECONDS = 0.2
"""An answer that is there sooner is not worth a task that watches for its client."""


class Silent(Protocol):
    """An answer that may be silent for a long time."""

    async def keep_alive(self) -> float:
        """Break the silence if it is time to; returns the seconds until then."""
        ...


@contextmanager
def watching(receive: Receive, tasks: TaskGroup, answer: Silent) -> Iterator[None]:
    """Cancel `tasks` when the client disconnects, and break the silence meanwhile (L11)."""
    watch = Watch(receive, tasks, answer)
    try:
        yield
    finally:
        watch.stop()


class Watch:
    """A timer, and when it goes off, one task beside the work."""

    def __init__(self, receive: Receive, tasks: TaskGroup, answer: Silent) -> None:
        self._receive = receive
        self._tasks = tasks
        self._answer = answer
        self._scope: anyio.CancelScope | None = None
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._begin)

    def stop(self) -> None:
        self._timer.cancel()
        if self._scope is not None:
            self._scope.cancel()

    def _begin(self) -> None:
        self._scope = anyio.CancelScope()
        self._tasks.start_soon(self._watch, self._scope)

    async def _watch(self, scope: anyio.CancelScope) -> None:
        with scope:
            while not await self._has_left(within=await self._answer.keep_alive()):
                pass
            self._tasks.cancel_scope.cancel()

    async def _has_left(self, within: float) -> bool:
        with anyio.move_on_after(within):
            await until_disconnected(self._receive)
            return True
        return False


async def until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
