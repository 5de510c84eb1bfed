"""How a call and its errors are written between workers."""

import math
import time
from collections.abc import Mapping

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from mcp_bridge.errors import (
    BridgeError,
    OutcomeUnknown,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Caller, Json

KINDS: Mapping[str, type[SourceError]] = {
    kind.__name__: kind for kind in (SourceUnavailable, SourceTimeout, OutcomeUnknown, SourceError)
}


def written(number: int, context: CallContext) -> Json:
    """What surrounds a call, as the keeper reads it."""
    left = context.deadline - time.monotonic()
    return {
        "call": number,
        "caller": fields_of(context.caller),
        "request_id": REQUEST_ID.get(),
        "timeout": context.timeout,
        "seconds": None if left == math.inf else left,
        "progress": context.on_progress is not None,
        "logs": context.on_log is not None,
        "capabilities": context.answerer.capabilities() if context.answerer else None,
        "meta": context.meta,
        "extra": context.extra,
        "hands_back": context.hands_back,
    }


def fields_of(caller: Caller) -> Json:
    return {
        "name": caller.name,
        "tenant": caller.tenant,
        "scopes": list(caller.scopes),
        "toolset": caller.toolset,
        "tools": caller.tools,
    }


def caller_of(fields: Json) -> Caller:
    tools = fields["tools"]
    return Caller(
        name=fields["name"],
        tenant=fields["tenant"],
        scopes=frozenset(fields["scopes"]),
        toolset=fields["toolset"],
        tools=tuple(tools) if tools is not None else None,
    )


def as_rpc(error: BridgeError) -> MCPError:
    """An error of a source, so that `error_of` makes the same one of it."""
    if isinstance(error, SourceRefused):
        return MCPError(error.rpc_code, error.message, {"refused": True, "data": error.data})
    kind = next(
        (name for name, kind in KINDS.items() if isinstance(error, kind)), SourceError.__name__
    )
    return MCPError(INTERNAL_ERROR, error.message, {"kind": kind})


def error_of(source: str, error: MCPError) -> SourceError:
    code, message, data = error.error.code, error.error.message, error.error.data
    told: Json = data if isinstance(data, dict) else {}
    if told.get("refused"):
        return SourceRefused(source, message, rpc_code=code, data=told.get("data"))
    return KINDS.get(str(told.get("kind")), SourceError)(source, message)
