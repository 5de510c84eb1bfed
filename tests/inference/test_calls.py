"""Fragments become calls: none merged, none lost, in their order (L3, L6)."""

from itertools import count
from typing import Any

import pytest

from mcp_bridge.inference.answer import Fragment, ModelCall
from mcp_bridge.inference.calls import Calls, is_object, mint_id
from mcp_bridge.types import Json
from tests.inference.engines.fixture import calling

Found = list[tuple[str, str, str]]
A = '{"a": 1}'
B = '{"b": 2}'


def new_calls() -> Calls:
    numbers = count()
    return Calls(lambda: f"minted-{next(numbers)}")


def of(*items: Json, cut: bool = False) -> tuple[ModelCall, ...]:
    """The calls of a stream that has one of these items in each chunk."""
    calls = new_calls()
    for item in items:
        calls.add([item])
    calls.close()
    return calls.finished(cut=cut)


def found(*items: Json) -> Found:
    return [(call.id, call.name, call.arguments) for call in of(*items)]


TABLE: list[tuple[str, list[Json], Found]] = [
    (
        "pieces continue the call of their index",
        [
            calling(0, "x", "add", ""),
            calling(1, "y", "now", ""),
            calling(0, None, None, '{"a"'),
            calling(1, None, None, "{}"),
            calling(0, None, None, ": 1}"),
        ],
        [("x", "add", A), ("y", "now", "{}")],
    ),
    (
        "a new id on a used index is a new call",
        [calling(0, "x", "add", A), calling(0, "y", "add", A)],
        [("x", "add", A), ("y", "add", A)],
    ),
    (
        "a new name on a used index is a new call",
        [calling(0, None, "add", A), calling(0, None, "now", "{}")],
        [("minted-0", "add", A), ("minted-1", "now", "{}")],
    ),
    (
        "a second whole object on a used index is a new call",
        [calling(0, None, "add", A), calling(0, None, "add", B)],
        [("minted-0", "add", A), ("minted-1", "add", B)],
    ),
    (
        "an id continues its call on any index",
        [calling(0, "x", "add", '{"a"'), calling(1, "x", None, ": 1}")],
        [("x", "add", A)],
    ),
    (
        "pieces without index and id continue the last call",
        [
            calling(None, "x", "add", '{"a"'),
            calling(None, None, None, ": 1}"),
            calling(None, "y", "now", "{"),
            calling(None, None, None, "}"),
        ],
        [("x", "add", A), ("y", "now", "{}")],
    ),
    (
        "id and name in every piece are one id and one name",
        [calling(0, "x", "terminal", '{"a"'), calling(0, "x", "terminal", ": 1}")],
        [("x", "terminal", A)],
    ),
    (
        "another id in every piece is the same call while no name comes",
        [calling(0, "x", "add", ""), calling(0, "p", None, '{"a"'), calling(0, "q", None, ": 1}")],
        [("x", "add", A)],
    ),
    (
        "a whole call that is said again is one call",
        [calling(0, "x", "add", '{"a"'), calling(0, "x", None, ": 1}"), calling(0, "x", "add", A)],
        [("x", "add", A)],
    ),
    (
        "a copy under another index and the same id is a call of its own",
        [calling(0, "x", "add", A), calling(1, "x", "add", B)],
        [("x", "add", A), ("minted-0", "add", B)],
    ),
    (
        "a call without arguments comes out at the end",
        [calling(0, "x", "now", None), calling(1, "y", "add", A)],
        [("x", "now", ""), ("y", "add", A)],
    ),
    (
        "a name that comes after its arguments",
        [calling(0, "x", None, '{"a"'), calling(0, None, "add", ": 1}")],
        [("x", "add", A)],
    ),
    (
        "an id that comes with the second piece",
        [calling(0, None, "add", None), calling(0, "x", None, A)],
        [("x", "add", A)],
    ),
    (
        "what has no name is no call",
        [calling(0, "x", "add", A), calling(1, "", "", ""), calling(2, "z", None, "{}")],
        [("x", "add", A)],
    ),
    (
        "arguments as an object are written as JSON",
        [calling(0, "x", "add", {"a": [1, None, "é"]})],
        [("x", "add", '{"a":[1,null,"é"]}')],
    ),
    (
        "nested objects in pieces do not begin calls",
        [
            calling(0, "x", "add", '{"a": '),
            calling(0, "x", "add", '{"b": {}}'),
            calling(0, "x", "add", "}"),
        ],
        [("x", "add", '{"a": {"b": {}}}')],
    ),
    (
        "an index of any kind but a number is none",
        [
            {**calling(None, "x", "add", '{"a"'), "index": None},
            {**calling(None, None, None, ": 1}"), "index": "0"},
        ],
        [("x", "add", A)],
    ),
]


