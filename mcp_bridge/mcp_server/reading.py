"""What came over a line or in a frame, as JSON-RPC: a message, a batch, or why it is neither."""

from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic import ValidationError

from mcp_bridge.exact import loads
from mcp_bridge.types import Json

BATCHES = "2025-03-26"
"""The only version of MCP that has batches."""


class Refused(Exception):
    """What came is not taken; `answer` says why to the one who sent it."""

    def __init__(self, code: int, why: str, number: RequestId | None = None) -> None:
        super().__init__(why)
        error = ErrorData(code=code, message=why)
        self.answer = JSONRPCError(jsonrpc="2.0", id=number, error=error)


def value_of(text: str | bytes) -> object:
    """The JSON of a line or a frame.

    Raises:
        Refused: it is not JSON.
    """
    try:
        return loads(text.encode() if isinstance(text, str) else text)
    except ValueError as exc:
        raise Refused(PARSE_ERROR, "this is not JSON") from exc


def message_of(value: object) -> JSONRPCMessage:
    """The message that a value is.

    Raises:
        Refused: it is none.
    """
    if not isinstance(value, dict):
        raise Refused(INVALID_REQUEST, "a JSON-RPC message is an object")
    try:
        return _kind_of(value).model_validate(value)
    except ValidationError as exc:
        raise Refused(INVALID_REQUEST, _why(exc), _number_of(value)) from exc


def parts_of(batch: list[object], version: str | None) -> list[object]:
    """The values in a batch, for a client of this version.

    Raises:
        Refused: batches are not for it, or there is nothing in this one.
    """
    if version != BATCHES:
        spoken = f"this session speaks {version}" if version else "no version is agreed on here"
        raise Refused(INVALID_REQUEST, f"batches exist in MCP {BATCHES} only, and {spoken}")
    if not batch:
        raise Refused(INVALID_REQUEST, "the batch is empty")
    return batch


def _kind_of(value: Json) -> type[JSONRPCMessage]:
    # By what is there: a union would make a notification of a request whose id is null.
    if "method" in value:
        return JSONRPCRequest if "id" in value else JSONRPCNotification
    return JSONRPCError if "error" in value else JSONRPCResponse


def _number_of(value: Json) -> RequestId | None:
    """The id that an answer names. A broken answer has one of ours, which we do not answer."""
    number = value.get("id")
    if "method" not in value and ("result" in value or "error" in value):
        return None
    return number if isinstance(number, int | str) and not isinstance(number, bool) else None


def _why(exc: ValidationError) -> str:
    first = exc.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"this is no JSON-RPC 2.0 message: {where}: {first['msg']}"
