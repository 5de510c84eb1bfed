"""Whatever the model says in whichever rounds: streamed and whole are the same answer (L23)."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.api.bridged import Place, bridged, scripted_server
from tests.fakes import Call, Said

Json = dict[str, Any]

MINE: Json = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
ARGUMENTS = st.one_of(
    st.sampled_from(["", "{}", "null", '{"text": nope}', '{"text": "cut']),
    st.builds(lambda text: json.dumps({"text": text}), st.text(max_size=20)),
)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
COUNTS = st.integers(0, 1000)
DETAILS = st.fixed_dictionaries({"cached_tokens": COUNTS})
USAGES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {"prompt_tokens": COUNTS, "completion_tokens": COUNTS, "total_tokens": COUNTS},
        optional={"prompt_tokens_details": DETAILS, "cost": st.floats(0, 1)},
    ),
)


@st.composite
def calls(draw: st.DrawFn, names: Sequence[str], least: int) -> tuple[Call, ...]:
    """Calls with ids that are told apart in one round, but may come again in the next."""
    ids = draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=least, max_size=4))
    return tuple((id, draw(st.sampled_from(names)), draw(ARGUMENTS)) for id in ids)


OURS = ("echo", "fail", "refuse", "ecko")
REASONS = st.sampled_from([None, "stop", "tool_calls", "length"])
"""What the engine says of its end need not be true."""


def rounds(of: st.SearchStrategy[tuple[Call, ...]]) -> st.SearchStrategy[Said]:
    return st.builds(Said, TEXTS, of, TEXTS, USAGES, REASONS)


@st.composite
def scripts(draw: st.DrawFn) -> list[Said]:
    """Up to three rounds; the last one is for the client, with its own calls or without."""
    turns = draw(st.lists(rounds(calls(OURS, 1)), max_size=2))
    last = rounds(calls((*OURS, "mine"), 0))
    return [*turns, draw(last), Said("That is all.")]


@dataclass(frozen=True)
class Heard:
    """What came of a script: for the client, and in the questions to the model."""

    said: Json
    asked: list[list[Json]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """All examples share one bridge, and so one loop."""
    return "asyncio"


@pytest.fixture(scope="module")
async def place() -> AsyncGenerator[Place]:
    async with bridged(mcp_servers={"tools": scripted_server()}) as place:
        yield place


async def ask(place: Place, script: list[Said], *, stream: bool) -> Heard:
    place.inference.script = list(script)
    place.inference.requests.clear()
    said = await place.said("hi", stream=stream, tools=[MINE])
    asked = [plain_ids(request.json["messages"]) for request in place.inference.requests]
    return Heard(said, asked)


def plain_ids(messages: list[Json]) -> list[Json]:
    """The same messages with ids by order: those that an engine uses again are made new."""
    names: dict[str, str] = {}
    for message in messages:
        for call in message.get("tool_calls", ()):
            names.setdefault(call["id"], f"id-{len(names)}")
    text = json.dumps(messages)
    for id, name in names.items():
        text = text.replace(json.dumps(id), json.dumps(name))
    plain: list[Json] = json.loads(text)
    return plain


@given(script=scripts())
@example(script=[Said("ends\x85of\u2028lines", (), "\u2029"), Said("That is all.")])
@settings(max_examples=40, deadline=None)
async def test_streamed_and_whole_are_the_same_answer(place: Place, script: list[Said]) -> None:
    whole = await ask(place, script, stream=False)
    streamed = await ask(place, script, stream=True)
    assert streamed == whole


@given(script=scripts(), stream=st.booleans())
@settings(max_examples=40, deadline=None)
async def test_every_call_of_ours_is_answered_once_and_in_order(
    place: Place, script: list[Said], stream: bool
) -> None:
    heard = await ask(place, script, stream=stream)
    for messages in heard.asked:
        waiting: list[str] = []
        for message in messages:
            if message["role"] == "tool":
                assert message["tool_call_id"] == waiting.pop(0)
            else:
                assert waiting == []
                waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert waiting == []


@given(script=scripts(), stream=st.booleans())
@settings(max_examples=40, deadline=None)
async def test_the_client_gets_every_word_and_every_call_of_its_own(
    place: Place, script: list[Said], stream: bool
) -> None:
    heard = await ask(place, script, stream=stream)
    used = script[: len(heard.asked)]
    assert words(heard.said["content"]) == words(*(turn.text for turn in used))
    handed = [(c["id"], c["function"]["name"]) for c in heard.said.get("tool_calls", ())]
    assert handed == [(id, name) for id, name, _ in used[-1].calls if name == "mine"]


def words(*texts: str) -> list[str]:
    return [word for text in texts for word in text.split()]