@pytest.mark.parametrize(("_case", "items", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_fragments_become_calls(_case: str, items: list[Json], expected: Found) -> None:
    assert found(*items) == expected


@pytest.mark.parametrize("items", [None, "x", 7, {}, [None, "x", 7], [{}], [{"function": "x"}]])
def test_what_is_no_call_is_passed_over(items: Any) -> None:
    calls = new_calls()
    calls.add(items)
    calls.add_whole(items)
    calls.add_legacy(items)
    calls.close()
    assert calls.finished(cut=False) == ()
    assert not calls


def test_the_calls_of_a_whole_answer_never_continue_each_other() -> None:
    calls = new_calls()
    calls.add_whole(
        [calling(0, "x", "add", A), calling(0, "x", "add", A), calling(None, "", "add", "")]
    )
    calls.close()
    assert [(c.id, c.arguments) for c in calls.finished(cut=False)] == [
        *(("x", A), ("minted-0", A), ("minted-1", "")),
    ]


def test_a_function_call_beside_tool_calls_is_its_copy() -> None:
    calls = new_calls()
    calls.add_legacy({"name": "add", "arguments": A})
    calls.add([calling(0, "x", "add", A)])
    calls.close()
    assert [call.id for call in calls.finished(cut=False)] == ["x"]


def test_a_function_call_alone_is_a_call() -> None:
    calls = new_calls()
    for piece in ({"name": "add", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"}):
        calls.add_legacy(piece)
    calls.close()
    assert calls.finished(cut=False) == (ModelCall("minted-0", "add", A),)


def test_fields_that_must_go_back_are_kept() -> None:
    signed = {"google": {"thought_signature": "s"}}
    (call,) = of(
        {**calling(0, "x", "add", A), "extra_content": signed, "other": None},
        {"index": 0, "more": 1},
    )
    assert call.extra == {"extra_content": signed, "more": 1}


# Live


def live(*items: Json) -> list[tuple[Fragment, ...]]:
    """The fragments that each item gives out, and those at the end."""
    calls = new_calls()
    taken = []
    for item in items:
        calls.add([item])
        taken.append(calls.take())
    calls.close()
    return [*taken, calls.take()]


def test_arguments_come_out_as_they_come_in() -> None:
    assert live(
        calling(0, "x", "add", ""), calling(0, None, None, '{"a"'), calling(0, None, None, ": 1}")
    ) == [
        (),
        (Fragment(0, "x", "add", '{"a"'),),
        (Fragment(0, "x", "add", ": 1}"),),
        (),
    ]


def test_a_call_waits_for_its_name() -> None:
    assert live(calling(0, "x", None, '{"a"'), calling(0, None, "add", ": 1}")) == [
        (),
        (Fragment(0, "x", "add", A),),
        (),
    ]


def test_positions_keep_the_order_in_which_calls_began() -> None:
    first, second, end = live(calling(0, "x", "now", None), calling(1, "y", "add", A))
    assert first == ()
    assert second == (Fragment(0, "x", "now", ""), Fragment(1, "y", "add", A))
    assert end == ()


def test_a_call_without_arguments_is_given_out_at_the_end() -> None:
    assert live(calling(0, "x", "now", "")) == [(), (Fragment(0, "x", "now", ""),)]


def test_later_pieces_of_an_earlier_call_are_still_given_out() -> None:
    *_, late, end = live(
        calling(0, "x", "add", '{"a"'), calling(1, "y", "now", "{}"), calling(0, None, None, ": 1}")
    )
    assert late == (Fragment(0, "x", "add", ": 1}"),)
    assert end == ()


# Cut


@pytest.mark.parametrize(
    ("arguments", "complete"),
    [(A, True), ("{}", True), ('{"a"', False), ("", False), (" ", False), ("[1]", False)],
)
def test_the_last_call_of_a_cut_answer_is_complete_when_it_is_whole(
    arguments: str, complete: bool
) -> None:
    before, last = of(calling(0, "x", "now", ""), calling(1, "y", "add", arguments), cut=True)
    assert before.complete, "another call began after it"
    assert last.complete is complete
    assert all(call.complete for call in of(calling(0, "y", "add", arguments)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", True),
        (f" {A}\n", True),
        ('{"a": "}', False),
        ("[]", False),
        ("", False),
        ("}", False),
    ],
)
def test_a_whole_object_is_recognised(text: str, expected: bool) -> None:
    assert is_object(text) is expected


def test_ids_that_are_made_up_are_not_guessed() -> None:
    ids = {mint_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(id.startswith("call_") and len(id) <= 40 for id in ids)
