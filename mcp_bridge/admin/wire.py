"""Bodies in, results out: both as they are, for what MCP servers say is not ours to model."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import Request, Response

from mcp_bridge.clock import Clock
from mcp_bridge.errors import RequestError
from mcp_bridge.tasks import Tasks
from mcp_bridge.types import Json

LEFT = 499
"""The client left before the answer; nobody reads this status."""


def json_response(value: Any, status: int = 200) -> Response:
    """JSON as it came, whatever it holds."""
    try:
        body = orjson.dumps(value)
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits
        body = json.dumps(value).encode()
    return Response(body, status, media_type="application/json")


async def read_object(request: Request, limit: int) -> Json:
    """The body as a JSON object of at most `limit` bytes; nothing is `{}`.

    Raises:
        RequestError: 413, it is too large; 400, it is no JSON object.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise RequestError(
                f"the request body is larger than {limit} bytes (limits.max_request_bytes)",
                code="request_too_large",
                status=413,
            )
    try:
        value = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as exc:
        raise RequestError(f"the request body is not JSON: {exc}", code="invalid_json") from exc
    if not isinstance(value, dict):
        raise RequestError("the request body must be a JSON object", code="invalid_json")
    return value


def arguments_in(body: Json, own_names: Any) -> Json:
    """The arguments in a body: the body itself, or what its only field `arguments` holds.

    `own_names` are the names of the arguments, for one of them may be called `arguments`.
    """
    if body.keys() != {"arguments"} or (own_names and "arguments" in own_names):
        return body
    inner = body["arguments"]
    if inner is None:
        return {}
    if not isinstance(inner, dict):
        raise RequestError("arguments must be a JSON object", param="arguments")
    return inner


async def result_of(request: Request, work: Callable[[], Awaitable[Json]]) -> Response:
    """What `work` gives, as JSON. A client that leaves stops it (DESIGN 3.11).

    Raises:
        BridgeError: it failed.
    """
    clock = Clock()
    watch = Tasks([_cancel_when_left(request, clock)])
    try:
        with clock:
            return json_response(await work())
    finally:
        await watch.end()
    return Response(status_code=LEFT)


async def _cancel_when_left(request: Request, work: Clock) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    work.cancel()
