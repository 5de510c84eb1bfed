"""Event streams as servers really write them."""

import pytest

from mcp_bridge.mcp_client.events import Event, EventReader


def read(stream: bytes, size: int) -> tuple[list[Event], EventReader]:
    reader = EventReader()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.close(), reader


STREAMS = {
    "line feeds": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "carriage returns and line feeds": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed line ends": (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "comments": (b": hello\ndata: a\n: more\n\n: end\n\n", [b"a"]),
    "several data lines": (b"data: a\ndata: b\ndata:\n\n", [b"a\nb\n"]),
    "no space after the colon": (b"data:a\n\n", [b"a"]),
    "two spaces after the colon": (b"data:  a\n\n", [b" a"]),
    "a field without a colon": (b"data\n\n", [b""]),
    "unknown fields": (b"color: red\ndata: a\n\n", [b"a"]),
    "an event without data": (b"event: ping\n\ndata: a\n\n", [b"a"]),
    "characters of several bytes": ("data: hé€😀\n\n".encode(), ["hé€😀".encode()]),
    "a line end of Unicode inside": ("data: a\u2028b\x85c\n\n".encode(), [None]),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "no line end at the end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "blank lines": (b"\n\n\ndata: a\n\n\n\n", [b"a"]),
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", STREAMS)
def test_events_are_cut_wherever_the_network_cuts_the_stream(name: str, size: int) -> None:
    stream, expected = STREAMS[name]
    found = [event.data for event in read(stream, size)[0]]
    assert found == ([stream[6:-2]] if expected == [None] else expected)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_an_event_has_a_name_that_is_not_the_next_ones(size: int) -> None:
    stream = b"event: endpoint\ndata: /x\n\nevent: lost\n\ndata: y\n\n"
    assert read(stream, size)[0] == [Event(b"/x", b"endpoint"), Event(b"y", b"message")]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_an_id_without_data_counts_and_the_last_one_stays(size: int) -> None:
    events, reader = read(b"id: 7\ndata:\n\ndata: a\n\n", size)
    assert [event.data for event in events] == [b"", b"a"]
    assert reader.last_id == "7"
    assert reader.again().last_id == "7"


def test_an_id_counts_when_its_event_is_complete() -> None:
    reader = EventReader()
    reader.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert reader.last_id == "1"


def test_an_id_with_a_zero_byte_is_none() -> None:
    assert read(b"id: a\0b\ndata: x\n\n", 1000)[1].last_id == ""


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("250", 0.25), ("0", 0.0), ("soon", None), ("-1", None), ("", None), ("9" * 30, None)],
)
def test_the_time_to_ask_again_is_a_number_of_milliseconds(
    value: str, seconds: float | None
) -> None:
    _, reader = read(f"retry: {value}\n\n".encode(), 1000)
    assert reader.retry == seconds
    assert reader.again().retry == seconds


def test_what_was_heard_are_events_with_data() -> None:
    assert read(b": hello\n\nid: 1\ndata:\n\n", 1000)[1].heard is False
    assert read(b"data: a\n\n", 1000)[1].heard is True


def test_an_event_of_any_size_is_read_in_time_that_grows_with_it() -> None:
    reader, piece = EventReader(), b"x" * 1000
    assert reader.feed(b"data: ") == []
    for _ in range(20_000):
        assert reader.feed(piece) == []
    [event] = reader.feed(b"\n\n")
    assert len(event.data) == 20_000_000
