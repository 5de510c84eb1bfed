"""This worker among the others: what it tells them, what it hears, and what it leaves to them.

Theory of operation. Turns, cut results and questions that wait are looked up at once, in this
process. So what one worker keeps is told to all others (`copies`), before the answer that hands it
out is ended (`delivered`): wherever the follow-up request arrives, it finds it. A conversation that
waits for its user waits in one worker; the others hand its next request over. A worker that starts
again asks one of the others for all that they keep.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.types import Message, Receive, Scope, Send

from mcp_bridge.agent.memory import TurnCopy
from mcp_bridge.agent.waiting import Key
from mcp_bridge.app import Application
from mcp_bridge.bridge import Listener, Records
from mcp_bridge.config.settings import McpServer
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_client.peer import Peer
from mcp_bridge.tools.stored import ResultCopy
from mcp_bridge.types import Json
from mcp_bridge.workers.copies import (
    RESULT,
    TURN,
    Told,
    key_waited,
    result_told,
    take,
    turn_told,
    waits_told,
)
from mcp_bridge.workers.host import FRONT, INNER, Host
from mcp_bridge.workers.job import KEEPER, Job
from mcp_bridge.workers.link import GIVE, Link
from mcp_bridge.workers.mirror import Keeper, Mirrored
from mcp_bridge.workers.passing import pass_on
from mcp_bridge.workers.relay import without_relayed

DELIVERY_SECONDS = 1.0
"""How long an answer waits for the others to take what it hands out."""

START_SECONDS = 10.0
"""How long a worker that starts waits for the keeper's servers, and for what the others keep."""


class Crew:
    """All workers as this one sees them: what a bridge shares (`mcp_bridge.bridge.Shared`)."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._keeper = Keeper()
        self._links = {number: self._link(number) for number in job.others}
        if not job.is_keeper:
            self._keeper.link = self._links[KEEPER]
        self._waiting: dict[Key, int] = {}
        self._asked = not job.fresh
        self._restored = anyio.Event()
        self._app: Application | None = None
        self._host: Host | None = None

    # What the bridge asks of it.

    def connection(self, name: str, settings: McpServer, on_change: Listener) -> Connection:
        if self._job.is_keeper:
            return Connection(name, settings, on_change=on_change)
        return Mirrored(name, settings, on_change=on_change, keeper=self._keeper)

    def recorded(self, records: Records) -> Records:
        return without_relayed(records)

    def keep_turn(self, copy: TurnCopy) -> None:
        self._tell(turn_told(copy))

    def keep_result(self, copy: ResultCopy) -> None:
        self._tell(result_told(copy))

    def wait_here(self, key: Key, waits: bool) -> None:
        self._tell(waits_told(self._job.number, key, waits))

    def _tell(self, told: Told) -> None:
        for link in self._links.values():
            link.tell(*told)

    async def delivered(self) -> None:
        with anyio.move_on_after(DELIVERY_SECONDS):
            for link in self._links.values():
                await link.taken()

    def place_of(self, key: Key) -> int | None:
        return self._waiting.get(key)

    async def hand_over(
        self, worker: int, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await pass_on(self._job.address(worker), INNER, scope, again, send)

    # What the worker asks of it.

    async def to_keeper(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the keeper answer a request."""
        await pass_on(self._job.address(KEEPER), FRONT, scope, receive, send)

    @asynccontextmanager
    async def running(self, app: Application) -> AsyncGenerator[None]:
        """Be there for the others, and reach them, while the application's bridge is open."""
        self._app = app
        self._host = Host(app, is_keeper=self._job.is_keeper, on_waits=self._hear_waits)
        async with self._host.listening(self._job.inside), anyio.create_task_group() as tasks:
            for link in self._links.values():
                tasks.start_soon(link.run)
            with anyio.move_on_after(START_SECONDS):
                await self._up_to_date()
            yield
            tasks.cancel_scope.cancel()

    async def _up_to_date(self) -> None:
        if not self._job.is_keeper:
            await self._keeper.heard.wait()
        if self._job.fresh:
            await self._restored.wait()

    def pids(self) -> list[int]:
        """The processes of all workers that are known here."""
        others = self._host.pids.values() if self._host is not None else ()
        return [os.getpid(), *others]

    async def drained(self) -> None:
        """Return when the others need this worker no more: the keeper goes last."""
        if self._job.is_keeper and self._host is not None:
            await self._host.alone()

    # What it hears.

    def _link(self, number: int) -> Link:
        async def greeted(peer: Peer, told: Json) -> None:
            self._waiting |= {key_waited(key): number for key in told["waiting"]}
            if number == KEEPER:
                self._keeper.greet(told["servers"])
            await self._restore_from(peer)

        def lost() -> None:
            self._waiting = {key: at for key, at in self._waiting.items() if at != number}
            if number == KEEPER:
                self._keeper.lost()

        return Link(
            self._job.number,
            number,
            self._job.address(number),
            greeted=greeted,
            lost=lost,
            answer=self._keeper.answer,
            notice=self._hear,
        )

    async def _restore_from(self, peer: Peer) -> None:
        """Ask for all that the others keep, if nobody has been asked."""
        if self._asked:
            return
        self._asked = True
        try:
            await peer.send_raw_request(GIVE, {})
            self._restored.set()
        finally:
            self._asked = self._restored.is_set()  # else the next one is asked

    def _hear(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """What comes back on a link: what is kept there, and what the keeper tells."""
        if method in (TURN, RESULT) and self._app is not None:
            take(self._app.state.bridge, method, dict(params or {}))
            return True
        return self._keeper.notice(method, params)

    def _hear_waits(self, told: Json) -> None:
        key = key_waited(told["key"])
        if told["waits"]:
            self._waiting[key] = told["worker"]
        elif self._waiting.get(key) == told["worker"]:
            del self._waiting[key]
