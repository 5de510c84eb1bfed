"""Calls that go on while their clients of the new era fetch an answer.

A server of the old era asks in the middle of a call and waits. A client of the new era must get
the question as the result of its request, and sends the request again with the answer. So the call
runs in a task of its own; its questions are handed out with a token, and whoever comes back with
the token, being the same caller with the same request, finds the call where it was.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from mcp_bridge.errors import BridgeError, SourceRefused
from mcp_bridge.mcp_server.client import CallOutbox, Client, refuse_what_it_cannot, without_token
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.tools.source import Answerer
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 300.0
"""How long a question stays open. Then the server is told that nobody answered."""

GATHER_SECONDS = 0.02
"""What a server asks side by side is handed out together: so long after the first, it is there."""

MOST_CALLS = 1000

Work = Callable[[Answerer], Awaitable[Json]]


@dataclass(slots=True, eq=False)
class Question:
    """Something that a server wants to know in the middle of a call."""

    method: str
    params: Json
    handed_out: bool = False
    answered: anyio.Event = field(default_factory=anyio.Event)
    answer: Json | None = None


class ParkedCall:
    """One call that may outlive the request that began it (an `Answerer`)."""

    def __init__(
        self, token: str, client: Client, subject: str, outbox: CallOutbox, answer_seconds: float
    ) -> None:
        self.answer_seconds = answer_seconds
        self.owner: tuple[Visit, str] = (client.visit, subject)
        self.token = token
        self.scope = anyio.CancelScope()
        self.questions: dict[str, Question] = {}
        self._client = client
        self._outbox = outbox
        self._asked = 0
        self._outcome: Json | Exception | None = None
        self._news = anyio.Event()

    def capabilities(self) -> Json:
        return self._client.capabilities

    async def answer(self, source: str, method: str, params: Json) -> Json:
        refuse_what_it_cannot(source, self.capabilities(), method, params)
        question = Question(method, without_token(params))
        self._asked += 1
        key = f"question-{self._asked}"
        self.questions[key] = question
        self._tell()
        try:
            with anyio.move_on_after(self.answer_seconds):
                await question.answered.wait()
        finally:
            self.questions.pop(key, None)
        if question.answer is None:
            raise SourceRefused(source, "the client gave no answer", rpc_code=INVALID_PARAMS)
        return question.answer

    async def run(self, work: Work) -> None:
        """Do the work in a task of its own."""
        with self.scope:
            try:
                async with self._outbox:
                    self._outcome = await work(self)
            except (MCPError, BridgeError) as exc:
                self._outcome = exc
            except Exception as exc:  # boundary: a task of its own must not end the others
                logger.exception("a call failed in an unexpected way")
                self._outcome = exc
        if self._outcome is None:
            self._outcome = MCPError(INTERNAL_ERROR, "the call was cancelled")
        self._tell()

    async def next(self) -> Json:
        """Its result, or the questions that are open now. Whoever stops waiting stops the call."""
        try:
            await self._until(lambda: bool(self.questions))
            if self._outcome is None:
                with anyio.move_on_after(GATHER_SECONDS):
                    await self._until(lambda: False)
        except BaseException:
            self.scope.cancel()
            raise
        if isinstance(self._outcome, Exception):
            raise self._outcome
        if self._outcome is not None:
            return self._outcome
        await self._outbox.flush()
        self._outbox.pause()
        for question in self.questions.values():
            question.handed_out = True
        asked = {k: {"method": q.method, "params": q.params} for k, q in self.questions.items()}
        return {
            "resultType": "input_required",
            "inputRequests": asked,
            "requestState": self.token,
        }

    def come_back(self, client: Client, answers: Json) -> None:
        """The client is here again, with answers to what was handed out."""
        self._client = client
        self._outbox.turn_to(client)
        for key in [key for key, question in self.questions.items() if question.handed_out]:
            question = self.questions.pop(key)
            answer = answers.get(key)
            question.answer = answer if isinstance(answer, dict) else None
            question.answered.set()

    async def _until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true, or the call is over."""
        while self._outcome is None and not true():
            await self._news.wait()

    def _tell(self) -> None:
        event, self._news = self._news, anyio.Event()
        event.set()


class Parked:
    """All such calls."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self.answer_seconds = ANSWER_SECONDS
        # Ours alone: a server behind us may be a bridge too, and its tokens are its own.
        self._prefix = f"mcp-bridge.{secrets.token_hex(4)}."
        self._calls: dict[str, ParkedCall] = {}

    def __len__(self) -> int:
        return len(self._calls)

    async def start(self, client: Client, subject: str, outbox: CallOutbox, work: Work) -> Json:
        """Begin a call; returns its result, or what it asks first."""
        if len(self._calls) >= MOST_CALLS:
            raise MCPError(INTERNAL_ERROR, "too many calls wait for answers; try again later")
        token = self._prefix + secrets.token_urlsafe(24)
        call = ParkedCall(token, client, subject, outbox, self.answer_seconds)
        self._calls[call.token] = call
        self._tasks.start_soon(self._run, call, work)
        return await call.next()

    async def _run(self, call: ParkedCall, work: Work) -> None:
        try:
            await call.run(work)
        finally:
            del self._calls[call.token]

    async def resume(self, client: Client, subject: str, params: Json) -> Json | None:
        """Go on with the call that a request comes back to; None: it does not come back to one.

        Raises:
            MCPError: the call is over.
        """
        token = params.get("requestState")
        if not isinstance(token, str) or not token.startswith(self._prefix):
            return None
        call = self._calls.get(token)
        if call is None or call.owner != (client.visit, subject):
            raise MCPError(
                INVALID_PARAMS, "this call is over, its answer came too late: begin it again"
            )
        answers = params.get("inputResponses")
        call.come_back(client, answers if isinstance(answers, dict) else {})
        return await call.next()
