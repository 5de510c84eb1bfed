"""What a worker is to the others: a place that answers requests and keeps their links."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import orjson
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.transport_context import TransportContext
from mcp_types import METHOD_NOT_FOUND
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_bridge.app import Application
from mcp_bridge.bridge import Bridge
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.types import Json
from mcp_bridge.workers.copies import WAITS, all_kept, take
from mcp_bridge.workers.link import COPIED, GIVE, HELLO, Colleague, converse
from mcp_bridge.workers.passing import serve_passed
from mcp_bridge.workers.pipe import Pipe
from mcp_bridge.workers.relay import Relay, Shown

logger = logging.getLogger(__name__)

FRONT, INNER = "front", "inner"
"""Where a request enters: as it came from the client, or already counted and logged elsewhere."""

OnWaits = Callable[[Json], None]


class Host:
    """Listens to the other workers on a socket of its own."""

    def __init__(self, app: Application, *, is_keeper: bool, on_waits: OnWaits) -> None:
        self._app = app
        self._is_keeper = is_keeper
        self._on_waits = on_waits
        self._visitors: set[Pipe] = set()
        self._change = anyio.Event()
        self.pids: dict[int, int] = {}
        """The processes of the other workers."""

    @asynccontextmanager
    async def listening(self, descriptor: int) -> AsyncGenerator[None]:
        """Take what comes on this socket, which was opened before."""
        inside = socket.socket(fileno=descriptor)
        async with anyio.create_task_group() as tasks:

            def opened(pipe: Pipe) -> None:
                tasks.start_soon(self._visited, pipe)

            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: Pipe(opened), sock=inside)
            try:
                yield
            finally:
                server.close()
                tasks.cancel_scope.cancel()

    async def alone(self) -> None:
        """Return when no other worker needs this one any more."""
        while self._visitors:
            await self._change.wait()

    async def _visited(self, pipe: Pipe) -> None:
        self._visitors.add(pipe)
        try:
            if (opening := await pipe.receive()) is not None:
                await self._serve(pipe, orjson.loads(opening))
        except Exception:  # boundary: what one worker sends must not end another
            logger.exception("what another worker has sent failed in an unexpected way")
        finally:
            pipe.close()
            self._visitors.discard(pipe)
            event, self._change = self._change, anyio.Event()
            event.set()

    async def _serve(self, pipe: Pipe, said: Json) -> None:
        if said["kind"] == "request":
            road = self._app if said["road"] == FRONT else inner_road(self._app)
            await serve_passed(pipe, said, road)
            return
        self.pids[said["worker"]] = said["pid"]
        bridge: Bridge = self._app.state.bridge
        peer = Colleague(said["worker"], pipe)
        await Visitor(bridge, pipe, peer, self._is_keeper, self._on_waits).stay()


class Visitor:
    """Another worker's link, at its far end."""

    def __init__(
        self, bridge: Bridge, pipe: Pipe, peer: Colleague, is_keeper: bool, on_waits: OnWaits
    ) -> None:
        self._bridge = bridge
        self._pipe = pipe
        self._peer = peer
        self._on_waits = on_waits
        self._relay = Relay(bridge, pipe, peer) if is_keeper else None
        self._shown = Shown(bridge, pipe.tell) if is_keeper else None
        self._changed = anyio.Event()

    async def stay(self) -> None:
        """Serve it until it is gone."""
        stop = self._bridge.subscribe(lambda kind: self._changed.set())
        try:
            async with anyio.create_task_group() as tasks:
                if self._shown is not None:
                    tasks.start_soon(self._show_changes, self._shown)
                await converse(self._pipe, self._peer, self._answer, self._heard)
                tasks.cancel_scope.cancel()
        finally:
            stop()

    async def _show_changes(self, shown: Shown) -> None:
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            shown.changed()

    async def _answer(
        self,
        context: DispatchContext[TransportContext],
        method: str,
        params: Mapping[str, Any] | None,
    ) -> Json:
        if method == HELLO:
            servers = self._shown.all() if self._shown is not None else None
            return {"waiting": self._bridge.waiting.keys(), "servers": servers}
        if method == GIVE:
            await self._give()
            return {}
        if self._relay is None:
            raise MCPError(METHOD_NOT_FOUND, f"only the keeper knows {method!r}")
        return await self._relay.answer(method, dict(params or {}))

    async def _give(self) -> None:
        """Tell it everything that is kept here; it takes all before our answer."""
        for method, told in all_kept(self._bridge):
            await self._pipe.ready()
            self._pipe.tell(method, told)

    def _heard(self, method: str, params: Mapping[str, Any] | None) -> bool:
        told = dict(params or {})
        if method == WAITS:
            self._on_waits(told)
        else:
            take(self._bridge, method, told)
        self._pipe.tell(COPIED, {"number": told["number"]})
        return True


def inner_road(app: Application) -> ASGIApp:
    """The application without what has happened to the request at the worker it came to."""

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        token = REQUEST_ID.set(scope["state"].get("request_id"))
        try:
            await app.inside(scope, receive, send)
        finally:
            REQUEST_ID.reset(token)

    return inner
