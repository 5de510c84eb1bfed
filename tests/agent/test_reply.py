"""The one message that a caller gets, made of as many rounds as it takes (L1, L17, L21)."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.agent.reply import Reply, summed
from mcp_bridge.inference.answer import Answer, ModelCall
from mcp_bridge.inference.fold import Fold
from mcp_bridge.inference.splice import Run, each_of
from mcp_bridge.types import Json

THEIRS = frozenset({"theirs", "shell"})
Round = Sequence[Json]
"""What an engine streams in one round: chunks, less what each says about itself."""


def piece(index: int = 0, finish: str | None = None, **delta: Any) -> Json:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def call(id: str, name: str, arguments: str, index: int = 0) -> Json:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id, "type": "function", "function": function}


def objects(chunks: Iterable[Json | Run]) -> list[Json]:
    return list(each_of(chunks))


def streamed(reply: Reply, rounds: Iterable[Round], *, finish: str = "stop") -> list[Json]:
    """Everything that a client sees of these rounds, as the loop would send it."""
    seen: list[Json] = []
    for number, chunks in enumerate(rounds):
        head = {"id": f"id{number}", "created": 100 + number, "model": f"model{number}"}
        fold = Fold()
        for chunk in [*chunks, piece(finish="stop")]:
            fold.add({**head, "object": "chat.completion.chunk", **copy.deepcopy(chunk)})
            if part := fold.take():
                seen += objects(reply.chunks(part))
        seen += ended(reply, fold)
    return seen + list(reply.last_chunks(finish, {}, usage=True))


def ended(reply: Reply, fold: Fold) -> list[Json]:
    """The end of a round."""
    fold.close()
    seen: list[Json] = []
    if part := fold.take():
        seen += objects(reply.chunks(part))
    answer = fold.answer()
    seen += reply.take(answer)
    return seen + list(reply.hand_out([c for c in answer.calls if c.name in THEIRS]))


def put_together(chunks: Sequence[Json], index: int = 0) -> Json:
    """The message that the strictest client makes of a stream."""
    heads = {(c["id"], c["created"], c["model"], c["object"]) for c in chunks}
    assert len(heads) == 1
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    assert ["role" in c["delta"] for c in choices] == [True] + [False] * (len(choices) - 1)
    reasons = [c["finish_reason"] for c in choices]
    assert reasons[-1] and not any(reasons[:-1])
    message: Json = {}
    for choice in choices:
        add(message, choice["delta"])
    return {**message, "finish_reason": reasons[-1]}


def add(message: Json, delta: Json) -> None:
    for key, value in delta.items():
        if key == "tool_calls":
            for item in value:
                add_call(message.setdefault("tool_calls", []), item)
        elif isinstance(value, str | list) and key in message:
            message[key] = message[key] + value
        else:
            message[key] = value


def add_call(calls: list[Json], item: Json) -> None:
    index = item["index"]
    if index == len(calls):
        assert item["id"] and item["type"]
        calls.append({k: v for k, v in item.items() if k != "index"})
        return
    assert index < len(calls), "calls are numbered from 0, without gaps"
    assert not item.keys() & {"id", "type"}, "id and type come once"
    for key, value in item.items():
        if key in ("function", "custom"):
            assert "name" not in value, "the name comes once"
            for field, text in value.items():
                calls[index][key][field] += text
        elif key != "index":
            calls[index][key] = value


# One message (L1)


def test_rounds_become_one_message_with_the_head_of_the_first() -> None:
    rounds = [
        [piece(role="assistant", content="Let me "), piece(content="look.")],
        [piece(role="assistant", content=""), piece(content="It is "), piece(content="5.")],
    ]
    seen = streamed(Reply("asked", THEIRS), rounds)
    assert put_together(seen) == {
        "role": "assistant",
        "content": "Let me look.\n\nIt is 5.",
        "finish_reason": "stop",
    }
    assert {(c["id"], c["created"], c["model"]) for c in seen} == {("id0", 100, "model0")}


def test_without_a_head_the_answer_gets_one() -> None:
    reply = Reply("asked", THEIRS)
    reply.take(Answer({"role": "assistant", "content": "hi"}, envelope={"id": "", "created": None}))
    whole = reply.completion("stop", {})
    assert whole["id"].startswith("chatcmpl-")
    assert whole["model"] == "asked"
    assert whole["created"] > 1_700_000_000
    (last,) = reply.last_chunks("stop", {}, usage=False)
    assert last["id"] == whole["id"]
    assert last["created"] == whole["created"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("Let me look.", "It is 5.", "Let me look.\n\nIt is 5."),
        ("Let me look.\n", "It is 5.", "Let me look.\nIt is 5."),
        ("", "It is 5.", "It is 5."),
        ("Let me look.", "", "Let me look."),
    ],
)
def test_texts_of_two_rounds_are_parted_where_they_would_run_together(
    first: str, second: str, expected: str
) -> None:
    rounds = [[piece(content=first, x=1)], [piece(content=second, x=1)]]
    reply = Reply("m", THEIRS)
    assert put_together(streamed(reply, rounds)).get("content") == expected
    assert reply.completion("stop", {})["choices"][0]["message"]["content"] == expected


def test_reasoning_is_parted_by_itself() -> None:
    rounds = [
        [piece(reasoning_content="hm"), piece(content="A")],
        [piece(reasoning_content="so"), piece(reasoning_content=" be it"), piece(content="B")],
    ]
    message = put_together(streamed(Reply("m", THEIRS), rounds))
    assert message["reasoning_content"] == "hm\n\nso be it"
    assert message["content"] == "A\n\nB"


def test_a_chunk_of_our_own_is_part_of_the_message_and_hides_nothing_of_the_models() -> None:
    reply = Reply("m", THEIRS)
    seen = list(reply.take(Answer({"role": "assistant", "reasoning_content": "hm"})))
    seen.append(reply.say({"reasoning_content": "→ tool()\n"}))
    seen.append(reply.say({"reasoning_content": "✓ tool\n"}))
    second = Answer({"role": "assistant", "content": "B", "reasoning_content": "so"})
    seen += reply.take(second)
    seen += reply.last_chunks("stop", {}, usage=False)
    message = put_together(seen)
    assert message["reasoning_content"] == "hm\n\n→ tool()\n✓ tool\nso"
    assert message["content"] == "B"


def test_a_stream_that_says_nothing_still_has_a_role_and_an_end() -> None:
    reply = Reply("m", THEIRS)
    reply.take(Answer({"role": "assistant", "content": ""}))
    assert put_together(reply.last_chunks("stop", {}, usage=False)) == {
        "role": "assistant",
        "finish_reason": "stop",
    }
    assert reply.completion("stop", {})["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
    }


def test_what_was_not_streamed_is_said_when_the_round_ends() -> None:
    """Some servers answer a streamed question with a whole completion."""
    reply = Reply("m", THEIRS)
    message = {"role": "assistant", "content": "hi", "refusal": None, "images": [{"a": 1}]}
    seen = [*reply.take(Answer(message)), *reply.last_chunks("stop", {}, usage=False)]
    assert put_together(seen) == {
        "role": "assistant",
        "content": "hi",
        "images": [{"a": 1}],
        "finish_reason": "stop",
    }


# Other fields


def test_fields_that_we_do_not_know_reach_the_client_once() -> None:
    logprobs = {"content": [{"token": "hi"}], "refusal": None}
    chunks = [
        {**piece(content="hi", x_note="n"), "service_tier": "flex"},
        {
            "choices": [
                {"index": 0, "delta": {"content": "!"}, "logprobs": logprobs, "token_ids": [5]}
            ],
            "service_tier": "flex",
        },
        {**piece(finish="stop"), "timings": {"ms": 1}},
    ]
    reply = Reply("m", THEIRS)
    seen = streamed(reply, [chunks])
    assert [c["delta"].get("x_note") for k in seen for c in k["choices"]] == ["n", None, None]
    assert [c.get("logprobs") for k in seen for c in k["choices"]] == [None, logprobs, None]
    assert [c.get("token_ids") for k in seen for c in k["choices"]] == [None, [5], None]
    assert [c.get("timings") for c in seen] == [None, None, {"ms": 1}]
    whole = reply.completion("stop", {})
    assert whole["timings"] == {"ms": 1}
    assert whole["service_tier"] == "flex"
    assert whole["choices"][0]["logprobs"] == logprobs


def test_lists_grow_over_rounds() -> None:
    reply = Reply("m", THEIRS)
    for number in (1, 2):
        message = {"role": "assistant", "content": f"{number}", "annotations": [{"n": number}]}
        choice = {"logprobs": {"content": [{"token": f"{number}"}]}, "stop_reason": number}
        reply.take(Answer(message, choice=choice))
    found = reply.completion("stop", {})["choices"][0]
    assert found["message"]["annotations"] == [{"n": 1}, {"n": 2}]
    assert found["logprobs"] == {"content": [{"token": "1"}, {"token": "2"}]}
    assert found["stop_reason"] == 2


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": None}, ""),
        ({"content": ""}, ""),
        ({"content": None, "refusal": None}, ""),
        ({"content": None, "refusal": "I will not."}, None),
        ({}, ""),
    ],
)
def test_content_is_null_only_beside_calls_or_a_refusal(message: Json, content: Any) -> None:
    reply = Reply("m", THEIRS)
    reply.take(Answer({"role": "assistant", **message}))
    assert reply.completion("stop", {})["choices"][0]["message"]["content"] == content
    reply.hand_out([ModelCall("c", "theirs", "{}")])
    assert reply.completion("tool_calls", {})["choices"][0]["message"]["content"] is None


def test_a_refusal_is_streamed_and_whole() -> None:
    reply = Reply("m", THEIRS)
    seen = streamed(reply, [[piece(refusal="I will"), piece(refusal=" not.")]])
    assert put_together(seen)["refusal"] == "I will not."
    message = reply.completion("stop", {})["choices"][0]["message"]
    assert (message["refusal"], message["content"]) == ("I will not.", None)


def test_our_own_fields_stand_at_the_end_of_both() -> None:
    reply = Reply("m", THEIRS)
    reply.take(Answer({"role": "assistant", "content": "hi"}))
    extension = {"mcp_bridge": {"stopped": "max_rounds"}}
    assert reply.completion("length", extension)["mcp_bridge"] == {"stopped": "max_rounds"}
    (last,) = reply.last_chunks("length", extension, usage=False)
    assert last["mcp_bridge"] == {"stopped": "max_rounds"}
    assert last["choices"][0]["finish_reason"] == "length"


# Calls for the client (L2, L3)


def test_calls_are_handed_out_numbered_from_zero_and_ours_are_not_seen() -> None:
    first = call("o", "ours", "{}")
    pieces = [call("a", "theirs", '{"x"', 1), {"index": 1, "function": {"arguments": ": 1}"}}]
    last = call("b", "theirs", "", 2)
    chunks = [piece(tool_calls=[c]) for c in (first, *pieces, last)]
    reply = Reply("m", THEIRS)
    seen = streamed(reply, [chunks], finish="tool_calls")
    expected = [
        {"id": "a", "type": "function", "function": {"name": "theirs", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "theirs", "arguments": "{}"}},
    ]
    assert put_together(seen)["tool_calls"] == expected
    assert reply.completion("tool_calls", {})["choices"][0]["message"]["tool_calls"] == expected


@pytest.mark.parametrize("arguments", ["", " ", "{}", '{"a": 1}'])
def test_arguments_are_json_however_little_of_them_was_streamed(arguments: str) -> None:
    reply = Reply("m", THEIRS)
    chunks = [piece(tool_calls=[call("a", "theirs", arguments)])]
    (found,) = put_together(streamed(reply, [chunks]))["tool_calls"]
    assert found["function"]["arguments"].strip() == (arguments.strip() or "{}")
    assert reply.calls[0]["function"]["arguments"] == (arguments.strip() or "{}")


def test_a_call_without_arguments_has_them_before_the_next_call_begins() -> None:
    """The openai package parses a call's arguments when it sees the next call."""
    calls = [call("a", "theirs", "", 0), call("b", "theirs", "", 1), call("c", "theirs", "{}", 2)]
    reply = Reply("m", THEIRS)
    seen = streamed(reply, [[piece(tool_calls=[one]) for one in calls]], finish="tool_calls")
    deltas = [choice["delta"] for chunk in seen for choice in chunk["choices"]]
    order = [
        (item["index"], item["function"]["arguments"])
        for delta in deltas
        for item in delta.get("tool_calls", ())
    ]
    assert [index for index, _ in order] == sorted(index for index, _ in order)
    assert [found["function"]["arguments"] for found in put_together(seen)["tool_calls"]] == [
        "{}",
        "{}",
        "{}",
    ]


