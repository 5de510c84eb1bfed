"""JSON passes both ways without being lost or breaking anything."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.errors import RequestError
from mcp_bridge.exact import decode, dumps, encode
from mcp_bridge.types import Json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(value=json_values)
def test_what_was_written_is_read_again(value: Any) -> None:
    assert decode(encode({"x": value})) == {"x": value}
    assert json.loads(dumps(value)) == value


def test_the_order_of_keys_stays() -> None:
    assert encode({"b": 1, "a": {"d": 1, "c": 2}}) == b'{"b":1,"a":{"d":1,"c":2}}'


def test_large_numbers_stay_exact() -> None:
    assert encode({"n": 2**80}) == b'{"n":1208925819614629174706176}'
    assert decode(b'{"n":1208925819614629174706176}') == {"n": 2**80}


def test_half_characters_become_the_replacement_character() -> None:
    assert encode({"a\ud800": ["\ud83d", "ok"]}) == '{"a\ufffd":["\ufffd","ok"]}'.encode()
    assert decode(b'{"a":"\\ud83d"}') == {"a": "\ufffd"}


def test_halves_that_belong_together_are_joined() -> None:
    assert encode({"a": "\ud83d\ude42\ud800"}) == '{"a":"🙂\ufffd"}'.encode()
    assert decode(b'{"a":"\\ud83d\\ude42", "b": NaN, "c": "\\ud800"}')["a"] == "🙂"


@pytest.mark.parametrize("payload", [b'{"a": "\xff"}', b'\xef\xbb\xbf{"a": 1}'])
def test_bytes_that_are_no_utf8_or_marked_are_read_as_far_as_they_can_be(payload: bytes) -> None:
    try:
        assert isinstance(decode(payload), dict)
    except ValueError:
        assert payload.startswith(b"\xef\xbb\xbf")  # the reader takes the mark off


def test_numbers_that_json_has_not_are_read_as_null() -> None:
    value = decode(b'{"a": NaN, "b": Infinity, "c": -Infinity, "d": 1e999}')
    assert value == {"a": None, "b": None, "c": None, "d": None}
    assert encode(value) == b'{"a":null,"b":null,"c":null,"d":null}'


def test_numbers_beyond_64_bits_are_read_and_written_exactly() -> None:
    text = b'{"a":123456789012345678901234567890}'
    assert encode(decode(text)) == text


@pytest.mark.parametrize("payload", [b"", b"{", b"[DONE]", b"{'a': 1}", b'{"a": 1} x'])
def test_what_is_no_json_is_said_to_be_none(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode(payload)


def test_depth_is_an_error_and_no_crash() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RequestError, match="nested too deeply"):
        encode({"x": value})
    with pytest.raises(ValueError):
        decode(b"[" * 100_000 + b"]" * 100_000)


def test_what_json_cannot_say_is_an_error() -> None:
    body: Json = {"x": object()}
    with pytest.raises(RequestError, match="cannot be written as JSON"):
        encode(body)
