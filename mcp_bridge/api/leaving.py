"""Clients that leave: their work is stopped, streamed or whole (DESIGN 3.11)."""

import asyncio
from typing import Protocol

import anyio
from starlette.types import Receive

from mcp_bridge.clock import Clock
from mcp_bridge.tasks import Tasks

LOOK_SECONDS = 0.2
"""An answer that is there sooner is not worth a task that watches for its client."""


class Silent(Protocol):
    """An answer that may be silent for a long time."""

    async def keep_alive(self) -> float:
        """Break the silence if it is time to; returns the seconds until then."""
        ...


class Watch:
    """Ends the work of an answer when its client has left, and breaks its silence (L11).

    It is a timer first, and when that goes off, one task beside the work.
    """

    def __init__(self, receive: Receive, work: Clock, answer: Silent) -> None:
        self._receive = receive
        self._work = work
        self._answer = answer
        self._task: Tasks | None = None
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._begin)

    async def end(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            await self._task.end()

    def _begin(self) -> None:
        self._task = Tasks([self._watch()])

    async def _watch(self) -> None:
        while not await self._has_left(within=await self._answer.keep_alive()):
            pass
        self._work.cancel()

    async def _has_left(self, within: float) -> bool:
        with anyio.move_on_after(within):
            await until_disconnected(self._receive)
            return True
        return False


async def until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
