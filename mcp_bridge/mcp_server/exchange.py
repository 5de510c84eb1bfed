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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import anyio
import anyio.abc
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND, JSONRPCError, JSONRPCResponse
from starlette.types import Receive, Send

from mcp_bridge import exact
from mcp_bridge.mcp_client.jsonrpc import key_of
from mcp_bridge.mcp_server.client import left
from mcp_bridge.mcp_server.events import PING, EventStream, Rhythm, event, until_left
from mcp_bridge.mcp_server.http import RawHeaders, respond
from mcp_bridge.mcp_server.messages import notification
from mcp_bridge.types import Json

TAKE_BACK_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Question:
    """Something that a client is asked while one of its requests runs."""

    number: int
    outcome: Json | MCPError | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)

    def settle(self, outcome: Json | MCPError) -> None:
        self.outcome = outcome
        self.settled.set()

    async def answer(self) -> Json:
        """What the client says.

        Raises:
            MCPError: it answers with an error, or has left.
        """
        await self.settled.wait()
        assert self.outcome is not None  # noqa: S101  # set with the event
        if isinstance(self.outcome, MCPError):
            raise self.outcome
        return self.outcome


class Questions:
    """What one client is asked, and has not answered yet."""

    def __init__(self) -> None:
        self._asked = 0
        self._open: dict[int | str, Question] = {}

    @contextmanager
    def question(self) -> Iterator[Question]:
        """A new one, which is open until this is left."""
        self._asked += 1
        question = self._open[self._asked] = Question(self._asked)
        try:
            yield question
        finally:
            del self._open[question.number]

    def settle(self, answer: JSONRPCResponse | JSONRPCError) -> None:
        """The client has answered; an answer to nothing that is open says nothing."""
        question = self._open.get(key_of(answer.id)) if answer.id is not None else None
        if question is not None and isinstance(answer, JSONRPCResponse):
            question.settle(answer.result)
        elif question is not None and isinstance(answer, JSONRPCError):
            question.settle(MCPError.from_error_data(answer.error))


def taken_back(question: Question) -> bytes:
    """The event that says that nobody waits for the answer to a question any more."""
    params: Json = {"requestId": question.number, "reason": "the call is over"}
    return event(exact.encode(notification("notifications/cancelled", params)))


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
        self.when_left: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def can_send_request(self) -> bool:
        return self._questions is not None

    async def notify(self, method: str, params: Json) -> None:
        await self._write(event(exact.encode(notification(method, params))))

    async def send_raw_request(self, method: str, params: Json) -> Json:
        if self._questions is None:
            raise MCPError(METHOD_NOT_FOUND, f"there is no way to ask this client for {method}")
        if self._left:
            raise left()
        with self._questions.question() as question:
            self._asked.add(question)
            request = {"jsonrpc": "2.0", "id": question.number, "method": method, "params": params}
            try:
                await self._write(event(exact.encode(request)))
                return await question.answer()
            except anyio.get_cancelled_exc_class():
                with anyio.move_on_after(TAKE_BACK_SECONDS, shield=True):
                    await self._write(taken_back(question))
                raise
            finally:
                self._asked.discard(question)

    async def finish(self, message: bytes, status: int = 200) -> None:
        """Answer. What is told after this is not heard, and what is asked no longer matters."""
        self.close()
        if self._left:
            return
        if self._events is None:
            await respond(self._send, status, message, self._headers)
            return
        for question in tuple(self._asked):
            question.settle(MCPError(CONNECTION_CLOSED, "the call is over"))
            await self._events.write(taken_back(question))
        await self._events.write(event(message), last=True)

    def close(self) -> None:
        """Nothing more is written but the answer, and nobody watches the client."""
        self._answered = True
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

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
            for question in self._asked:
                question.settle(left())
            self.when_left()

    async def _ping(self) -> None:
        await self._write(PING)
