"""The one place that calls a source.

Theory of operation. A tool call, from whichever door, comes here as a ToolCall and leaves as a raw
MCP `CallToolResult`. On its way: the caller's view was asked before (a tool that is not in it does
not exist) → its turn, for a source whose calls must not overlap → the source, both by the deadline
of the request → a record of what happened, always, also when the caller has left.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import field

import anyio

from mcp_bridge.errors import SourceError, SourceTimeout, SourceUnavailable
from mcp_bridge.telemetry import frequent
from mcp_bridge.tools.catalog import Entry
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Caller, Json, frozen

logger = logging.getLogger(__name__)

EARLY_SECONDS = 0.005
"""A source's timer may go off so much before the deadline: uvloop counts in milliseconds."""


@frozen
class ToolCall:
    """One call, from any door."""

    caller: Caller
    entry: Entry
    arguments: Json
    id: str
    door: str
    context: CallContext = field(default_factory=CallContext)


@frozen
class CallRecord:
    """What is known about a call when it has ended. `outcome`: ok, error, cancelled, or a code."""

    call: ToolCall
    outcome: str
    seconds: float


def log_record(record: CallRecord) -> None:
    call = record.call
    frequent.info(
        logger,
        "tool %s (%s) called by %s through %s: %s after %.3f s [%s]",
        call.entry.name,
        call.entry.source.name,
        call.caller.name,
        call.door,
        record.outcome,
        record.seconds,
        call.id,
    )


class ToolRunner:
    """Runs tool calls; `record` is told about each when it has ended."""

    def __init__(self, record: Callable[[CallRecord], None] = log_record) -> None:
        self._record = record
        self._turns: dict[str, anyio.Lock] = {}

    async def run(self, call: ToolCall) -> Json:
        """Call the tool and return the raw `CallToolResult`.

        Raises:
            SourceError: the source could not answer.
        """
        source, context = call.entry.source, call.context
        began = time.monotonic()
        outcome = "cancelled"
        try:
            if context.deadline <= began:
                raise out_of_time(call, its_turn=False)
            if source.parallel:
                result = await source.call(call.entry.tool.name, call.arguments, context)
            else:
                result = await self._in_turn(call)
            outcome = "error" if result.get("isError") is True else "ok"
            return result
        except SourceError as exc:
            outcome = exc.code or "error"
            if isinstance(exc, SourceTimeout) and is_over(context.deadline):
                raise out_of_time(call, its_turn=True) from exc
            raise
        except Exception as exc:  # boundary: a source may be anybody's code
            outcome = "source_error"
            logger.exception("source %s failed in an unforeseen way", source.name)
            what = f"{call.entry.name} failed unexpectedly: {type(exc).__name__}."
            raise SourceError(source.name, what) from exc
        finally:
            self._record(CallRecord(call, outcome, time.monotonic() - began))

    async def _in_turn(self, call: ToolCall) -> Json:
        source, context = call.entry.source, call.context
        turn = self._turns.setdefault(source.name, anyio.Lock())
        with anyio.move_on_after(context.deadline - time.monotonic()) as waiting:
            await turn.acquire()
        if waiting.cancelled_caught:
            raise out_of_time(call, its_turn=False)
        try:
            return await source.call(call.entry.tool.name, call.arguments, context)
        finally:
            turn.release()


def is_over(deadline: float) -> bool:
    """Whether it was this deadline that has ended a call."""
    return time.monotonic() >= deadline - EARLY_SECONDS


def out_of_time(call: ToolCall, *, its_turn: bool) -> SourceError:
    """What happened to a call that the request's own deadline ended."""
    name, source = call.entry.name, call.entry.source.name
    if its_turn:
        return SourceTimeout(source, f"{name} was stopped: the time for the request is used up.")
    return SourceUnavailable(
        source, f"{name} was not called: the time for the request ended while it waited its turn."
    )
