"""The sessions of clients of the old era over streamable HTTP.

A session is no task: it is what is known of its client, and a timer that ends it when nothing has
happened for long. Its requests run in the tasks of their POSTs.
"""

import asyncio
import logging
import time
import uuid

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST
from starlette.types import Receive, Send

from mcp_bridge.mcp_client.jsonrpc import Id, as_id, key_of
from mcp_bridge.mcp_server.client import Client
from mcp_bridge.mcp_server.events import PING, EventStream, Rhythm, event, until_left
from mcp_bridge.mcp_server.http import Refusal
from mcp_bridge.mcp_server.messages import notification
from mcp_bridge.mcp_server.questions import Questions
from mcp_bridge.mcp_server.session import Session
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

MOST_SESSIONS = 10_000

REQUEST_CANCELLED = -32800
"""A request that was cancelled is answered over HTTP, or its POST would never end."""

Owner = tuple[str, str | None]


def owner_of(visit: Visit) -> Owner:
    """Whose a session is: a key's, at one URL."""
    return visit.caller.name, visit.toolset


class HttpSession(Session):
    """One client with its requests, its questions, and what it hears between its requests."""

    def __init__(self, owner: Owner) -> None:
        super().__init__(self._to_stream)
        self.id = uuid.uuid4().hex
        self.headers = ((b"mcp-session-id", self.id.encode()),)
        self.owner = owner
        self.questions = Questions()
        self.users = 0
        """How many of its HTTP requests are under way."""

        self.idle_since = time.monotonic()
        self._running: dict[Client, Id] = {}  # so, for a client may use a number twice
        self._stream: tuple[EventStream, anyio.CancelScope] | None = None

    def __enter__(self) -> None:
        """It is not idle until this is left."""
        self.users += 1

    def __exit__(self, *exc: object) -> None:
        self.users -= 1
        self.idle_since = time.monotonic()

    def begun(self, client: Client, number: Id) -> None:
        """A request of this number runs, and may be cancelled, until it is over."""
        self._running[client] = key_of(number)

    def over(self, client: Client) -> None:
        """The request of that client is over."""
        del self._running[client]

    def cancel(self, number: object) -> None:
        """The client no longer wants the answer to one of its requests."""
        key = as_id(number)
        for client in [client for client, its in self._running.items() if its == key]:
            client.stop(MCPError(REQUEST_CANCELLED, "Request cancelled"))

    async def hear(self, receive: Receive, send: Send, rhythm: Rhythm) -> None:
        """Serve the stream of what belongs to no request, until one side leaves."""
        if self._stream is not None:
            raise Refusal(409, INVALID_REQUEST, "this session has a stream already: close it first")
        events, scope = EventStream(send, self.headers), anyio.CancelScope()
        self._stream = events, scope

        async def ping() -> None:
            await events.write(PING)

        try:
            with scope:
                await events.begin()
                await until_left(receive, ping, rhythm.ping, rhythm.ping)
        finally:
            self._stream = None
        await events.write(b"", last=True)

    async def _to_stream(self, method: str, params: Json) -> None:
        if self._stream is not None:
            events, _ = self._stream
            await events.write(event(notification(method, params)))

    def close(self) -> None:
        for client in tuple(self._running):
            client.stop(MCPError(CONNECTION_CLOSED, "the session has ended"))
        if self._stream is not None:
            self._stream[1].cancel()
        super().close()


class Sessions:
    """All of them."""

    def __init__(self, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        self._open: dict[str, HttpSession] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, visit: Visit) -> HttpSession:
        """A new one.

        Raises:
            Refusal: 503, there are too many.
        """
        if len(self._open) >= MOST_SESSIONS:
            logger.warning("no session is opened: there are %d already", len(self._open))
            raise Refusal(503, INTERNAL_ERROR, "Too many open sessions")
        session = HttpSession(owner_of(visit))
        self._open[session.id] = session
        self._look_again(session, self.idle_seconds)
        return session

    def find(self, number: str, visit: Visit) -> HttpSession:
        """The one of this id.

        Raises:
            Refusal: 404, there is none, or it is somebody else's: the answer does not say which.
        """
        session = self._open.get(number)
        if session is None or session.owner != owner_of(visit):
            raise Refusal(404, INVALID_REQUEST, "Session not found")
        return session

    def end(self, session: HttpSession) -> None:
        """Forget it, and end what is under way in it."""
        self._open.pop(session.id, None)
        timer = self._timers.pop(session.id, None)
        if timer is not None:
            timer.cancel()
        session.close()

    def close(self) -> None:
        for session in tuple(self._open.values()):
            self.end(session)

    def _look_again(self, session: HttpSession, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[session.id] = loop.call_later(seconds, self._end_if_idle, session)

    def _end_if_idle(self, session: HttpSession) -> None:
        left = self.idle_seconds
        if not session.users:
            left -= time.monotonic() - session.idle_since
        if left <= 0:
            logger.info("a session of %s ends: nothing happens in it", session.owner[0])
            self.end(session)
        else:
            self._look_again(session, left)
