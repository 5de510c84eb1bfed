"""Chunks that are passed on without being taken apart are the same as if they had been."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_bridge.agent.reply import Reply
from mcp_bridge.api.stream import event
from mcp_bridge.inference.answer import Answer
from mcp_bridge.inference.fold import Fold
from mcp_bridge.inference.reading import Events

Json = dict[str, Any]
Heard = tuple[list[Json], Answer, int]


def passed_on(payloads: Sequence[bytes], *, spliced: bool, together: bool) -> Heard:
    """What a client gets of two rounds of this stream, the last answer, how much was spliced."""
    reply, spared = Reply("model-a", frozenset({"theirs"})), 0
    events: list[bytes] = []
    for _ in range(2):
        fold = Fold("engine")
        at = 0
        while at < len(payloads):
            seen = payloads if together else payloads[: at + 1]
            if spliced and (taken := fold.add_like_before(seen, at)):
                spared += taken
                at += taken
            else:
                chunk = json.loads(payloads[at])
                fold.add(chunk)
                if spliced:
                    fold.learn(payloads[at], chunk)
                at += 1
            if not together and (part := fold.take()):
                events += map(event, reply.chunks(part))
        fold.done()
        fold.close()
        if part := fold.take():
            events += map(event, reply.chunks(part))
        answer = fold.answer()
        events += map(event, reply.take(answer))
    return read_again(events), answer, spared


def heard(payloads: Sequence[bytes], together: int) -> tuple[list[Json], Answer]:
    """What a client gets, and the last answer, when so many events of a stream come together."""
    reply = Reply("model-a", frozenset({"theirs"}))
    events: list[bytes] = []
    for _ in range(2):
        fold = Fold("engine")
        stream = Events("engine", fold)
        written = [b"data: %b\n\n" % one.replace(b"\n", b"\ndata: ") for one in payloads]
        for at in range(0, len(written), together):
            if part := stream.hear(b"".join(written[at : at + together])):
                events += map(event, reply.chunks(part))
        fold.done()
        if part := stream.end():
            events += map(event, reply.chunks(part))
        answer = fold.answer()
        events += map(event, reply.take(answer))
    return read_again(events), answer


def read_again(events: Sequence[bytes]) -> list[Json]:
    said = b"".join(events).split(b"\n\n")[:-1]
    return [json.loads(e.removeprefix(b"data: ")) for e in said]


def same(payloads: Sequence[bytes]) -> int:
    """Check that splicing changes nothing; how many chunks it spared."""
    spared = 0
    for size in (1, 2, len(payloads)):
        assert heard(payloads, size) == passed_on(payloads, spliced=False, together=False)[:2]
    for together in (False, True):
        read = passed_on(payloads, spliced=False, together=together)
        spliced = passed_on(payloads, spliced=True, together=together)
        assert spliced[:2] == read[:2]
        spared = spliced[2]
    return spared


def chunk(text: str, field: str = "content", *, compact: bool = True, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {field: text}, "finish_reason": None}
    whole = {"id": "c1", "created": 1, "model": "m", "choices": [choice], **more}
    return json.dumps(whole, separators=(",", ":") if compact else None).encode()


def test_a_run_of_texts_is_passed_on_unread() -> None:
    texts = ["One", " two", ' "three"', " \\ four\n", " fünf", " \ud83d\ude42", " }]}"]
    for compact in (True, False):
        spared = same([chunk(text, compact=compact) for text in texts])
        assert spared == 2 * (len(texts) - 2)


def more(arguments: str, index: int = 0, **fields: Any) -> bytes:
    """A piece of a call's arguments."""
    call = {"index": index, **fields, "function": {"arguments": arguments}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
    return chunk("", choices=[choice])


def begun(name: str, index: int = 0) -> bytes:
    function = {"name": name, "arguments": ""}
    call = {"index": index, "id": f"call_{index}", "type": "function", "function": function}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
    return chunk("", choices=[choice])


@pytest.mark.parametrize("name", ["ours", "theirs"])
def test_the_arguments_of_a_call_are_put_together_unread(name: str) -> None:
    arguments = ['{"q":', ' "a', '\\"b', "ü\ud83d\ude42", '"}']
    payloads = [chunk("Well:"), begun(name), *map(more, arguments)]
    payloads += [begun(name, 1), *(more(text, 1) for text in arguments)]
    assert same(payloads) == 2 * 2 * (len(arguments) - 1)
    _, answer, _ = passed_on(payloads, spliced=True, together=False)
    assert [json.loads(call.arguments) for call in answer.calls] == [{"q": 'a"bü\U0001f642'}] * 2


def test_what_is_more_than_the_arguments_of_the_same_call_is_read() -> None:
    payloads = [
        begun("ours"),
        more('{"a":'),
        more("1", 1),
        more("2", 0, id="call_0"),
        more("3", 0, extra_content={"x": 1}),
        more("}"),
        begun("ours", 1),
        more("{}", 1),
        chunk("said"),
        more("", 1),
    ]
    assert same(payloads) == 0


def test_what_is_not_like_the_chunk_before_is_read() -> None:
    payloads = [
        chunk("a"),
        chunk("b"),
        chunk("c", created=2),
        chunk("d", "reasoning_content"),
        chunk("e", usage={"total_tokens": 3}),
        chunk("f", timings={"ms": 1}),
        chunk("g", system_fingerprint="fp"),
        chunk("h", choices=[{"index": 1, "delta": {"content": "h"}, "finish_reason": None}]),
        chunk("i", choices=[{"index": 0, "delta": {"content": "i", "x": 1}}]),
        chunk("j", choices=[{"index": 0, "delta": {"content": "j"}, "logprobs": {"content": [1]}}]),
        chunk("k", choices=[{"index": 0, "delta": {"content": "k"}, "finish_reason": "stop"}]),
    ]
    assert same(payloads) == 0


def test_a_text_that_holds_what_looks_like_a_field_is_not_mistaken() -> None:
    same([chunk(text) for text in ("a", "b", '"content": "x"', "c", "d", '{"content":"y"}', "e")])


def test_an_empty_or_broken_text_is_left_to_be_read() -> None:
    assert same([chunk("a"), chunk("b"), chunk(""), chunk("c"), chunk("d"), chunk("e")]) == 2
    fold = Fold("engine")
    for text in ("a", "b"):
        read = json.loads(chunk(text))
        fold.add(read)
        fold.learn(chunk(text), read)
    assert fold.add_like_before([chunk("c")], 0) == 1
    assert fold.add_like_before([chunk("c"), chunk("d"), chunk("")], 1) == 1
    assert fold.add_like_before([chunk("X").replace(b'"X"', b"7")], 0) == 0
    assert fold.add_like_before([chunk("X").replace(b'"X"', b'"a","role":"b"')], 0) == 0
    assert fold.add_like_before([chunk("X").replace(b'"X"', b'"\xff"')], 0) == 0


@pytest.mark.parametrize("space", [b"\n", b" ", b"\r\n\t"])
def test_white_space_around_a_text_is_not_passed_on(space: bytes) -> None:
    # A payload may come in several `data:` lines, and is then one with line breaks in it.
    for text in (b'"c"' + space, space + b'"c"'):
        assert same([chunk("a"), chunk("b"), chunk("c").replace(b'"c"', text), chunk("d")]) == 0


@pytest.mark.parametrize("piece", [{"function": {"arguments": "1"}}, {"custom": {"input": "1"}}])
def test_a_call_that_goes_on_beside_a_text_is_read(piece: Json) -> None:
    def both(text: str) -> bytes:
        delta = {"content": text, "tool_calls": [{"index": 0, **piece}]}
        return chunk("", choices=[{"index": 0, "delta": delta, "finish_reason": None}])

    assert same([begun("ours"), *map(both, "abcd")]) == 0


def test_a_piece_that_is_nothing_but_more_of_a_text_is_not_even_cut_into_events() -> None:
    fold = Fold("engine")
    for text in ("a", "b"):
        read = json.loads(chunk(text))
        fold.add(read)
        fold.learn(chunk(text), read)

    def goes_on(*texts: bytes) -> bool:
        made = (chunk("X").replace(b'"X"', text) for text in texts)
        return fold.goes_on(b"".join(b"data: %b\n\n" % one for one in made))

    assert goes_on(b'"c"')
    assert goes_on(b'"d"', b'"\\n\\""', b'"e"')
    # Each of these would be something else to a client than it is here.
    for odd in (b'""', b"7", b'"a","b"', b'"\\"', b'"\xff"', b'"a\nb"'):
        assert not goes_on(odd)
        assert not goes_on(b'"f"', odd)
    assert not goes_on(b'"g\\"', b'"h","i"'), "one text too few, and one too many"
    assert not fold.goes_on(b"data: " + chunk("j"))


PARTS = st.fixed_dictionaries(
    {"text": st.text(max_size=6) | st.sampled_from(['"', "\\", '"content":', "\x00text\x00"])},
    optional={
        "field": st.sampled_from(["content", "reasoning_content", "reasoning"]),
        "created": st.integers(1, 2),
        "usage": st.none() | st.just({"total_tokens": 1}),
        "object": st.just("chat.completion.chunk"),
        "service_tier": st.none() | st.just("default"),
    },
)


@given(st.lists(PARTS, min_size=1, max_size=12), st.booleans())
@settings(max_examples=200, deadline=None)
def test_splicing_never_changes_what_is_said(parts: list[Json], role_each_time: bool) -> None:
    payloads = []
    for part in parts:
        payload = chunk(**part)
        if role_each_time:
            payload = payload.replace(b'"delta":{', b'"delta":{"role":"assistant",', 1)
        payloads.append(payload)
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    same([*payloads, chunk("", choices=[end])])
