"""Taking connections from sockets that several workers share, so that each gets its part.

A loop's own server takes all that have arrived at once, so the worker that happens to wake first
would have every connection of a client that opens many. Here each takes one at a time, and one that
has more than another leaves the next to that one for a moment.
"""

import asyncio
import logging
import mmap
import os
import socket
from collections.abc import Callable, Sequence

import anyio.abc

logger = logging.getLogger(__name__)

POLITE_SECONDS = 0.002
"""How long a worker waits that has more connections than another one."""

NO_MORE_SECONDS = 1.0
"""How long it waits when the system gives it no more of them."""

SIZE = 4


class Counts:
    """How many connections each worker has open, where all of them see it."""

    def __init__(self, path: str, me: int, workers: int) -> None:
        self._me = me
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._all = memoryview(mmap.mmap(descriptor, SIZE * workers)).cast("i")
        finally:
            os.close(descriptor)

    @staticmethod
    def make(path: str, workers: int) -> None:
        """Make the file, for a start."""
        with open(path, "wb") as file:
            file.write(bytes(SIZE * workers))

    def have(self, connections: int) -> bool:
        """Say how many this worker has; whether another one has fewer."""
        self._all[self._me] = connections
        return connections > min(self._all)


class Taker:
    """Takes connections from shared sockets, by turns with the other workers."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        serve: Callable[[], asyncio.Protocol],
        are_others_freer: Callable[[], bool],
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self._sockets = sockets
        self._serve = serve
        self._are_others_freer = are_others_freer
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._open = True
        for shared in sockets:
            shared.setblocking(False)
            self._watch(shared)

    def close(self) -> None:
        """Take no more."""
        self._open = False
        for shared in self._sockets:
            self._loop.remove_reader(shared)

    def _watch(self, shared: socket.socket) -> None:
        if self._open:
            self._loop.add_reader(shared, self._arrived, shared)

    def _pause(self, shared: socket.socket, seconds: float, then: Callable[..., None]) -> None:
        self._loop.remove_reader(shared)
        self._loop.call_later(seconds, then, shared)

    def _arrived(self, shared: socket.socket) -> None:
        if self._are_others_freer():
            self._pause(shared, POLITE_SECONDS, self._take_then_watch)
        else:
            self._take(shared)

    def _take_then_watch(self, shared: socket.socket) -> None:
        if self._open:
            self._watch(shared)
            self._take(shared)

    def _take(self, shared: socket.socket) -> None:
        try:
            taken, _ = shared.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has left
        except OSError as exc:
            logger.error("no connection can be taken: %s", exc.strerror or exc)
            self._pause(shared, NO_MORE_SECONDS, self._watch)
            return
        taken.setblocking(False)
        self._tasks.start_soon(self._begin, taken)

    async def _begin(self, taken: socket.socket) -> None:
        try:
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._serve, taken)
        except OSError:
            taken.close()  # the client has left
