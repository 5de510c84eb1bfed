"""A stream folds into the same answer as the whole completion, whatever an engine's habits."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.answer import Answer, Part
from mcp_bridge.inference.fold import Fold, finish_reason
from mcp_bridge.types import Json
from tests.inference.engines.fixture import DONE, calling, sse, usage
from tests.inference.engines.folding import (
    cut,
    new_fold,
    said,
    shown,
    stream_parts,
    streamed,
    whole,
)


def chunk(delta: Json | None, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "model": "m", "choices": [] if delta is None else [choice], **more}


def completion(message: Json, finish: str | None = "stop", **more: Any) -> Json:
    return {
        "id": "c",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        **more,
    }


def fold(*chunks: Json) -> Answer:
    return streamed([sse(*chunks, DONE)])


# Any script, with any habits


@dataclass(frozen=True)
class Script:
    """What a model said: pieces of text and reasoning, then calls of (id, name, arguments)."""

    pieces: list[tuple[str, str]]
    calls: list[tuple[str, str, str]]
    usage: Json | None
    reason: str

    def text(self, field: str) -> str:
        return "".join(text for at, text in self.pieces if at == field)


arguments = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.recursive(
        st.none() | st.integers(-9, 9) | st.sampled_from(["", "{", '"}', "é🙂", "\\", "\n"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("c"), inner),
        max_leaves=4,
    ),
    max_size=2,
).flatmap(
    lambda value: st.sampled_from(
        [json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))]
    )
)

scripts = st.builds(
    lambda pieces, calls, counted, reason: Script(
        pieces, [(f"call_{n}", *call) for n, call in enumerate(calls)], counted, reason
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["content", "reasoning_content"]), st.sampled_from(["Hi", " é🙂", "\n"])
        ),
        max_size=4,
    ),
    st.lists(st.tuples(st.sampled_from(["add", "now"]), arguments), max_size=3),
    st.none() | st.just(usage(7, 3)),
    st.sampled_from(["stop", "tool_calls"]),
)

HABITS: dict[str, list[str]] = {
    "index": ["right", "missing", "zero", "from one"],
    "id": ["once", "always", "missing", "empty later", "another in each piece"],
    "name": ["once", "always", "empty later"],
    "calls": ["in pieces", "whole", "all at once", "as objects"],
    "role": ["once", "always", "never"],
    "nulls": ["no", "yes"],
    "finish": ["alone", "with the last", "upper case", "missing"],
    "usage": ["alone", "with the finish", "always", "first", "twice"],
    "lines": ["\n\n", "\r\n\r\n", "\r\r"],
    "comments": ["no", "yes"],
}


def can_be_told_apart(habits: dict[str, str]) -> dict[str, str]:
    """What some engine may do: a piece says at least one thing that tells whose it is."""
    counted = habits["index"] in ("right", "from one")
    if not counted and habits["id"] in ("missing", "another in each piece"):
        return {**habits, "id": "missing", "calls": "whole"}
    if habits["id"] == "another in each piece" or (
        habits["index"] == "missing" and habits["id"] != "always" and habits["name"] == "always"
    ):
        return {**habits, "name": "once"}
    return habits


habits_of_engines = st.fixed_dictionaries(
    {habit: st.sampled_from(values) for habit, values in HABITS.items()}
).map(can_be_told_apart)


def items_of(script: Script, habits: dict[str, str], size: int) -> Iterator[list[Json]]:
    """The values of `tool_calls` in the chunks of a stream."""
    every: list[Json] = []
    for number, (id, name, text) in enumerate(script.calls):
        at = {"right": number, "missing": None, "zero": 0, "from one": number + 1}[habits["index"]]
        first_id = None if habits["id"] == "missing" else id
        if habits["calls"] == "as objects":
            every.append(calling(at, first_id, name, json.loads(text)))
        elif habits["calls"] != "in pieces":
            every.append(calling(at, first_id, name, text))
        else:
            ids = {"always": id, "empty later": ""}
            later_name = {"always": name, "empty later": ""}.get(habits["name"])
            yield [calling(at, first_id, name, "")]
            for begin in range(0, len(text), size):
                more = f"{id}_{begin}" if "another" in habits["id"] else ids.get(habits["id"])
                yield [calling(at, more, later_name, text[begin : begin + size])]
    if habits["calls"] == "all at once":
        yield every
    else:
        yield from ([item] for item in every)


def chunks_of(script: Script, habits: dict[str, str], size: int) -> list[Json]:
    deltas: list[Json] = [{"role": "assistant"}] if habits["role"] == "once" else []
    deltas += [{field: text} for field, text in script.pieces]
    deltas += [{"tool_calls": items} for items in items_of(script, habits, size) if items]
    if habits["role"] == "always":
        deltas = [{"role": "assistant", **delta} for delta in deltas]
    if habits["nulls"] == "yes":
        empty = {"content": None, "tool_calls": None, "refusal": None, "function_call": None}
        deltas = [{**empty, **delta} for delta in deltas]
    made = [chunk(delta) for delta in deltas]
    reason = script.reason.upper() if habits["finish"] == "upper case" else script.reason
    if habits["finish"] == "with the last" and made:
        made[-1]["choices"][0]["finish_reason"] = reason
    elif habits["finish"] != "missing":
        made.append(chunk({}, reason))
    return counted_in(made, script, habits["usage"])


def counted_in(made: list[Json], script: Script, habit: str) -> list[Json]:
    if script.usage is None:
        return made
    alone = chunk(None, usage=script.usage)
    match habit:
        case "with the finish" if made:
            made[-1]["usage"] = script.usage
        case "always":
            made = [{**c, "usage": usage(7, n)} for n, c in enumerate(made)] + [alone]
        case "first":
            made = [alone, *made]
        case "twice":
            made += [alone, alone]
        case _:
            made += [alone]
    return made


def stream_of(script: Script, habits: dict[str, str], size: int) -> bytes:
    events: list[Json | str] = [*chunks_of(script, habits, size), DONE]
    if habits["comments"] == "yes":
        events = [event for one in events for event in (": ping", one)]
    return sse(*events, end=habits["lines"])


def whole_of(script: Script) -> Json:
    message: Json = {"role": "assistant", "content": script.text("content") or None}
    message["reasoning_content"] = script.text("reasoning_content")
    if script.calls:
        message["tool_calls"] = [calling(None, *call) for call in script.calls]
    return completion(message, script.reason, **({"usage": script.usage} if script.usage else {}))


def meaning(calls: list[tuple[str, str, str]], habits: dict[str, str]) -> list[tuple[Any, ...]]:
    """What must be found of calls: no id where there was none, nor how an object is written."""
    with_id, as_text = habits["id"] != "missing", habits["calls"] != "as objects"
    return [
        (id if with_id else None, name, text if as_text else json.loads(text))
        for id, name, text in calls
    ]


@given(script=scripts, habits=habits_of_engines, size=st.integers(1, 9), data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_stream_with_any_habits_means_the_same_as_the_whole(
    script: Script, habits: dict[str, str], size: int, data: st.DataObject
) -> None:
    if habits["finish"] == "missing" and not script.text("content") and not script.calls:
        return  # nothing at all is an error, and has its own test
    stream = stream_of(script, habits, size)
    places = data.draw(st.lists(st.integers(1, len(stream)), max_size=5))
    *parts, live = stream_parts(cut(stream, places))
    assert isinstance(live, Answer)
    same = whole(whole_of(script))
    assert said({**live.message, "content": live.message["content"] or None}) == said(
        {**same.message, "content": same.message["content"] or None}
    )
    assert (live.message["content"] or "") == script.text("content") == shown(parts)
    assert live.message.get("reasoning_content", "") == script.text("reasoning_content")
    assert live.usage == same.usage == script.usage
    assert live.finish_reason == (None if habits["finish"] == "missing" else script.reason)
    assert same.finish_reason == script.reason
    found = [(call.id, call.name, call.arguments) for call in live.calls]
    assert meaning(found, habits) == meaning(script.calls, habits)
    assert [(call.id, call.name, call.arguments) for call in same.calls] == script.calls
    assert all(call.complete for call in (*live.calls, *same.calls))
    fragments = [f for part in parts if isinstance(part, Part) for f in part.fragments]
    assert [
        "".join(f.arguments for f in fragments if f.position == n) for n in range(len(found))
    ] == [text for _, _, text in found]


# What a part shows


def test_a_chunk_keeps_its_own_fields_and_loses_what_the_answer_tells() -> None:
    *parts, _ = stream_parts(
        [
            sse(
                chunk(
                    {"role": "assistant", "content": "Hi", "x": 1}, "stop", y=2, usage=usage(1, 1)
                ),
                DONE,
            )
        ]
    )
    (part,) = parts
    assert isinstance(part, Part)
    (only,) = part.read()
    choice = {"index": 0, "delta": {"content": "Hi", "x": 1}, "finish_reason": None}
    assert only == {"id": "c", "model": "m", "choices": [choice], "y": 2}


def test_chunks_with_nothing_to_show_are_not_shown() -> None:
    chunks = [
        chunk({"role": "assistant", "content": ""}),
        chunk(None, warning="w"),
        chunk({"content": None, "tool_calls": []}),
        chunk({}, "stop"),
        {"choices": None},
        {"choices": [None, "x"]},
        {},
    ]
    *parts, _ = stream_parts([sse(*chunks, DONE)])
    assert parts == []


@pytest.mark.parametrize("finish", [{}, {"finish_reason": None}])
def test_what_a_choice_says_beside_its_delta_is_shown(finish: Json) -> None:
    extra = {"index": 0, "delta": {}, "logprobs": {"content": [{"token": "a"}]}, **finish}
    *parts, answer = stream_parts([sse({"choices": [extra]}, chunk({"content": "a"}, "stop"))])
    assert isinstance(parts[0], Part)
    assert parts[0].read()[0]["choices"][0]["logprobs"] == {"content": [{"token": "a"}]}
    assert isinstance(answer, Answer)
    assert answer.choice == {"logprobs": {"content": [{"token": "a"}]}}


# What an answer holds


def test_the_envelope_is_that_of_the_whole_stream() -> None:
    answer = fold(
        {"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [1]},
        chunk({"content": "a"}, created=5, object="chat.completion.chunk"),
        {**chunk({}, "stop", created=9, timings={"n": 1}, service_tier=None), "id": "other"},
    )
    assert answer.envelope == {
        "id": "c",
        "created": 5,
        "model": "m",
        "prompt_filter_results": [1],
        "timings": {"n": 1},
        "service_tier": None,
    }


def test_logprobs_of_all_chunks_are_put_together() -> None:
    def with_logprobs(text: str) -> Json:
        made = chunk({"content": text})
        made["choices"][0]["logprobs"] = {"content": [{"token": text}], "refusal": None}
        return made

    answer = fold(with_logprobs("a"), with_logprobs("b"), chunk({}, "stop"))
    assert answer.choice["logprobs"]["content"] == [{"token": "a"}, {"token": "b"}]


def test_reasoning_details_grow_by_their_index() -> None:
    def details(*items: Json) -> Json:
        return chunk({"reasoning_details": list(items)})

    answer = fold(
        details({"type": "reasoning.text", "index": 0, "text": "a"}),
        details({"type": "reasoning.text", "index": 0, "text": "b"}),
        details({"type": "reasoning.text", "index": 0, "signature": "s"}),
        details({"type": "reasoning.encrypted", "index": 0, "data": "x"}),
        chunk({"content": "c"}, "stop"),
    )
    assert answer.message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 0, "data": "x"},
    ]


def test_citations_and_audio_survive() -> None:
    answer = fold(
        chunk({"content": "a", "annotations": [{"url": 1}], "audio": {"id": "x", "data": "AA"}}),
        chunk({"annotations": [{"url": 2}], "audio": {"data": "BB"}}),
        chunk({}, "stop", citations=["u"]),
    )
    assert answer.message["annotations"] == [{"url": 1}, {"url": 2}]
    assert answer.message["audio"] == {"id": "x", "data": "AABB"}
    assert answer.envelope["citations"] == ["u"]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"content": "ab"}),
        (["a", "", "b"], {"content": "ab"}),
        ([{"type": "output_text", "text": "a"}], {"content": "a"}),
        ([{"type": "thinking", "thinking": "hm"}], {"content": "", "reasoning_content": "hm"}),
        (
            [{"type": "reasoning", "content": [{"text": "h"}, {"text": "m"}]}],
            {"content": "", "reasoning_content": "hm"},
        ),
        ([IMAGE, {"type": "text", "text": "a"}], {"content": "a", "images": [IMAGE]}),
        ([{"type": "x", "y": 1}], {"content": "", "content_parts": [{"type": "x", "y": 1}]}),
        ([{"type": ["text"]}], {"content": "", "content_parts": [{"type": ["text"]}]}),
        ([None, 7], {"content": ""}),
        ({"a": 1}, {"content": ""}),
    ],
    ids=str,
)
def test_content_in_parts_is_put_together(content: Any, message: Json) -> None:
    expected = {"role": "assistant", **message}
    assert fold(chunk({"content": content}, "stop")).message == expected
    assert whole(completion({"content": content})).message == expected


# n > 1


def other(index: int, delta: Json, finish: str | None = None) -> Json:
    return {**chunk(None), "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def test_further_choices_pass_as_they_are_and_are_put_together() -> None:
    chunks = [
        chunk({"content": "a"}),
        other(2, {"content": "z"}),
        other(1, {"role": "assistant", "content": "b"}),
        other(1, {"tool_calls": [calling(0, "i", "add", "{}")]}),
        other(1, {}, "TOOL_CALLS"),
        chunk({}, "stop"),
        other(2, {}, "stop"),
    ]
    *parts, answer = stream_parts([sse(*chunks, DONE)])
    assert isinstance(answer, Answer)
    assert answer.message["content"] == "a"
    assert answer.calls == ()
    function = {"name": "add", "arguments": "{}"}
    call = {"id": "i", "type": "function", "function": function}
    message = {"role": "assistant", "content": "b", "tool_calls": [call]}
    assert answer.more_choices == (
        {"index": 1, "message": message, "finish_reason": "tool_calls"},
        {"index": 2, "message": {"role": "assistant", "content": "z"}, "finish_reason": "stop"},
    )
    passed = [c for part in parts if isinstance(part, Part) for c in part.read()]
    assert [c["choices"][0]["index"] for c in passed] == [0, 2, 1, 1, 1, 2]
    assert passed[3]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "add"


def test_choices_that_share_a_chunk_are_shown_apart() -> None:
    both = {
        "choices": [
            {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"},
            {"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"},
        ]
    }
    *parts, answer = stream_parts([sse(both, DONE)])
    assert isinstance(answer, Answer)
    passed = [c for part in parts if isinstance(part, Part) for c in part.read()]
    assert [len(c["choices"]) for c in passed] == [1, 1]
    assert answer.more_choices[0]["message"]["content"] == "b"


def test_further_choices_of_a_whole_answer_are_untouched() -> None:
    second = {"index": 1, "message": {"content": "b", "x": 1}, "finish_reason": "STOP"}
    given = completion({"content": "a"})
    given["choices"].append(second)
    assert whole(given).more_choices == (second,)


# How answers end


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("EOS", "stop"),
        ("MAX_TOKENS", "length"),
        ("max_output_tokens", "length"),
        ("tool_use", "tool_calls"),
        ("function_call", "tool_calls"),
        ("SAFETY", "content_filter"),
        ("something_new", "something_new"),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_reasons_are_said_in_openais_words(given: Any, meant: str | None) -> None:
    assert finish_reason(given) == meant
    assert fold(chunk({"content": "a"}, given)).finish_reason == meant
    assert whole(completion({"content": "a"}, given)).finish_reason == meant


CALLS = [calling(0, "i", "add", '{"a": 1}'), calling(1, "j", "now", '{"b"')]


@pytest.mark.parametrize(
    ("reason", "complete"),
    [
        ("tool_calls", [True, True]),
        ("stop", [True, True]),
        ("length", [True, False]),
        ("content_filter", [True, False]),
    ],
)
def test_a_call_is_complete_unless_the_answer_was_cut(reason: str, complete: list[bool]) -> None:
    live = fold(chunk({"tool_calls": CALLS}), chunk({}, reason))
    same = whole(completion({"tool_calls": CALLS}, reason))
    assert [call.complete for call in live.calls] == complete
    assert [call.complete for call in same.calls] == complete


@pytest.mark.parametrize("ended", [True, False])
def test_without_a_reason_it_counts_whether_the_stream_said_that_it_is_over(ended: bool) -> None:
    events: list[Json | str] = [chunk({"content": "a", "tool_calls": CALLS})]
    answer = streamed([sse(*events, *([DONE] if ended else []))])
    assert [call.complete for call in answer.calls] == [True, ended]


@pytest.mark.parametrize("stream", [b"", b": x\n\n", sse(DONE), sse({"usage": usage(1, 0)}, DONE)])
def test_an_empty_stream_is_an_error(stream: bytes) -> None:
    with pytest.raises(InferenceError, match="empty stream") as caught:
        streamed([stream])
    assert caught.value.code == "inference_server_empty_answer"


def test_a_finished_answer_may_be_empty() -> None:
    assert fold(chunk({"role": "assistant"}), chunk({}, "stop")).message["content"] == ""


def test_reasoning_alone_is_no_answer_when_the_stream_broke() -> None:
    with pytest.raises(InferenceError, match="broke off"):
        streamed([sse(chunk({"reasoning_content": "hm"}))])


@pytest.mark.parametrize(
    "given", [{}, {"choices": []}, {"choices": None}, {"choices": [{}]}, {"choices": "x"}]
)
def test_a_whole_answer_without_a_message_is_an_error(given: Json) -> None:
    with pytest.raises(InferenceError, match="without a message"):
        whole(given)


def test_an_answer_that_ends_with_an_error_is_one() -> None:
    with pytest.raises(InferenceError, match="ended its answer with an error"):
        fold(chunk({"content": "a"}, "error"))
    with pytest.raises(InferenceError, match="ended its answer with an error"):
        whole(completion({"content": "a"}, "error"))


def test_a_stream_is_complete_when_every_choice_has_its_reason() -> None:
    folding = new_fold()
    folding.add(chunk({"content": "a"}))
    folding.add(other(1, {"content": "b"}))
    folding.add(chunk({}, "stop"))
    assert (folding.is_complete, folding.is_done) == (False, False)
    folding.add(other(1, {}, "stop"))
    assert (folding.is_complete, folding.is_done) == (True, False)
    folding.done()
    assert folding.is_done


def test_nothing_is_shown_twice() -> None:
    folding: Fold = new_fold()
    folding.add(chunk({"content": "a"}))
    assert folding.take() is not None
    assert folding.take() is None


# Odd values


@given(
    chunks=st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(0, 3)
            | st.sampled_from(["", "a", "stop", "{}"]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            *("choices", "delta", "message", "content", "tool_calls", "function"),
                            *(
                                "index",
                                "id",
                                "name",
                                "arguments",
                                "finish_reason",
                                "usage",
                                "error",
                            ),
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=20,
        ),
        max_size=4,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_json_is_an_answer_or_an_inference_error(chunks: list[Any]) -> None:
    objects = [chunk for chunk in chunks if isinstance(chunk, dict)]
    try:
        fold(*json.loads(json.dumps(objects)))
    except InferenceError:
        pass
    for one in objects:
        try:
            whole(one)
        except InferenceError:
            pass