def test_fields_of_a_call_that_must_come_back_are_handed_out_too() -> None:
    signed = {**call("a", "theirs", "{}"), "extra_content": {"google": {"signature": "s"}}}
    reply = Reply("m", THEIRS)
    (found,) = put_together(streamed(reply, [[piece(tool_calls=[signed])]]))["tool_calls"]
    assert found["extra_content"] == {"google": {"signature": "s"}}
    assert reply.calls == [found]


def test_a_custom_call_is_handed_out_as_text() -> None:
    custom = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    reply = Reply("m", THEIRS, custom=frozenset({"shell"}))
    (found,) = put_together(streamed(reply, [[piece(tool_calls=[custom])]]))["tool_calls"]
    assert found == {"id": "a", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    assert reply.calls == [found]
    empty = Reply("m", THEIRS, custom=frozenset({"shell"}))
    empty.hand_out([ModelCall("a", "shell", "", extra={"type": "custom"})])
    assert empty.calls[0]["custom"] == {"name": "shell", "input": ""}


# Usage (L17)


def test_usage_is_the_sum_of_all_rounds_and_comes_last() -> None:
    reply = Reply("m", THEIRS)
    for number in (1, 2):
        usage = {
            "prompt_tokens": 10,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": number, "audio_tokens": None},
            "time": 0.5,
        }
        reply.take(Answer({"role": "assistant", "content": "x"}, usage=usage))
    expected = {
        "prompt_tokens": 20,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": None},
        "time": 1.0,
    }
    assert reply.completion("stop", {})["usage"] == expected
    *rest, last = reply.last_chunks("stop", {}, usage=True)
    assert (last["choices"], last["usage"]) == ([], expected)
    assert all("usage" not in chunk for chunk in rest)
    assert all("usage" not in c for c in reply.last_chunks("stop", {}, usage=False))


def test_without_any_usage_none_is_made_up() -> None:
    reply = Reply("m", THEIRS)
    reply.take(Answer({"role": "assistant", "content": "x"}))
    assert "usage" not in reply.completion("stop", {})
    assert len(reply.last_chunks("stop", {}, usage=True)) == 1


@pytest.mark.parametrize(
    ("old", "new", "total"),
    [
        (None, None, None),
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": None}, {"a": 1}),
        ({"a": None}, {"a": 1}, {"a": 1}),
        ({"a": None}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": {"b": 1}}),
        ({"a": True, "s": "x"}, {"a": True, "s": "y"}, {"a": True, "s": "y"}),
        ({"a": 1}, {"a": 0.5}, {"a": 1.5}),
    ],
)
def test_usage_of_any_shape_can_be_added(
    old: Json | None, new: Json | None, total: Json | None
) -> None:
    before = copy.deepcopy(old)
    assert summed(old, new) == total
    assert old == before


# Several choices (L21)


def test_every_choice_has_its_role_once_and_one_finish_reason() -> None:
    chunks = [
        piece(0, role="assistant", content="A"),
        piece(1, role="assistant", content="B"),
        piece(1, role="assistant", content="b"),
        piece(0, content="a"),
        piece(1, finish="END_TURN"),
        piece(1, finish="stop"),
        piece(2, content="C"),
        piece(0, finish="stop"),
    ]
    reply = Reply("m", THEIRS)
    seen = streamed(reply, [chunks])
    for index, text in enumerate(("Aa", "Bb", "C")):
        assert put_together(seen, index) == {
            "role": "assistant",
            "content": text,
            "finish_reason": "stop",
        }
    whole = reply.completion("stop", {})["choices"]
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in whole] == [
        (0, "Aa", "stop"),
        (1, "Bb", "stop"),
        (2, "C", "stop"),
    ]


def test_a_choice_that_came_whole_is_streamed_too() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    other = {"index": 1, "message": message, "finish_reason": "TOOL_USE"}
    reply = Reply("m", THEIRS)
    seen = list(reply.take(Answer({"role": "assistant", "content": "A"}, more_choices=(other,))))
    seen += reply.last_chunks("stop", {}, usage=False)
    assert put_together(seen, 1) == {**message, "finish_reason": "tool_calls"}
    assert reply.completion("stop", {})["choices"][1]["finish_reason"] == "tool_calls"


def test_an_index_that_an_engine_leaves_out_is_zero() -> None:
    chunk = {"choices": [{"index": None, "delta": {"content": "hi"}}]}
    seen = streamed(Reply("m", THEIRS), [[chunk]])
    assert put_together(seen)["content"] == "hi"


# Streamed and whole


TEXTS = st.text(alphabet="ab\n", max_size=3)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": TEXTS | st.none(),
        "reasoning_content": TEXTS,
        "refusal": TEXTS | st.none(),
        "annotations": st.lists(st.just({"a": 1}), max_size=1),
    },
)


