"""What is known about a conversation when it has ended: one record for each (O3)."""

import logging

from mcp_bridge.telemetry import frequent
from mcp_bridge.types import Json, frozen

logger = logging.getLogger(__name__)


@frozen
class ConversationRecord:
    """How a conversation went.

    `outcome` is the finish reason, or `error`, or `cancelled` when the caller left. `stopped` names
    the bound that ended it. `seconds` are wall clock, `usage` is the sum of all rounds.
    """

    caller: str
    model: str
    door: str
    outcome: str
    stopped: str | None
    rounds: int
    calls: int
    seconds: float
    usage: Json | None


def log_conversation(record: ConversationRecord) -> None:
    """One line, whose parts are fields in the JSON format."""
    frequent.info(
        logger,
        "conversation of %s with %s: %s after %d rounds, %d tool calls and %.3f s%s",
        record.caller,
        record.model,
        record.outcome,
        record.rounds,
        record.calls,
        record.seconds,
        f" ({record.stopped})" if record.stopped else "",
        extra={
            "outcome": record.outcome,
            "stopped": record.stopped,
            "rounds": record.rounds,
            "calls": record.calls,
            "seconds": round(record.seconds, 3),
        },
    )
