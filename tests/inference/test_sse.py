"""Events are cut from bytes, wherever the network cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.inference.sse import SseReader


def read(*pieces: bytes) -> list[bytes]:
    reader = SseReader()
    found = [payload for piece in pieces for payload in reader.feed(piece)]
    return [*found, *reader.close()]


TABLE: dict[str, tuple[bytes, list[bytes]]] = {
    "one event": (b"data: a\n\n", [b"a"]),
    "several events": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "no space after the colon": (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "CR": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
    "several lines": (b"data: a\ndata: b\n\n", [b"a\nb"]),
    "an empty payload": (b"data:\n\ndata\n\n", [b""]),
    "comments": (b": ping\n\n:\n\ndata: a\n: in between\n\n", [b"a"]),
    "other fields": (b"id: 1\nevent: x\nretry: 5\ndata: a\n\nid: 2\n\n", [b"a"]),
    "a field that begins like data": (b"database: a\n\ndata: b\n\n", [b"b"]),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "no line end at the end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "a byte order mark later": (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
    "only a byte order mark": (b"\xef\xbb\xbf", []),
    "a byte order mark and one line": (b"\xef\xbb\xbfdata: a", [b"a"]),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
    "line ends of other alphabets": (
        "data: a\u2028\x85\x0b\x0c\x1eb\n\n".encode(),
        ["a\u2028\x85\x0b\x0c\x1eb".encode()],
    ),
    "bytes that are no UTF-8": (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", TABLE)
def test_payloads_are_found(name: str) -> None:
    stream, payloads = TABLE[name]
    assert read(stream) == payloads


@pytest.mark.parametrize("name", TABLE)
def test_it_does_not_matter_where_a_stream_is_cut(name: str) -> None:
    stream, payloads = TABLE[name]
    assert read(*(stream[n : n + 1] for n in range(len(stream)))) == payloads
    for at in range(len(stream) + 1):
        assert read(stream[:at], b"", stream[at:]) == payloads


lines = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data:b",
            "data: é🙂".encode(),
            b": c",
            b"id: 1",
            b"",
            b"\n",
            b"\r\n",
            b"\r",
            b"x",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(stream=lines, places=st.lists(st.integers(0, 60), max_size=8))
def test_any_bytes_in_any_pieces_give_the_same(stream: bytes, places: list[int]) -> None:
    at = sorted({0, len(stream), *(place for place in places if place < len(stream))})
    assert read(*(stream[a:b] for a, b in pairwise(at))) == read(stream)


def test_an_event_is_there_with_its_last_byte() -> None:
    reader = SseReader()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [b"a"]
    assert reader.feed(b"data: b\r\n\r") == [b"b"]
    assert reader.feed(b"\ndata: c\n\n") == [b"c"]


def test_a_payload_may_come_in_very_many_pieces() -> None:
    text = b"x" * 200_000
    assert read(b"data: ", *(text[n : n + 10] for n in range(0, len(text), 10)), b"\n\n") == [text]
