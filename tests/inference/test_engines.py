"""Every engine's answers mean the same, streamed in any pieces or whole (DESIGN 3.4, L3, L23)."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_bridge.errors import InferenceError
from mcp_bridge.inference.answer import Answer, ModelCall, Part
from mcp_bridge.inference.failures import refused
from tests.inference.engines.all import ALL, REFUSALS
from tests.inference.engines.fixture import Expected, ExpectedError, Fixture, Refusal
from tests.inference.engines.folding import cut, said, shown, stream_parts, streamed, whole


def named(items: tuple[Fixture, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fixture", items, ids=lambda fixture: fixture.name)


ANSWERS = tuple(f for f in ALL if isinstance(f.expect, Expected))
WHOLE_ANSWERS = tuple(f for f in ANSWERS if f.whole is not None)
ERRORS = tuple(f for f in ALL if isinstance(f.expect, ExpectedError))


def check(answer: Answer, expect: Expected) -> None:
    assert said(answer.message) == expect.message
    assert answer.finish_reason == expect.finish_reason
    assert answer.usage == expect.usage
    assert len(answer.calls) == len(expect.calls)
    for call, expected in zip(answer.calls, expect.calls, strict=True):
        id = expected.id or call.id
        assert call == ModelCall(
            id, expected.name, expected.arguments, expected.complete, expected.extra
        )
        assert expected.id or call.id.startswith("minted-")
    assert len({call.id for call in answer.calls}) == len(answer.calls)


def check_error(error: InferenceError, expect: ExpectedError) -> None:
    told = error.body()["error"]
    assert (error.status, told["code"]) == (expect.status, expect.code)
    assert expect.message in told["message"]
    assert set(told) >= {"message", "type", "param", "code"}


@named(ANSWERS)
def test_a_stream_means_what_the_engine_meant(fixture: Fixture) -> None:
    assert isinstance(fixture.expect, Expected)
    check(streamed([fixture.stream]), replace(fixture.expect, **fixture.expect.streamed))


@named(WHOLE_ANSWERS)
def test_a_whole_answer_means_the_same(fixture: Fixture) -> None:
    assert isinstance(fixture.expect, Expected)
    assert fixture.whole is not None
    before = copy.deepcopy(fixture.whole)
    check(whole(before), replace(fixture.expect, **fixture.expect.whole))


@named(ERRORS)
def test_a_stream_that_fails_is_an_error_after_what_it_said(fixture: Fixture) -> None:
    assert isinstance(fixture.expect, ExpectedError)
    parts: list[Part | Answer] = []
    with pytest.raises(InferenceError) as caught:
        for part in stream_parts(cut(fixture.stream, range(len(fixture.stream)))):
            parts.append(part)  # noqa: PERF402  # what came must be kept
    check_error(caught.value, fixture.expect)
    assert shown(parts) == fixture.expect.shown


@named(tuple(f for f in ERRORS if f.whole is not None))
def test_a_whole_answer_that_is_an_error_is_the_same_error(fixture: Fixture) -> None:
    assert isinstance(fixture.expect, ExpectedError)
    assert fixture.whole is not None
    with pytest.raises(InferenceError) as caught:
        whole(copy.deepcopy(fixture.whole))
    check_error(caught.value, fixture.expect)


@pytest.mark.parametrize(
    "places",
    [lambda stream: range(len(stream)), lambda stream: range(0, len(stream), 7)],
    ids=["byte by byte", "seven bytes at a time"],
)
@named(ANSWERS)
def test_it_does_not_matter_where_the_network_cuts(
    fixture: Fixture, places: Callable[[bytes], range]
) -> None:
    pieces = cut(fixture.stream, places(fixture.stream))
    assert streamed(pieces) == streamed([fixture.stream])


@given(fixture=st.sampled_from(ANSWERS), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_pieces_give_the_same_answer(fixture: Fixture, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(1, len(fixture.stream)), max_size=20))
    assert streamed(cut(fixture.stream, places)) == streamed([fixture.stream])


@named(ANSWERS)
def test_what_is_shown_live_is_the_answer(fixture: Fixture) -> None:
    *parts, answer = stream_parts(cut(fixture.stream, range(0, len(fixture.stream), 50)))
    assert isinstance(answer, Answer)
    assert shown(parts) == (answer.message["content"] or "")
    for key in ("reasoning", "reasoning_content", "refusal"):
        assert shown(parts, key) == (answer.message.get(key) or "")
    fragments = [f for part in parts if isinstance(part, Part) for f in part.fragments]
    for position, call in enumerate(answer.calls):
        of_call = [f for f in fragments if f.position == position]
        assert {(f.id, f.name) for f in of_call} == {(call.id, call.name)}
        assert "".join(f.arguments for f in of_call) == call.arguments
    assert {f.position for f in fragments} == set(range(len(answer.calls)))


@named(ANSWERS)
def test_chunks_to_show_are_clean(fixture: Fixture) -> None:
    *parts, _ = stream_parts([fixture.stream])
    for chunk in (chunk for part in parts if isinstance(part, Part) for chunk in part.read()):
        assert "usage" not in chunk
        for choice in chunk["choices"]:
            assert choice["finish_reason"] is None
            assert not choice["delta"].keys() & {"role", "tool_calls", "function_call"}
            assert "usage" not in choice


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refusal_becomes_openais_error_object(refusal: Refusal) -> None:
    error = refused("it", refusal.status, refusal.body, refusal.headers)
    told = error.body()["error"]
    assert error.status == refusal.status
    assert told["message"] == refusal.message
    assert (told["type"], told["code"]) == (refusal.type, refusal.code)
    assert "param" in told
    assert error.headers == refusal.headers
