"""Results and errors on their way to a client, as bytes of JSON-RPC."""

import logging
from functools import cached_property

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, RequestId
from pydantic import ValidationError

from mcp_bridge import exact
from mcp_bridge.errors import BridgeError
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)


class Written:
    """A result that many are given: made once, and written once."""

    def __init__(self, json: Json) -> None:
        self.json = json

    @cached_property
    def text(self) -> bytes:
        return exact.encode(self.json)


Result = Json | Written


def notification(method: str, params: Json) -> Json:
    message: Json = {"jsonrpc": "2.0", "method": method}
    return {**message, "params": params} if params else message


def answer_to(number: RequestId, result: Result) -> bytes:
    """The answer to a request.

    Raises:
        RequestError: the result is nested too deeply to be written.
    """
    if isinstance(result, Written):
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (exact.encode(number), result.text)
    return exact.encode({"jsonrpc": "2.0", "id": number, "result": result})


def refusal_of(number: RequestId | None, error: Json) -> bytes:
    """An error as the answer to a request; without a number, to something that is none."""
    return exact.encode({"jsonrpc": "2.0", "id": number, "error": error})


def error_of(exc: Exception) -> Json:
    """What a client is told of an exception that a request has raised."""
    match exc:
        case MCPError():
            error: Json = {"code": exc.error.code, "message": exc.error.message}
            return error if exc.error.data is None else {**error, "data": exc.error.data}
        case ValidationError():  # pydantic's words quote what was sent
            return {"code": INVALID_PARAMS, "message": "Invalid request parameters", "data": ""}
        case BridgeError():
            return {"code": INTERNAL_ERROR, "message": exc.message}
        case _:
            logger.error("a request failed in an unforeseen way", exc_info=exc)
            return {"code": INTERNAL_ERROR, "message": "Internal server error"}
