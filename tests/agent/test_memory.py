"""Hidden turns that are put back when the follow-up request arrives (DESIGN 3.3, L14)."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.agent.memory import HiddenTurn, TurnCopy, TurnMemory
from mcp_bridge.types import Caller, Json

ANNA, BERT = Caller("anna"), Caller("bert")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def user(content: Any = "hi") -> Json:
    return {"role": "user", "content": content}


def call(id: str, name: str = "theirs", arguments: str = '{"a": 1}') -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def said(*calls: Json, content: Any = None) -> Json:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(id: str, content: str = "their result") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


OURS = call("o1", "ours")
ROUND = (said(call("r1", "ours")), result("r1", "a round before"))
IMAGE = user([{"type": "text", "text": "Images returned by ours (o1):"}])


def mixed(*theirs: Json, note: str = "our result") -> HiddenTurn:
    """A round, and then a turn in which the model called one of ours and some of theirs."""
    return HiddenTurn(ROUND, said(OURS, *theirs), (result("o1", note),), (IMAGE,))


def kept(memory: TurnMemory, conversation: list[Json], *theirs: Json, note: str = "ours") -> None:
    memory.keep(ANNA, conversation, said(*theirs), mixed(*theirs, note=note))


# The mixed turn


def test_a_mixed_turn_is_whole_again_when_the_clients_results_arrive() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"), note="ours")
    restored = memory.restore(ANNA, [user(), said(call("t1")), result("t1")])
    assert restored == [
        user(),
        *ROUND,
        said(OURS, call("t1")),
        result("o1", "ours"),
        result("t1"),
        IMAGE,
    ]


def test_it_stays_whole_in_every_later_request_of_the_conversation() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"))
    history = [user(), said(call("t1")), result("t1")]
    first = memory.restore(ANNA, history)
    later = [*history, {"role": "assistant", "content": "done"}, user("more")]
    assert memory.restore(ANNA, later) == [*first, *later[3:]]


def test_results_are_put_into_the_order_of_the_calls() -> None:
    memory = TurnMemory(ttl=60)
    both = [call("t1"), call("t2")]
    turn = HiddenTurn((), said(both[0], OURS, both[1]), (result("o1"),))
    memory.keep(ANNA, [user()], said(*both), turn)
    restored = memory.restore(ANNA, [user(), said(*both), result("t2"), result("t1"), user("go")])
    assert [m.get("tool_call_id") for m in restored] == [None, None, "t1", "o1", "t2", None]
    assert restored[-1] == user("go")


def test_of_a_client_that_answers_only_a_part_nothing_is_made_up() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"), call("t2"))
    restored = memory.restore(ANNA, [user(), said(call("t1"), call("t2")), result("t2")])
    assert [m["tool_call_id"] for m in restored if m["role"] == "tool"] == ["r1", "o1", "t2"]


def test_a_client_that_leaves_out_one_of_its_calls_gets_its_own_history() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"), call("t2"))
    history = [user(), said(call("t1")), result("t1")]
    assert memory.restore(ANNA, history) == history


def test_a_turn_whose_results_never_came_is_restored_before_what_was_said_next() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"))
    restored = memory.restore(ANNA, [user(), said(call("t1")), user("never mind")])
    assert restored[-3:] == [result("o1", "ours"), IMAGE, user("never mind")]


# What clients make of their history


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda h: h,
        lambda h: [{"role": "system", "content": "new"}, *h],
        lambda h: [user([{"type": "text", "text": "hi"}]), *h[1:]],
        lambda h: [user([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]), *h[1:]],
        lambda h: [user(" hi\n"), *h[1:]],
        lambda h: [{**user(), "name": "anna", "timestamp": 5}, *h[1:]],
        lambda h: [h[0], {**h[1], "content": ""}, h[2]],
        lambda h: [h[0], {k: v for k, v in h[1].items() if k != "content"}, h[2]],
        lambda h: [h[0], {**h[1], "refusal": None, "provider_specific_fields": {}}, h[2]],
        lambda h: [h[0], said(call("t1", arguments='{"a":1}')), h[2]],
        lambda h: [h[0], said(call("t1", arguments='{"a": 1, "b": "a default"}')), h[2]],
        lambda h: [h[0], said({**call("t1"), "index": 0}), h[2]],
        lambda h: [h[0], h[1], {**h[2], "content": [{"type": "text", "text": "their result"}]}],
    ],
)
def test_the_turn_is_recognised_however_the_client_writes_its_history(
    rewrite: Callable[[list[Json]], list[Json]],
) -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"))
    history = rewrite([user(), said(call("t1")), result("t1")])
    restored = memory.restore(ANNA, history)
    assert [m.get("tool_call_id") for m in restored if m["role"] == "tool"] == ["r1", "o1", "t1"]
    assert restored[-2] == history[-1]


def test_parts_that_are_no_text_are_the_same_in_any_order_of_keys() -> None:
    memory = TurnMemory(ttl=60)
    picture = {"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}}
    kept(memory, [user(["hi", picture])], call("t1"))
    turned = {"image_url": {"detail": "low", "url": "data:,x"}, "type": "image_url"}
    history = [user(["hi", turned]), said(call("t1")), result("t1")]
    assert len(memory.restore(ANNA, history)) > len(history)
    other = copy.deepcopy(history)
    other[0]["content"][1]["image_url"]["url"] = "data:,y"
    assert memory.restore(ANNA, other) == other


@pytest.mark.parametrize(
    "history",
    [
        [user("hello"), said(call("t1")), result("t1")],
        [user(), user("and"), said(call("t1")), result("t1")],
        [said(call("t1")), result("t1")],
        [user(), said(call("t2")), result("t2")],
        [user(), said(OURS), result("o1"), said(call("t1")), result("t1")],
        [user(), said(OURS, call("t1")), result("o1"), result("t1")],
        [user(), {"role": "assistant", "content": "hi"}],
        [user(), {"role": "assistant", "content": None, "tool_calls": None}],
    ],
    ids=[
        "edited",
        "longer",
        "cut off",
        "other call",
        "ours seen",
        "ours seen at once",
        "text",
        "-",
    ],
)
def test_a_history_that_is_another_one_stays_as_the_client_has_it(history: list[Json]) -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"))
    assert memory.restore(ANNA, history) == history


def test_no_other_caller_gets_a_hidden_turn() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"))
    history = [user(), said(call("t1")), result("t1")]
    assert memory.restore(BERT, history) == history


# Engines that use ids again


def notes(restored: list[Json]) -> list[str]:
    return [m["content"] for m in restored if m.get("tool_call_id") == "o1"]


def test_the_same_ids_in_the_next_turn_are_another_turn() -> None:
    memory = TurnMemory(ttl=60)
    history = [user()]
    for number in range(3):
        kept(memory, history, call("0"), note=f"note {number}")
        history += [said(call("0")), result("0")]
    assert notes(memory.restore(ANNA, history)) == ["note 0", "note 1", "note 2"]


def test_an_answer_made_again_with_the_same_ids_does_not_hide_the_first() -> None:
    memory = TurnMemory(ttl=60)
    first, second = call("0", arguments='{"a": 1}'), call("0", arguments='{"a": 2}')
    kept(memory, [user()], first, note="first")
    kept(memory, [user()], second, note="second")
    for handed, note in ((first, "first"), (second, "second"), (first, "first")):
        assert notes(memory.restore(ANNA, [user(), said(handed), result("0")])) == [note]


def test_arguments_written_anew_mean_the_answer_made_last() -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("0", arguments='{"a": 1}'), note="first")
    kept(memory, [user()], call("0", arguments='{"a": 2}'), note="second")
    rewritten = call("0", arguments='{"a": 1, "default": true}')
    assert notes(memory.restore(ANNA, [user(), said(rewritten), result("0")])) == ["second"]


@pytest.mark.parametrize("arguments", ["", "{broken", '{"a": 123456789012345678901234567890}'])
def test_arguments_of_any_kind_are_recognised(arguments: str) -> None:
    memory = TurnMemory(ttl=60)
    handed = call("0", arguments=arguments)
    kept(memory, [user()], handed, note="right")
    kept(memory, [user()], call("0", arguments='{"other": 1}'), note="wrong")
    assert notes(memory.restore(ANNA, [user(), said(handed), result("0")])) == ["right"]


# Turns that ended in text (L14)


def test_rounds_in_front_of_a_text_come_back_with_the_text() -> None:
    memory = TurnMemory(ttl=60)
    text = {"role": "assistant", "content": "It is 5."}
    memory.keep(ANNA, [user()], text, HiddenTurn(ROUND))
    for content in ("It is 5.", [{"type": "text", "text": "It is 5.\n"}]):
        seen = {**text, "content": content, "audio": None}
        history = [user(), seen, user("more")]
        assert memory.restore(ANNA, history) == [user(), *ROUND, seen, user("more")]
    other = [user(), {**text, "content": "It is 6."}, user("more")]
    assert memory.restore(ANNA, other) == other


# Bounds


def test_a_turn_is_forgotten_when_it_was_not_used_for_its_time() -> None:
    clock = Clock()
    memory = TurnMemory(ttl=60, clock=clock)
    kept(memory, [user()], call("t1"))
    history = [user(), said(call("t1")), result("t1")]
    for now in (50, 100, 150):
        clock.now = now
        assert len(memory.restore(ANNA, history)) > len(history)
    clock.now = 210
    assert memory.restore(ANNA, history) == history


def test_memory_is_bounded_in_bytes_and_the_turn_used_longest_ago_goes_first() -> None:
    memory = TurnMemory(ttl=60, most_bytes=10_000)
    histories = [[user(f"{n}"), said(call("t1")), result("t1")] for n in range(4)]
    for history in histories[:3]:
        kept(memory, history[:1], call("t1"), note="x" * 1000)
    memory.restore(ANNA, histories[0])
    for history in histories[3:]:
        kept(memory, history[:1], call("t1"), note="x" * 5000)
    found = [len(memory.restore(ANNA, h)) > len(h) for h in histories]
    assert found == [True, False, False, True]
    kept(memory, [user("huge")], call("t1"), note="x" * 20_000)
    history = [user("huge"), said(call("t1")), result("t1")]
    assert memory.restore(ANNA, history) == history


def test_forgetting_leaves_nothing_behind() -> None:
    clock = Clock()
    memory = TurnMemory(ttl=1, clock=clock)
    for number in range(100):
        clock.now = number * 10
        kept(memory, [user(f"{number}")], call("t1"))
    clock.now = 10_000
    memory.restore(ANNA, [user()])
    assert (len(memory._turns), len(memory._latest), memory._size) == (0, 0, 0)


# Anything


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"])},
        optional={
            "content": st.text(max_size=3) | st.lists(JSON, max_size=2) | st.none(),
            "tool_calls": st.lists(st.dictionaries(st.sampled_from(["id", "function"]), JSON)),
            "tool_call_id": st.text(max_size=2),
        },
    ),
    max_size=6,
)


@given(MESSAGES)
def test_nothing_a_client_sends_is_lost_or_moved(messages: list[Json]) -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, [user()], call("t1"))
    before = json.dumps(messages)
    assert memory.restore(ANNA, messages) == messages
    assert json.dumps(messages) == before


@given(MESSAGES)
def test_any_conversation_can_be_kept_and_comes_back(messages: list[Json]) -> None:
    memory = TurnMemory(ttl=60)
    kept(memory, messages, call("t1"), note="mine")
    assert "mine" in notes(memory.restore(ANNA, [*messages, said(call("t1")), result("t1")]))


# What other processes are told


def test_a_turn_is_found_in_another_memory_that_was_given_a_copy() -> None:
    told: list[TurnCopy] = []
    here, there = TurnMemory(ttl=60, tell=told.append), TurnMemory(ttl=60)
    kept(here, [user()], call("t1"))
    (only,) = told
    there.put(only)
    again = [user(), said(call("t1")), result("t1")]
    assert there.restore(ANNA, again) == here.restore(ANNA, again) != again
    assert there.restore(BERT, again) == again


def test_a_turn_in_use_is_told_again_before_its_copies_are_forgotten() -> None:
    clock, told = Clock(), list[TurnCopy]()
    memory = TurnMemory(60, clock, tell=told.append)
    kept(memory, [user()], call("t1"))
    again = [user(), said(call("t1")), result("t1")]
    memory.restore(ANNA, again)
    assert len(told) == 1, "its copies are as new as it is"
    clock.now = 30
    memory.restore(ANNA, again)
    assert [copy.seconds for copy in told] == [60, 60]


def test_a_copy_lives_as_long_as_it_says() -> None:
    clock = Clock()
    here, there = TurnMemory(60, clock), TurnMemory(60, clock)
    kept(here, [user()], call("t1"))
    clock.now = 40
    for one in here.copies():
        there.put(one)
    again = [user(), said(call("t1")), result("t1")]
    clock.now = 61
    assert there.restore(ANNA, again) == again
