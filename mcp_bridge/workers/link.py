"""The connection to another worker that stays open: calls, copies, and what changes there.

Each worker dials each other one. What it asks and tells goes over its own connection, what the
other one says about that comes back on it, as JSON-RPC between two peers. It is dialled again for
as long as the workers live; whoever needs it meanwhile waits a moment.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import orjson
from mcp.shared.dispatcher import DispatchContext, OnNotifyIntercept, OnRequest
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR

from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.mcp_client.peer import Peer
from mcp_bridge.types import Json
from mcp_bridge.workers.pipe import Broken, Pipe, dial

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.1
MOST_UNTAKEN = 64 * 1024 * 1024
"""Bytes that may wait for a worker that does not read; then its connection is given up."""

COPIED, GIVE, HELLO = "copied", "give", "hello"
"""The words between links: what was told is taken; give all that you keep; here I am."""


class Wire:
    """A pipe that carries a JSON-RPC peer's messages."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def ready(self) -> None:
        await self._pipe.ready()

    async def send(self, data: bytes) -> None:
        try:
            await self._pipe.send(data)
        except Broken as exc:
            raise ConnectionLost("the other worker has ended") from exc


class Colleague(Peer):
    """Another worker as a JSON-RPC peer."""

    def __init__(self, number: int, pipe: Pipe) -> None:
        super().__init__(f"worker {number}", Wire(pipe))

    async def _reply(self, message: Json) -> None:
        try:
            await super()._reply(message)
        except RequestError as exc:  # nested so deeply that it can be read but not written
            error = {"code": INTERNAL_ERROR, "message": exc.message}
            await super()._reply({"jsonrpc": "2.0", "id": message.get("id"), "error": error})


class Link:
    """This worker's connection to another one. `run` must be running."""

    def __init__(
        self,
        me: int,
        other: int,
        address: str,
        *,
        greeted: Callable[[Peer, Json], Awaitable[None]],
        lost: Callable[[], None],
        answer: OnRequest,
        notice: OnNotifyIntercept,
    ) -> None:
        self.other = other
        self._me = me
        self._address = address
        self._greeted = greeted
        self._lost = lost
        self._answer = answer
        self._notice = notice
        self._pipe: Pipe | None = None
        self._peer: Peer | None = None
        self._told = self._taken = 0
        self._change = anyio.Event()

    async def run(self) -> None:
        """Keep it open until cancelled."""
        while True:
            try:
                await self._live(await dial(self._address))
            except OSError:
                pass
            except Exception:  # boundary: a link must not end its worker
                logger.exception("the connection to worker %d failed", self.other)
            await anyio.sleep(AGAIN_SECONDS)

    async def _live(self, pipe: Pipe) -> None:
        peer = Colleague(self.other, pipe)
        try:
            pipe.put(orjson.dumps({"kind": "link", "worker": self._me, "pid": os.getpid()}))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._hello, pipe, peer)
                await converse(pipe, peer, self._answer, self._notice_all)
                tasks.cancel_scope.cancel()
        except (Broken, ConnectionLost):
            pass
        finally:
            pipe.abort()
            was_up, self._peer, self._pipe = self._peer is not None, None, None
            self._taken = self._told
            self._tell()
            if was_up:
                logger.info("worker %d has ended, or does not answer", self.other)
                self._lost()

    async def _hello(self, pipe: Pipe, peer: Peer) -> None:
        try:
            told = await peer.send_raw_request(HELLO, {})
            self._pipe, self._peer = pipe, peer
            self._tell()
            await self._greeted(peer, told)
        except ConnectionLost:
            pass  # whoever reads the pipe has noticed, too

    def _notice_all(self, method: str, params: Any) -> bool:
        if method != COPIED:
            return self._notice(method, params)
        self._taken = params["number"]
        self._tell()
        return True

    def _tell(self) -> None:
        event, self._change = self._change, anyio.Event()
        event.set()

    async def peer(self, seconds: float) -> Peer | None:
        """The other side, waiting a moment for it; None when time is up."""
        with anyio.move_on_after(seconds):
            while self._peer is None:
                await self._change.wait()
        return self._peer

    def tell(self, method: str, params: Json) -> None:
        """Have the other worker take something; `taken` says when it has."""
        if self._pipe is None:
            return  # it starts again, and will ask for everything
        self._told += 1
        self._pipe.tell(method, {**params, "number": self._told})
        if self._pipe.waiting > MOST_UNTAKEN:
            logger.error("worker %d does not read what it is told: given up", self.other)
            self._pipe.abort()

    async def taken(self) -> None:
        """Return when the other worker has taken everything told so far, or is gone."""
        told = self._told
        while self._taken < told:
            await self._change.wait()


async def converse(
    pipe: Pipe, peer: Peer, on_request: OnRequest, on_notice: OnNotifyIntercept
) -> None:
    """Serve the messages of a pipe until the other side is gone."""

    async def read() -> None:
        while (data := await pipe.receive()) is not None:
            peer.receive(data)
        peer.close("the other worker has ended")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await peer.run(on_request, unheard, on_notice)
        tasks.cancel_scope.cancel()


async def unheard(context: DispatchContext[TransportContext], method: str, params: Any) -> None:
    """Nothing is told that `on_notice` does not take."""
