"""The door itself: every way in, and how long it stays open."""

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.abc
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.sse import SseServerTransport
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from mcp_bridge.bridge import Bridge
from mcp_bridge.mcp_server.facade import Facade
from mcp_bridge.mcp_server.hosts import Hosts
from mcp_bridge.mcp_server.streamable import Streamable
from mcp_bridge.mcp_server.streams import serve_socket
from mcp_bridge.mcp_server.visit import VISIT, Visit
from mcp_bridge.websocket import ServerSocket

logger = logging.getLogger(__name__)

SSE_MESSAGES = "/mcp-server/sse/messages"
LAST_SECONDS = 0.1
IDLE_SECONDS = 1800.0
"""A session or a WebSocket on which nothing happens for so long is ended."""


class Door:
    """What the routes lead to. Made by `mcp_door`."""

    def __init__(self, bridge: Bridge, facade: Facade, tasks: anyio.abc.TaskGroup) -> None:
        limit = bridge.settings.limits.max_request_bytes
        self.bridge = bridge
        self.facade = facade
        self.hosts = Hosts()
        self.streamable = Streamable(facade, tasks, limit, IDLE_SECONDS)
        self._max_bytes = limit
        self._sse = SseServerTransport(SSE_MESSAGES, max_request_body_size=limit)
        self._open: set[anyio.CancelScope] = set()

    async def drain(self, seconds: float) -> None:
        """Let requests that are under way end within so many seconds, then close."""
        self.facade.subscriptions.close()  # they never end by themselves
        with anyio.move_on_after(seconds):
            await self.facade.idle()
        await self.close()

    async def close(self) -> None:
        """End everything that is open."""
        await self.facade.stop()
        await anyio.sleep(LAST_SECONDS)  # what has been answered just now is on its way
        self.streamable.sessions.close()
        for scope in self._open:
            scope.cancel()

    @contextmanager
    def _staying_open(self) -> Iterator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            try:
                yield scope
            finally:
                self._open.discard(scope)

    async def sse(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        """The stream of the SSE transport."""
        await self._answer(visit, self._serve_sse, scope, receive, send)

    async def _serve_sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = self.facade.server
        async with self._sse.connect_sse(scope, receive, send) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    async def sse_message(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        """A message that belongs to such a stream."""
        await self._answer(visit, self._sse.handle_post_message, scope, receive, send)

    async def websocket(self, visit: Visit, websocket: WebSocket) -> None:
        """A WebSocket, which is one session."""
        socket = ServerSocket(websocket, max_bytes=self._max_bytes, idle_seconds=IDLE_SECONDS)
        with visiting(visit), self._staying_open():
            await serve_socket(self.facade.server, socket)
        await socket.close()

    async def _answer(
        self, visit: Visit, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run an application of the SDK for this visit, until it has answered or we close."""
        scope["user"] = user_of(visit)
        answer = Answer(send)
        with visiting(visit), self._staying_open():
            await app(scope, receive, answer)
        await answer.finish()


class Answer:
    """Where an answer is written to; one that was cut short is still ended as HTTP has it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = True
        await self._send(message)

    async def finish(self) -> None:
        if not self._begun:
            await self._send({"type": "http.response.start", "status": 503, "headers": []})
        if not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


@contextmanager
def visiting(visit: Visit) -> Iterator[None]:
    """What runs in here, and every handler of a message that is read in here, knows the visit."""
    token = VISIT.set(visit)
    try:
        yield
    finally:
        VISIT.reset(token)


def user_of(visit: Visit) -> AuthenticatedUser:
    """The visit as the SDK knows people: it gives a session to nobody else."""
    name = visit.caller.name
    return AuthenticatedUser(
        AccessToken(token="", client_id=name, scopes=[], subject=visit.toolset)
    )


@asynccontextmanager
async def mcp_door(bridge: Bridge) -> AsyncGenerator[Door]:
    """The door of a bridge, open. Leaving ends every session."""
    async with anyio.create_task_group() as tasks:
        facade = Facade(bridge, tasks)
        await facade.start()
        door = Door(bridge, facade, tasks)
        try:
            yield door
        finally:
            with anyio.CancelScope(shield=True):
                await door.close()
        tasks.cancel_scope.cancel()
