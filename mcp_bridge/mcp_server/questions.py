"""What clients of the old era are asked over HTTP: in a stream, to be answered with a POST."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from mcp.shared.exceptions import MCPError
from mcp_types import JSONRPCError, JSONRPCResponse

from mcp_bridge.mcp_client.jsonrpc import key_of
from mcp_bridge.types import Json


@dataclass(slots=True, eq=False)
class Question:
    """Something that a client is asked while one of its requests runs."""

    number: int
    outcome: Json | MCPError | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)

    def settle(self, outcome: Json | MCPError) -> None:
        """Say what came of it. The first word counts."""
        if self.outcome is None:
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
    def new(self) -> Iterator[Question]:
        """One more, which is open until this is left."""
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
