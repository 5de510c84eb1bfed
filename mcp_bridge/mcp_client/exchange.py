"""One request in flight to an MCP server: who asked, its clock, and what is known of its fate.

A `ContextVar` carries it, because the HTTP transport runs each request in its sender's context:
what happens to the bytes can be noted on the exchange far below the code that waits for them.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import anyio

from mcp_bridge.clock import Clock
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import frozen


@frozen
class Patience:
    """Seconds to wait for an answer; progress starts them again, up to `maximum` (L24).

    `maximum` is never less than `timeout`. `deadline`, as `time.monotonic` counts, ends the wait
    in any case.
    """

    timeout: float
    maximum: float
    deadline: float = math.inf


@dataclass(slots=True, eq=False)
class Exchange:
    """One request in flight. `context` is None for requests that the bridge makes for itself.

    `sent`: its bytes may have reached the server. `broken`: why its answer can never come.
    `status`: the HTTP status when that was an error.
    """

    context: CallContext | None
    patience: Patience
    clock: Clock = field(default_factory=Clock)
    sent: bool = False
    broken: str | None = None
    status: int | None = None
    _limit: float = math.inf
    _answers: set[anyio.CancelScope] = field(default_factory=set)

    def break_off(self, reason: str) -> None:
        """Its answer can never come: who waits for it hears so now."""
        self.broken = reason
        self.clock.cancel()

    def start(self) -> None:
        """Start the clock. It was not running while the request waited for its turn."""
        self._limit = min(time.monotonic() + self.patience.maximum, self.patience.deadline)
        self.rearm()

    def rearm(self) -> None:
        """The server has shown that it is at work: wait `timeout` seconds more."""
        self.clock.deadline = min(self._limit, time.monotonic() + self.patience.timeout)

    @property
    def seconds(self) -> float:
        """How long it had: its timeout, or the maximum once progress has taken it that far."""
        at_the_limit = self.clock.deadline >= self._limit
        return self.patience.maximum if at_the_limit else self.patience.timeout

    @contextmanager
    def answering(self) -> Iterator[None]:
        """While we answer what the server asked, only the maximum counts; the end stops it."""
        self.clock.deadline = self._limit
        with anyio.CancelScope() as scope:
            self._answers.add(scope)
            try:
                yield
            finally:
                self._answers.discard(scope)
                if not self._answers:
                    self.rearm()

    def finish(self) -> None:
        """The exchange has ended: nobody waits for answers that are still being made."""
        for scope in list(self._answers):
            scope.cancel()


CURRENT: ContextVar[Exchange | None] = ContextVar("mcp_bridge_exchange", default=None)
"""The exchange that the running code belongs to."""