@st.composite
def rounds_of(draw: st.DrawFn) -> list[Round]:
    """Rounds that say something; in the last one the client's tools may be called."""
    rounds: list[list[Json]] = []
    for _ in range(draw(st.integers(1, 3))):
        deltas: list[Json] = draw(st.lists(DELTAS, max_size=4))
        rounds.append([*(piece(**delta) for delta in deltas), piece(finish="stop")])
    for number in range(draw(st.integers(0, 2))):
        arguments = draw(st.sampled_from(["", "{}", '{"a": 1}']))
        cuts = draw(st.integers(0, len(arguments)))
        first = call(f"c{number}", "theirs", arguments[:cuts], number)
        more = {"index": number, "function": {"arguments": arguments[cuts:]}}
        rounds[-1][-1:-1] = [piece(tool_calls=[first]), piece(tool_calls=[more])]
    return list(rounds)


def whole(rounds: Iterable[Round]) -> Json:
    """The completion when the same rounds are asked for whole."""
    reply = Reply("m", THEIRS)
    for chunks in rounds:
        one = Fold()
        for chunk in chunks:
            one.add(copy.deepcopy(chunk))
        one.close()
        said = one.answer()
        items = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in said.calls
        ]
        choice = {"index": 0, "message": {**said.message, "tool_calls": items}}
        answer = Fold().whole({"choices": [{**choice, "finish_reason": said.finish_reason}]})
        reply.take(answer)
        reply.hand_out([c for c in answer.calls if c.name in THEIRS])
    return reply.completion("stop", {})


@given(rounds_of())
def test_the_same_rounds_say_the_same_streamed_and_whole(rounds: list[Round]) -> None:
    reply = Reply("m", THEIRS)
    seen = put_together(streamed(reply, rounds))
    choice = whole(rounds)["choices"][0]
    message = {k: v for k, v in choice["message"].items() if v}
    del seen["finish_reason"]
    assert {k: v for k, v in seen.items() if v} == message
    streamed_whole = reply.completion("stop", {})["choices"][0]["message"]
    assert {k: v for k, v in streamed_whole.items() if v} == message
