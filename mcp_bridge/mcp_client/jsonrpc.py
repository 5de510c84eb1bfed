"""JSON-RPC lines as servers really write them: decoded, told apart, and repaired where possible."""

import re
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, PARSE_ERROR

from mcp_bridge import exact
from mcp_bridge.types import Json

Id = int | str


class ConnectionLost(MCPError):
    """The connection ended before the answer came."""

    def __init__(self, reason: str) -> None:
        super().__init__(-32000, reason)


class StandIn(MCPError):
    """An error made of an HTTP status, where the server gave none of its own."""


class ForeignContent(MCPError):
    """What answered is of a kind that no MCP server sends."""


def encode(message: Json) -> bytes:
    """One line."""
    return exact.encode(message) + b"\n"


def key_of(request_id: Id) -> Id:
    """An id as it is looked up: `7` and `"7"` are the same request."""
    if isinstance(request_id, str) and request_id.isascii() and request_id.isdigit():
        return int(request_id)
    return request_id


def as_id(value: object) -> Id | None:
    """What a server sent as an id, as it is looked up; some send `7.0`."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        return key_of(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def is_answer(message: Json) -> bool:
    """Whether it answers a request, however badly. A log line that happens to be JSON does not."""
    return "id" in message and ("result" in message or "error" in message or "jsonrpc" in message)


def outcome(answer: Json) -> Json | MCPError:
    """The result of an answer, or its error, with the envelope repaired."""
    error = answer.get("error")
    if error is not None:
        return _error(error)
    result = answer.get("result")
    if isinstance(result, dict):
        return result
    return MCPError(PARSE_ERROR, f"the answer's result is no object but {_kind(result)}")


def _error(error: Any) -> MCPError:
    if not isinstance(error, dict):
        return MCPError(INTERNAL_ERROR, str(error))
    try:
        code = int(error.get("code", INTERNAL_ERROR))
    except (TypeError, ValueError, OverflowError):
        code = INTERNAL_ERROR
    message = error.get("message")
    text = message if isinstance(message, str) else "the server gave no message"
    return MCPError(code, text, error.get("data"))


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__


_ID = re.compile(r'"id"\s*:\s*("?)(-?\d+)\1')


def id_in_garbage(text: bytes | str) -> Id | None:
    """The id that a broken answer seems to have, looked for where envelopes have theirs."""
    start, end = text[:200], text[-200:]
    for part in (start, end):
        line = part.decode(errors="replace") if isinstance(part, bytes) else part
        if found := _ID.search(line):
            return int(found[2])
    return None
