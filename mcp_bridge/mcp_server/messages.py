"""Results and errors on their way to a client, as bytes of JSON-RPC."""

import logging
from functools import cached_property

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, RequestId
from pydantic import ValidationError

from mcp_bridge import exact
from mcp_bridge.errors import RequestError
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


def notification(method: str, params: Json) -> bytes:
    """Something that the client is told.

    Raises:
        MCPError: it cannot be written.
    """
    message: Json = {"jsonrpc": "2.0", "method": method}
    return _written({**message, "params": params} if params else message)


def question(number: int, method: str, params: Json) -> bytes:
    """Something that the client is asked.

    Raises:
        MCPError: it cannot be written.
    """
    return _written({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def answer_to(number: RequestId, result: Result) -> bytes:
    """The answer to a request.

    Raises:
        MCPError: it cannot be written.
    """
    if isinstance(result, Written):
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (exact.encode(number), result.text)
    return _written({"jsonrpc": "2.0", "id": number, "result": result})


def refusal_of(number: RequestId | None, error: Json) -> bytes:
    """An error as the answer to a request; without a number, to something that is none."""
    return exact.encode({"jsonrpc": "2.0", "id": number, "error": error})


def _written(message: Json) -> bytes:
    try:
        return exact.encode(message)
    except RequestError as exc:  # it speaks of requests, and this is what a server has said
        raise MCPError(INTERNAL_ERROR, "this is nested too deeply to be passed on") from exc


def error_of(exc: Exception) -> Json:
    """What a client is told of an exception that a request has raised."""
    match exc:
        case MCPError():
            error: Json = {"code": exc.error.code, "message": exc.error.message}
            return error if exc.error.data is None else {**error, "data": exc.error.data}
        case ValidationError():  # pydantic's words quote what was sent
            return {"code": INVALID_PARAMS, "message": "Invalid request parameters", "data": ""}
        case _:
            logger.error("a request failed in an unforeseen way", exc_info=exc)
            return {"code": INTERNAL_ERROR, "message": "Internal server error"}
