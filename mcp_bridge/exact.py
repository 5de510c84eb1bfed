"""JSON that others wrote, read and written so that nothing is lost and nothing trips over it.

Integers stay exact whatever their size (orjson makes floats of those beyond 64 bits), and half
characters (lone surrogates), which no UTF-8 can hold, become U+FFFD. `loads` refuses what is not
JSON, for callers and models should hear of it; `decode` forgives what engines and MCP servers
really send.
"""

import json
import math
from typing import Any

import orjson

from mcp_bridge.errors import RequestError

DIGITS = bytes.maketrans(b"123456789", b"000000000")
LONG_NUMBER = b"0" * 19
"""Integers of fewer digits fit into 64 bits."""

MOST_DIGITS = 1000


def loads(text: bytes, *, strict: bool = True) -> Any:
    """The value of a JSON text. Not `strict`: raw line breaks may stand inside strings.

    Raises:
        ValueError: it is not JSON, or holds a number that is none.
    """
    if text.translate(DIGITS).find(LONG_NUMBER) < 0:  # `in` would try it as a number first
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    try:
        return whole_characters(
            json.loads(
                text.decode("utf-8-sig"),
                strict=strict,
                parse_int=_whole,
                parse_float=_finite,
                parse_constant=_refuse,
            )
        )
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def decode(text: bytes | str) -> Any:
    """JSON as it really comes: invalid UTF-8, half characters and NaN (as null) pass too.

    Raises:
        ValueError: it is not JSON.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if data.translate(DIGITS).find(LONG_NUMBER) < 0:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    try:
        return whole_characters(
            json.loads(
                data.decode("utf-8", "replace"),
                parse_float=_float_or_null,
                parse_constant=_null,
            )
        )
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


class Encoded:
    """A part of a value that is JSON already, and is put where it stands as it is."""

    __slots__ = ("json",)

    def __init__(self, json: bytes) -> None:
        self.json = json


def encode(value: Any) -> bytes:
    """A value that came from JSON, as bytes; parts of it may be `Encoded` already.

    Raises:
        RequestError: nested too deeply, or it holds what JSON cannot say.
    """
    try:
        return orjson.dumps(value, default=_as_it_is)
    except orjson.JSONEncodeError:
        pass
    try:
        text = json.dumps(
            value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_read_again
        )
        return _mended(text).encode()
    except RecursionError as exc:
        raise RequestError("The request is nested too deeply.", code="invalid_json") from exc
    except (TypeError, ValueError) as exc:
        raise RequestError("The request cannot be written as JSON.", code="invalid_json") from exc


def dumps(value: Any) -> str:
    """The same as `encode`, as text."""
    return encode(value).decode()


def text_of(value: Any) -> str:
    """Foreign JSON as text that a model or a person reads. Never fails."""
    try:
        return dumps(value)
    except RequestError:
        return "[nested too deeply to be shown]"


def nested(value: Any, levels: int) -> bool:
    """Whether a value is nested more than `levels` deep."""
    level = [value]
    for _ in range(levels):
        level = [
            below
            for item in level
            if isinstance(item, dict | list)
            for below in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def whole_characters(value: Any) -> Any:
    """The same value with strings that can be written as UTF-8."""
    match value:
        case str():
            return value if value.isascii() else _mended(value)
        case list():
            return [whole_characters(item) for item in value]
        case dict():
            return {_mended(key): whole_characters(item) for key, item in value.items()}
        case _:
            return value


def _mended(text: str) -> str:
    # UTF-16 joins the halves that belong together, and "replace" makes U+FFFD of the others.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _as_it_is(value: object) -> orjson.Fragment:
    if isinstance(value, Encoded):
        return orjson.Fragment(value.json)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _read_again(value: object) -> Any:
    if isinstance(value, Encoded):
        return json.loads(value.json)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _null(name: str) -> None:
    return None


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too large")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _float_or_null(text: str) -> float | None:
    number = float(text)
    return None if math.isinf(number) else number
