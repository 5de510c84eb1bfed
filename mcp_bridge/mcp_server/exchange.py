"""One POST and its answer.

Theory of operation. The specification lets a server answer each request with JSON or with a stream
of events. Most calls have nothing to say before their result, so the answer is held back until the
first of these: the result is there (JSON), a notification or a question belongs before it (events),
or it takes so long that the connection might be closed (events, for their pings). A call that ends
at once costs no task and no stream.

Nor does it cost a look at the client: only what takes longer is watched by a task, which notices
that the client has left.
"""

import asyncio
from collections.abc import Callable
from typing import Self

import anyio
import anyio.abc
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND
from starlette.types import Receive, Send

from mcp_bridge.mcp_server.client import left
from mcp_bridge.mcp_server.events import PING, EventStream, Rhythm, event, until_left
from mcp_bridge.mcp_server.http import RawHeaders, respond
from mcp_bridge.mcp_server.messages import notification, question
from mcp_bridge.mcp_server.questions import Question, Questions
from mcp_bridge.types import Json

TAKE_BACK_SECONDS = 1.0


class Exchange:
    """The answer to one POST, and the way to its client until then (a `Channel`).

    With `questions` the client can be asked. `when_left` is called when it has left.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        tasks: anyio.abc.TaskGroup,
        rhythm: Rhythm,
        questions: Questions | None = None,
        headers: RawHeaders = (),
    ) -> None:
        self._receive = receive
        self._send = send
        self._tasks = tasks
        self._rhythm = rhythm
        self._questions = questions
        self._headers = headers
        self._asked: set[Question] = set()
        self._events: EventStream | None = None
        self._answered = False
        self._left = False
        self._watching: anyio.CancelScope | None = None
        self._timer = asyncio.get_running_loop().call_later(rhythm.look, self._look)
        self.when_left: Callable[[], None] = nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def can_send_request(self) -> bool:
        return self._questions is not None

    async def notify(self, method: str, params: Json) -> None:
        await self._write(event(notification(method, params)))

    async def send_raw_request(self, method: str, params: Json) -> Json:
        if self._questions is None:
            raise MCPError(METHOD_NOT_FOUND, f"there is no way to ask this client for {method}")
        if self._left:
            raise left()
        if self._answered:
            raise over()
        with self._questions.new() as asked:
            self._asked.add(asked)
            try:
                await self._write(event(question(asked.number, method, params)))
                return await asked.answer()
            except anyio.get_cancelled_exc_class():
                with anyio.move_on_after(TAKE_BACK_SECONDS, shield=True):
                    await self._write(taken_back(asked))
                raise
            finally:
                self._asked.discard(asked)

    async def finish(self, message: bytes, status: int = 200) -> None:
        """Answer. What is told after this is not heard, and what is asked no longer matters."""
        unanswered = [asked for asked in self._asked if asked.outcome is None]
        self.close()
        if self._left:
            return
        if self._events is None:
            await respond(self._send, status, message, self._headers)
            return
        for asked in unanswered:
            await self._events.write(taken_back(asked))
        await self._events.write(event(message), last=True)

    def close(self) -> None:
        """Nothing more is written but the answer, and nobody watches the client."""
        self._answered = True
        self.when_left = nothing  # whom it leads to has this exchange as its way to the client
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        for asked in self._asked:
            asked.settle(over())

    async def _write(self, data: bytes) -> None:
        if self._answered or self._left:
            return
        if self._events is None:
            self._events = EventStream(self._send, self._headers)
        await self._events.write(data)

    # Clients that wait, and clients that do not.

    def _look(self) -> None:
        self._watching = anyio.CancelScope()
        self._tasks.start_soon(self._watch, self._watching)

    async def _watch(self, scope: anyio.CancelScope) -> None:
        with scope:
            rhythm = self._rhythm
            first = rhythm.held_back if self._events is None else rhythm.ping
            await until_left(self._receive, self._ping, first, rhythm.ping)
            self._left = True
            for asked in self._asked:
                asked.settle(left())
            self.when_left()

    async def _ping(self) -> None:
        await self._write(PING)


def nothing() -> None:
    """Nobody needs to know."""


def over() -> MCPError:
    return MCPError(CONNECTION_CLOSED, "the call is over")


def taken_back(asked: Question) -> bytes:
    """The event that says that nobody waits for the answer to a question any more."""
    params: Json = {"requestId": asked.number, "reason": "the call is over"}
    return event(notification("notifications/cancelled", params))
