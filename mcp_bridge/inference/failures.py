"""What inference servers say when they fail, as InferenceErrors.

Whatever shape it came in (vLLM's `{"object": "error", …}`, `{"detail": …}`, a bare string, an HTML
page, nothing), the caller gets OpenAI's error object, for that is all that clients read.
"""

import re
from collections.abc import Mapping
from typing import Any

from mcp_bridge.errors import InferenceError
from mcp_bridge.exact import decode, dumps
from mcp_bridge.types import Json

EXCERPT = 200
MESSAGE_FIELDS = ("message", "detail", "msg", "title")
OF_ERRORS = frozenset({"error", "object", "type"})
"""Where an answer says that it is an error."""

RELAYED = frozenset(
    {
        "openai-processing-ms",
        "retry-after",
        "retry-after-ms",
        "x-request-id",
        "x-should-retry",
    }
)
RELAYED_PREFIXES = ("x-ratelimit-", "ratelimit")


def relayed(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an answer (lower-case names) that the caller gets to see (DESIGN 3.13)."""
    return {
        name: value
        for name, value in headers.items()
        if name in RELAYED or name.startswith(RELAYED_PREFIXES)
    }


def refused(
    server: str, status: int, body: bytes, headers: Mapping[str, str] | None = None
) -> InferenceError:
    """An answer with an error status."""
    value = _json_or_text(body)
    error = error_object(value, status)
    if status in (401, 403):
        # The caller's SDK will speak of an authentication error, so say whose key it was.
        error["message"] = f'inference server "{server}" refused the bridge\'s key: ' + (
            error["message"] or f"status {status}"
        )
        error["code"] = "inference_server_auth"
    elif status == 404 and not (isinstance(value, dict) and "error" in value):
        error["message"] = (
            f'inference server "{server}" has no such endpoint (404): '
            "check base_url, which usually ends in /v1"
        )
    elif not error["message"]:
        error["message"] = f'inference server "{server}" answered {status} without saying why'
    return InferenceError(
        error["message"],
        status=status,
        code=error["code"],
        upstream={"error": error},
        headers=relayed(headers or {}),
    )


def in_band(server: str, chunk: Json) -> InferenceError | None:
    """The error that an answer with status 200 carries, or None."""
    if chunk.keys().isdisjoint(OF_ERRORS):  # as nearly all are
        return None
    found = chunk.get("error")
    if not found and "error" not in (chunk.get("object"), chunk.get("type")):
        return None
    code = (found if isinstance(found, dict) else chunk).get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 502
    error = error_object(chunk, status)
    error["message"] = error["message"] or f'inference server "{server}" failed without saying why'
    return InferenceError(
        error["message"], status=status, code=error["code"], upstream={"error": error}
    )


def broken(server: str, what: str, *, status: int = 502, code: str | None = None) -> InferenceError:
    """An answer that cannot be used: `what` tells why."""
    return InferenceError(f'inference server "{server}" {what}', status=status, code=code)


def error_object(value: Any, status: int) -> Json:
    """OpenAI's error object: message, type, param and code, and whatever else was there."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # Gemini puts an error into a list
    found = value.get("error") or value if isinstance(value, dict) else value
    if not isinstance(found, dict):
        found = {"message": found}
    message = next((found[key] for key in MESSAGE_FIELDS if found.get(key)), "")
    text = message if isinstance(message, str) else dumps(message)
    kind, param = found.get("type"), found.get("param")
    rest = {key: item for key, item in found.items() if key not in ("object", "detail")}
    return {
        **rest,
        "message": text,
        "type": kind if isinstance(kind, str) and kind else _type(status),
        "param": param if isinstance(param, str) else None,
        "code": _code(found.get("code"), status, text),
    }


def excerpt(body: bytes) -> str:
    """The readable beginning of a body that is not JSON: markup and scripts are left out."""
    text = body[:20_000].decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style|head)\b.*?(</\1>|$)", " ", text)
    text = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"


def _json_or_text(body: bytes) -> Any:
    try:
        return decode(body)
    except ValueError:
        return excerpt(body)


def _type(status: int) -> str:
    match status:
        case 401 | 403:
            return "authentication_error"
        case 429:
            return "rate_limit_error"
        case _:
            return "invalid_request_error" if status < 500 else "server_error"


def _code(code: Any, status: int, message: str) -> str | None:
    """A string or None, which is all that clients can read: llama.cpp repeats the status here."""
    if isinstance(code, str) and code:
        return code
    if isinstance(code, int) and not 400 <= code <= 599:
        return str(code)
    match status:
        case 429:
            return "rate_limit_exceeded"
        case 404:
            return "model_not_found" if "model" in message.lower() else "not_found"
        case _:
            return None if status < 500 else "inference_server_error"
