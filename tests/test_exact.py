"""JSON texts read so that nothing is lost."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.exact import loads, nested, text_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_whatever_can_be_said_in_json_is_read_as_it_was_meant(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        read = loads(text.encode("utf-8"))
        assert read == value
        assert json.dumps(read) == json.dumps(value)


@given(st.text(st.characters(codec=None, categories=("Cs", "Lu", "So"))))
def test_half_characters_become_whole_ones_and_can_be_written_again(text: str) -> None:
    read = loads(json.dumps({text: [text]}).encode())
    ((key, (value,)),) = read.items()
    assert key == value
    assert value.encode("utf-8").decode() == value
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert value == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e400", "1e400 is too large"),
        (b"1" * 1001, "1001 digits is too large"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b"[" * 100_000, "nested too deeply"),
        (b'"a\nb"', "Invalid control character"),
        (b"{} {}", "Extra data"),
    ],
)
def test_what_is_not_json_is_refused_with_the_reason(text: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loads(text)


def test_raw_line_breaks_in_strings_are_read_when_asked_for() -> None:
    assert loads(b'{"a": "one\ntwo\t"}', strict=False) == {"a": "one\ntwo\t"}


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert loads(b"\xef\xbb\xbf{}") == {}


def test_depth_is_counted_in_lists_and_objects() -> None:
    assert not nested("text", 0)
    assert nested([], 0)
    assert not nested([1, {}], 2)
    assert nested([1, {"a": [2]}], 2)


def test_foreign_json_of_every_kind_can_be_shown() -> None:
    assert text_of({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'
    assert text_of({"a": 2**70, "b": "\ud800"}) == '{"a":1180591620717411303424,"b":"\ufffd"}'
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert "too deeply" in text_of(deep)
