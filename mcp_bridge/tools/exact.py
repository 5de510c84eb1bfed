"""JSON texts of callers and models, read so that nothing is lost and nothing later trips over it.

Integers stay exact whatever their size, and half characters (lone surrogates) become U+FFFD, which
can be written again.
"""

import json
import math
from typing import Any

import orjson

from mcp_bridge.errors import RequestError
from mcp_bridge.inference import wire

DIGITS = bytes.maketrans(b"123456789", b"000000000")
LONG_NUMBER = b"0" * 19
"""Integers of fewer digits fit into 64 bits; orjson makes floats of those that do not."""
MOST_DIGITS = 1000


def loads(text: bytes, *, strict: bool = True) -> Any:
    """The value of a JSON text. Not `strict`: raw line breaks may stand inside strings.

    Raises:
        ValueError: it is not JSON, or holds a number that is none.
    """
    if LONG_NUMBER not in text.translate(DIGITS):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
    try:
        return whole_characters(
            json.loads(
                text.decode("utf-8-sig"),
                strict=strict,
                parse_int=whole,
                parse_float=finite,
                parse_constant=refuse,
            )
        )
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is too large")
    return int(text)


def finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def whole_characters(value: Any) -> Any:
    """The same value with strings that can be written as UTF-8."""
    match value:
        case str():
            # UTF-16 joins the halves that belong together; the others become U+FFFD.
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        case list():
            return [whole_characters(item) for item in value]
        case dict():
            return {whole_characters(key): whole_characters(item) for key, item in value.items()}
        case _:
            return value


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
    return any(isinstance(item, dict | list) for item in level)


def dumps(value: Any) -> str:
    """Foreign JSON as text that a model reads."""
    try:
        return wire.dumps(value)
    except RequestError:
        return "[nested too deeply to be shown]"
