"""The state of one conversation: what is asked, what is heard, and when it must end."""

import json
from typing import Any

import pytest

from mcp_bridge.agent.calls import Outcome
from mcp_bridge.agent.conversation import (
    Ask,
    Conversation,
    assistant_message,
    images_message,
    tool_message,
)
from mcp_bridge.agent.convert import Readable
from mcp_bridge.config.settings import Limits
from mcp_bridge.exact import encode, loads
from mcp_bridge.inference.answer import Answer, ModelCall
from mcp_bridge.tools.catalog import EMPTY_VIEW, Catalog, Entry, View
from mcp_bridge.types import ANYONE, Json
from tests.tools.sources import Source

HI: list[Json] = [{"role": "user", "content": "hi"}]
OURS = Catalog([Source("files", ["read", "write"])]).view()


def function(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def talk(view: View = OURS, limits: Limits | None = None, **body: Any) -> Conversation:
    whole: Json = {"model": "m", "messages": HI, **body}
    return Conversation(Ask(whole, ANYONE, view), list(whole["messages"]), limits or Limits())


def body_of(
    conversation: Conversation,
    *,
    rounds: int = 0,
    stopped: str | None = None,
    without: frozenset[str] = frozenset(),
) -> Json:
    """The request as the inference server reads it."""
    conversation.bounds.rounds = rounds
    conversation.bounds.stopped = stopped
    body: Json = loads(encode(conversation.body("openai", without)))
    return body


def names(body: Json) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", [])]


# Tools of both sides (L2, L9)


def test_the_clients_tools_and_ours_are_offered_together_and_the_body_stays_as_it_was() -> None:
    conversation = talk(tools=[function("theirs")], temperature=0.5, unknown={"a": 1})
    body = body_of(conversation)
    assert names(body) == ["theirs", "read", "write"]
    assert body["temperature"] == 0.5
    assert body["unknown"] == {"a": 1}
    assert names(conversation.ask.body) == ["theirs"]


@pytest.mark.parametrize(
    "theirs",
    [
        function("read"),
        {"function": {"name": "read"}},
        {"type": "custom", "custom": {"name": "read"}},
    ],
)
def test_of_two_tools_of_one_name_the_client_keeps_its_own_and_ours_is_prefixed(
    theirs: Json,
) -> None:
    conversation = talk(tools=[theirs])
    tools = body_of(conversation)["tools"]
    assert tools[0] == theirs
    assert [t["function"]["name"] for t in tools[1:]] == ["files__read", "write"]
    entry = conversation.view.find("files__read")
    assert entry is not None
    assert entry.tool.name == "read"
    assert conversation.view.find("read") is None


def test_the_new_name_is_one_that_nobody_has() -> None:
    view = Catalog([Source("files", ["read", "files__read"])]).view()
    conversation = talk(view, tools=[function("read")])
    offered = names(body_of(conversation))
    assert len(set(offered)) == len(offered) == 3
    both = talk(tools=[function("read"), function("files__read")])
    assert len(set(names(body_of(both)))) == 4


def test_tools_that_the_inference_server_refused_are_left_out() -> None:
    assert names(body_of(talk(), without=frozenset({"write"}))) == ["read"]


@pytest.mark.parametrize("tools", [[], [function("mine")]])
def test_a_number_of_any_size_and_our_tools_go_together(tools: list[Json]) -> None:
    large = 10**30
    body = body_of(talk(tools=tools, seed=large))
    assert body["seed"] == large
    assert names(body) == [*names({"tools": tools}), "read", "write"]


@pytest.mark.parametrize("tools", [{}, {"tools": []}, {"tools": None}])
def test_an_empty_list_of_tools_is_not_sent(tools: Json) -> None:
    assert "tools" not in body_of(talk(EMPTY_VIEW, **tools))


def test_a_choice_among_no_tools_is_not_sent_either() -> None:
    fields: Json = {"tool_choice": "auto", "parallel_tool_calls": False}
    sent = body_of(talk(EMPTY_VIEW, tools=[], **fields))
    assert not sent.keys() & {"tool_choice", "parallel_tool_calls", "tools"}
    untouched = body_of(talk(EMPTY_VIEW, **fields))
    assert untouched["tool_choice"] == "auto"


def test_a_tool_that_is_offered_later_is_there_from_the_next_round_on() -> None:
    reader = Catalog([Source("us", ["read_more"])]).view().entries[0]
    conversation = talk()
    conversation.offer(reader)
    conversation.offer(reader)
    assert names(body_of(conversation)) == ["read", "write", "read_more"]
    theirs = talk(tools=[function("read_more")])
    theirs.offer(Entry("read_more", reader.tool, reader.source))
    assert names(body_of(theirs)) == ["read_more", "read", "write"]


# tool_choice (L9)


NAMED = {"type": "function", "function": {"name": "read"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}


@pytest.mark.parametrize(
    ("choice", "later"),
    [
        ("auto", "auto"),
        ("required", "auto"),
        (NAMED, "auto"),
        (ALLOWED, {**ALLOWED, "allowed_tools": {"mode": "auto", "tools": [NAMED]}}),
        (None, None),
    ],
)
def test_a_tool_is_forced_in_the_first_round_only(choice: Any, later: Any) -> None:
    conversation = talk(tool_choice=choice)
    assert body_of(conversation)["tool_choice"] == choice
    assert body_of(conversation, rounds=1)["tool_choice"] == later
    assert conversation.ask.body["tool_choice"] == choice


def test_without_a_choice_none_is_made_until_a_bound_is_reached() -> None:
    conversation = talk()
    assert "tool_choice" not in body_of(conversation)
    assert "tool_choice" not in body_of(conversation, rounds=1)
    last = body_of(conversation, rounds=2, stopped="max_rounds")
    assert last["tool_choice"] == "none"
    assert names(last) == ["read", "write"]


# Usage


def test_a_stream_is_always_asked_for_its_usage() -> None:
    conversation = talk(stream=True, stream_options={"include_obfuscation": False})
    assert body_of(conversation)["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert not conversation.ask.wants_usage
    assert talk(stream=True, stream_options={"include_usage": True}).ask.wants_usage
    assert "stream_options" not in body_of(talk())


# Ids


def answer(*calls: ModelCall, **message: Any) -> Answer:
    return Answer({"role": "assistant", "content": None, **message}, calls)


def test_an_id_that_was_used_before_becomes_a_new_one_for_our_calls() -> None:
    conversation = talk(tools=[function("theirs")])
    first = conversation.adopt(answer(ModelCall("0", "read", "{}"), ModelCall("1", "write", "{}")))
    assert [call.id for call in first] == ["0", "1"]
    second = conversation.adopt(
        answer(ModelCall("0", "read", "{}"), ModelCall("1", "theirs", "{}"))
    )
    assert second[0].id not in ("0", "1")
    assert second[1].id == "1"  # it was streamed to the client already
    assert (second[0].name, second[0].arguments) == ("read", "{}")


def test_ids_of_the_history_count_as_used() -> None:
    history = [*HI, {"role": "assistant", "tool_calls": [{"id": "0"}, "odd"]}, {"role": "tool"}]
    conversation = talk(messages=history)
    (call,) = conversation.adopt(answer(ModelCall("0", "read", "{}")))
    assert call.id != "0"


# Bounds (L7, L8)


@pytest.mark.parametrize(
    ("limits", "used", "usage", "stopped"),
    [
        ({}, {"rounds": 19, "calls": 99}, None, None),
        ({}, {"rounds": 20}, None, "max_rounds"),
        ({}, {"calls": 100}, None, "max_calls"),
        ({"max_tokens": 10}, {}, {"total_tokens": 9}, None),
        ({"max_tokens": 10}, {}, {"total_tokens": 10}, "max_tokens"),
        ({"max_tokens": 10}, {}, {"prompt_tokens": 6, "completion_tokens": 4}, "max_tokens"),
        ({"max_tokens": 10}, {}, {"total_tokens": None}, None),
        ({"max_tokens": 0}, {}, {"total_tokens": 10**9}, None),
    ],
)
def test_the_first_bound_that_is_reached_stops_the_conversation(
    limits: Json, used: Json, usage: Json | None, stopped: str | None
) -> None:
    bounds = talk(limits=Limits(**limits)).bounds
    for name, value in used.items():
        setattr(bounds, name, value)
    bounds.check(usage)
    assert bounds.stopped == stopped


def test_time_is_a_bound_too_and_a_reason_stays() -> None:
    bounds = talk().bounds
    assert 0 < bounds.seconds_left() <= Limits().max_seconds
    bounds.deadline = 0
    assert bounds.seconds_left() == 0
    bounds.check(None)
    bounds.rounds = 99
    bounds.check(None)
    assert bounds.stopped == "max_seconds"


def failed(name: str = "read", arguments: str = "{}") -> Outcome:
    return Outcome.refused(ModelCall("0", name, arguments), "no")


def test_the_same_failing_call_three_times_stops_the_conversation() -> None:
    conversation = talk()
    for outcome in (failed(), failed("write"), failed(arguments='{"a": 1}'), failed()):
        conversation.note(outcome)
    conversation.note(Outcome(ModelCall("0", "read", "{}"), Readable("fine")))
    assert conversation.bounds.stopped is None
    conversation.note(failed())
    assert conversation.bounds.stopped == "max_same_failures"


# Messages that go back (L6, L13)


def test_the_models_turn_goes_back_with_every_field_that_it_had() -> None:
    call = ModelCall("c", "read", '{"a" :1}', extra={"extra_content": {"google": {"s": "x"}}})
    said = answer(call, content="", reasoning_content="hm", reasoning_details=[{"index": 0}])
    assert assistant_message(said, [call]) == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "reasoning_details": [{"index": 0}],
        "tool_calls": [
            {
                "id": "c",
                "type": "function",
                "function": {"name": "read", "arguments": '{"a" :1}'},
                "extra_content": {"google": {"s": "x"}},
            }
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("", "{}"),
        (" ", "{}"),
        ("null", "{}"),
        ('{"a" :1}', '{"a" :1}'),
        ('"{\\"a\\": 1}"', '{"a":1}'),
        ('{"a": "two\nlines"}', '{"a":"two\\nlines"}'),
        ('{"a": 123456789012345678901234567890}', '{"a": 123456789012345678901234567890}'),
        ('{"a": ', '{"invalid_arguments":"{\\"a\\": "}'),
        ("[1]", '{"invalid_arguments":"[1]"}'),
        ("x" * 9000, json.dumps({"invalid_arguments": "x" * 2000}, separators=(",", ":"))),
    ],
)
def test_the_arguments_that_go_back_are_always_a_json_object(arguments: str, sent: str) -> None:
    call = ModelCall("c", "read", arguments)
    (item,) = assistant_message(answer(call), [call])["tool_calls"]
    assert item["function"]["arguments"] == sent


def test_a_custom_call_goes_back_as_the_text_that_it_is() -> None:
    call = ModelCall("c", "shell", "ls -l", extra={"type": "custom", "more": 1})
    assert assistant_message(answer(call), [call])["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls -l"}, "more": 1}
    ]


def test_results_go_back_as_text_and_their_images_after_all_of_them() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:,x"}}
    with_image = Outcome(ModelCall("c1", "shot", "{}"), Readable("a picture", (part,)))
    plain = Outcome(ModelCall("c2", "read", "{}"), Readable("text"))
    assert tool_message(plain) == {"role": "tool", "tool_call_id": "c2", "content": "text"}
    assert images_message([with_image, plain]) == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Images returned by shot (c1):"}, part],
        }
    ]
    assert images_message([plain]) == []


def test_the_rounds_that_the_client_does_not_see_are_known() -> None:
    conversation = talk()
    assert not conversation.hidden
    hidden = {"role": "assistant", "tool_calls": []}
    conversation.messages.append(hidden)
    assert conversation.hidden == (hidden,)
    assert conversation.ask.body["messages"] == HI
