"""One request in flight to an MCP server: who asked, its clock, and what is known of its fate.

A `ContextVar` carries it, because the HTTP transport runs each request in its sender's context:
what happens to the bytes can be noted on the exchange far below the code that waits for them.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import anyio

from mcp_bridge.clock import Clock, Clocks
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import frozen


@frozen
class Patience:
    """Seconds to wait for an answer; progress starts them again, up to `maximum` (L24).

    `maximum` is never less than `timeout`.
    """

    timeout: float
    maximum: float


ENDLESS = Patience(math.inf, math.inf)


class Exchange(Clock):
    """One request in flight, and the clock that ends it when no answer comes.

    `context` is None for requests that the bridge makes for itself. `sent`: its bytes may have
    reached the server. `broken`: why its answer can never come. `status`: the HTTP status when that
    was an error.
    """

    __slots__ = ("_answers", "_began", "broken", "context", "patience", "sent", "status")

    def __init__(
        self, context: CallContext | None, patience: Patience, clocks: Clocks | None = None
    ) -> None:
        super().__init__(clocks)
        self._began = time.monotonic()
        latest = math.inf if context is None else context.deadline
        self._deadline = min(self._began + patience.timeout, latest)
        self.context = context
        self.patience = patience
        self.sent = False
        self.broken: str | None = None
        self.status: int | None = None
        self._answers: tuple[anyio.CancelScope, ...] = ()

    @property
    def _limit(self) -> float:
        """When it ends in any case."""
        latest = math.inf if self.context is None else self.context.deadline
        return min(self._began + self.patience.maximum, latest)

    def break_off(self, reason: str) -> None:
        """Its answer can never come: who waits for it hears so now."""
        self.broken = reason
        self.cancel()

    def rearm(self) -> None:
        """The server has shown that it is at work: wait `timeout` seconds more."""
        self.deadline = min(self._limit, time.monotonic() + self.patience.timeout)

    @property
    def time_it_had(self) -> str:
        """The time that ended it, in words: its timeout, the maximum once progress has taken it
        that far, or what was left of the request that it is part of."""
        if self.context is not None and self.deadline >= self.context.deadline:
            return "in the time that was left for the request"
        at_the_limit = self.deadline >= self._limit
        return f"within {self.patience.maximum if at_the_limit else self.patience.timeout:g} s"

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While we answer what the server asked, only the maximum counts; the end stops it."""
        self.deadline = self._limit
        with anyio.CancelScope() as scope:
            self._answers += (scope,)
            try:
                yield
            finally:
                self._answers = tuple(s for s in self._answers if s is not scope)
                if not self._answers:
                    self.rearm()

    def finish(self) -> None:
        """The exchange has ended: nobody waits for answers that are still being made."""
        for scope in self._answers:
            scope.cancel()


CURRENT: ContextVar[Exchange | None] = ContextVar("mcp_bridge_exchange", default=None)
"""The exchange that the running code belongs to."""
