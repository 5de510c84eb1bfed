"""Reading a request's body, and checking what we decide on. The rest passes untouched."""

from types import UnionType
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from mcp_bridge.api.headers import Headers
from mcp_bridge.errors import RequestError
from mcp_bridge.exact import loads
from mcp_bridge.types import Json

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
FIELDS: dict[str, tuple[type | UnionType, str]] = {
    "stream": (bool, "true or false"),
    "stream_options": (dict, "an object"),
    "tool_choice": (str | dict, "a string or an object"),
    "n": (int, "an integer"),
}
"""Fields of a chat that the bridge decides on: their types, and how these are called."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises:
        RequestError: 413, it is larger.
        ClientDisconnect: the client left before it had sent everything.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def check_announced(headers: Headers, limit: int) -> None:
    """Refuse a body by what its headers say, before it is sent.

    Raises:
        RequestError: 413, it is larger than `limit` bytes; 415, it is compressed.
    """
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise too_large(limit)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RequestError(
            f"content-encoding {encoding!r} is not understood here: send the body as it is",
            param="content-encoding",
            code="unsupported_encoding",
            status=415,
        )


def too_large(limit: int) -> RequestError:
    return RequestError(
        f"the request body is larger than {limit} bytes (limits.max_request_bytes)",
        code="request_too_large",
        status=413,
    )


def parse_object(raw: bytes) -> Json:
    """The body as a JSON object, with every number as exact as it came.

    Raises:
        RequestError: 400, it is no JSON, or no object.
    """
    if not raw or raw.isspace():
        raise RequestError("the request body is empty: send a JSON object", code="invalid_json")
    try:
        value = loads(raw)
    except ValueError as exc:
        raise RequestError(f"the request body is not JSON: {exc}", code="invalid_json") from exc
    if not isinstance(value, dict):
        raise RequestError("the request body must be a JSON object", code="invalid_json")
    return value


def check_chat(body: Json) -> None:
    """Check the fields of a chat request that the bridge decides on.

    Raises:
        RequestError: 400 with `param`.
    """
    check_model(body)
    check_messages(body.get("messages"), opened=names_a_prompt(body))
    if "tools" in body:
        check_tools(body["tools"])
    for name, (kind, expected) in FIELDS.items():
        if name in body:
            check_type(body[name], kind, name, expected)
    if isinstance(body.get("n"), bool):  # which is an int, too
        raise wrong("n", "an integer")


def check_model(body: Json) -> None:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise wrong("model", "the name of a model, such as one that GET /v1/models lists")


def names_a_prompt(body: Json) -> bool:
    extension = body.get("mcp")
    return isinstance(extension, dict) and bool(extension.get("prompt"))


def check_messages(messages: Any, *, opened: bool = False) -> None:
    """Check them; a conversation that a prompt opens may have none of its own."""
    if not isinstance(messages, list):
        raise wrong("messages", "a list of messages")
    if not messages and not opened:
        raise RequestError("messages must not be empty", param="messages")
    for number, message in enumerate(messages):
        if not is_plain(message):
            check_message(message, f"messages[{number}]")


def is_plain(message: Any) -> bool:
    """Whether it is somebody's text and nothing else, as most messages are."""
    if not isinstance(message, dict) or len(message) != 2:
        return False
    role, content = message.get("role"), message.get("content")
    return isinstance(role, str) and role in ROLES and isinstance(content, str)


def check_message(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        raise wrong(where, "an object")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise wrong(f"{where}.role", f"one of {', '.join(sorted(ROLES))}")
    check_type(content, str | list, f"{where}.content", "a string, a list of parts, or null")
    check_type(message.get("tool_call_id"), str, f"{where}.tool_call_id", "a string")
    calls = message.get("tool_calls")
    check_type(calls, list, f"{where}.tool_calls", "a list of tool calls")
    for number, call in enumerate(calls or ()):
        if not isinstance(call, dict):
            raise wrong(f"{where}.tool_calls[{number}]", "an object")
        check_type(call.get("id"), str, f"{where}.tool_calls[{number}].id", "a string")


def check_tools(tools: Any) -> None:
    check_type(tools, list, "tools", "a list of tools")
    for number, tool in enumerate(tools or ()):
        if not isinstance(tool, dict):
            raise wrong(f"tools[{number}]", "an object")
        if tool.get("type", "function") != "function":
            continue
        function = tool.get("function")
        if not isinstance(function, dict):
            raise wrong(f"tools[{number}].function", "an object with a name")
        if not isinstance(function.get("name"), str) or not function["name"]:
            raise wrong(f"tools[{number}].function.name", "the tool's name")


def check_flag(body: Json, name: str) -> None:
    check_type(body.get(name), bool, name, "true or false")


def check_type(value: Any, kind: type | UnionType, param: str, expected: str) -> None:
    """Null is as good as a field that is not there."""
    if value is not None and not isinstance(value, kind):
        raise wrong(param, expected)


def wrong(param: str, expected: str) -> RequestError:
    return RequestError(f"{param} must be {expected}", param=param, code="invalid_value")
