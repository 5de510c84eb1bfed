"""JSON to and from inference servers, without losing or tripping over anything."""

import json
from typing import Any

import orjson

from mcp_bridge.errors import RequestError
from mcp_bridge.types import Json


def encode(body: Json) -> bytes:
    """A request body as bytes.

    Half characters (lone surrogates) cannot be written as UTF-8 and no model has seen one: they
    become U+FFFD. Numbers beyond 64 bits stay exact.

    Raises:
        RequestError: nested too deeply, or it holds what JSON cannot say.
    """
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        pass
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return _mended(text).encode()
    except RecursionError as exc:
        raise RequestError("The request is nested too deeply.", code="invalid_json") from exc
    except (TypeError, ValueError) as exc:
        raise RequestError("The request cannot be written as JSON.", code="invalid_json") from exc


def decode(payload: bytes) -> Any:
    """JSON as engines write it: invalid UTF-8, half characters, NaN and huge numbers pass too.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        pass
    try:
        return _whole_characters(json.loads(payload.decode("utf-8", "replace")))
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def dumps(value: Any) -> str:
    """JSON text of a value that came from JSON."""
    return encode(value).decode()


def _mended(text: str) -> str:
    # UTF-16 joins the halves that belong together, and "replace" makes U+FFFD of the others.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _whole_characters(value: Any) -> Any:
    match value:
        case str():
            return value if value.isascii() else _mended(value)
        case list():
            return [_whole_characters(item) for item in value]
        case dict():
            return {_mended(key): _whole_characters(item) for key, item in value.items()}
        case _:
            return value
