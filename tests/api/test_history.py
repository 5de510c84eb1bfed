"""Tool turns that the client never saw come back when the conversation goes on (L14)."""

import json
from typing import Any

import pytest

from tests.api.bridged import Place, bridged
from tests.fakes import Said, answer

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
RESTORED = {"restore_history": True}


def echo(id: str, text: str) -> tuple[str, str, str]:
    return (id, "echo", json.dumps({"text": text}))


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def hidden(id: str, text: str) -> list[Json]:
    """The messages of a round that ran `echo`."""
    function = {"name": "echo", "arguments": json.dumps({"text": text})}
    call = {"id": id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": text},
    ]


TURN_1: list[Said] = [answer(calls=[echo("c1", "sunny")]), answer("It is sunny.")]
TURN_2 = answer("As I said.")
FIRST = [user("How is the weather?")]
SECOND = [user("Are you sure?")]


def assistant(said: Json) -> Json:
    """The message as clients keep it."""
    return {"role": "assistant", "content": said["content"]}


def sent(place: Place) -> list[Json]:
    """The messages of the last request."""
    messages = place.inference.requests[-1].json["messages"]
    assert isinstance(messages, list)
    return messages


@BOTH
async def test_the_next_turn_has_the_tool_messages_of_the_one_before(stream: bool) -> None:
    async with bridged(*TURN_1, TURN_2, tools=RESTORED) as place:
        said = assistant(await place.said(FIRST, stream=stream))
        await place.said([*FIRST, said, *SECOND], stream=stream)
        assert sent(place) == [*FIRST, *hidden("c1", "sunny"), said, *SECOND]


@BOTH
async def test_it_does_not_matter_how_the_client_asks_the_next_time(stream: bool) -> None:
    async with bridged(*TURN_1, TURN_2, tools=RESTORED) as place:
        said = assistant(await place.said(FIRST, stream=stream))
        await place.said([*FIRST, said, *SECOND], stream=not stream)
        assert sent(place) == [*FIRST, *hidden("c1", "sunny"), said, *SECOND]


@BOTH
async def test_it_does_not_matter_how_the_client_keeps_its_history(stream: bool) -> None:
    """Strings become parts, empty fields come, and a system message is put in front."""
    async with bridged(*TURN_1, TURN_2, tools=RESTORED) as place:
        said = await place.said(FIRST, stream=stream)
        system = {"role": "system", "content": "Be brief."}
        asked = {"role": "user", "content": [{"type": "text", "text": FIRST[0]["content"]}]}
        parts = [{"type": "text", "text": said["content"]}]
        kept = {"role": "assistant", "content": parts, "tool_calls": [], "refusal": None}
        await place.said([system, asked, kept, *SECOND], stream=stream)
        assert sent(place) == [system, asked, *hidden("c1", "sunny"), assistant(said), *SECOND]


@BOTH
async def test_every_turn_of_a_conversation_comes_back_in_its_place(stream: bool) -> None:
    script = [*TURN_1, answer(calls=[echo("c2", "rainy")]), answer("Now it is rainy."), TURN_2]
    async with bridged(*script, tools=RESTORED) as place:
        one = assistant(await place.said(FIRST, stream=stream))
        so_far = [*FIRST, one, *SECOND]
        two = assistant(await place.said(so_far, stream=stream))
        await place.said([*so_far, two, user("And now?")], stream=stream)
        assert sent(place) == [
            *FIRST,
            *hidden("c1", "sunny"),
            one,
            *SECOND,
            *hidden("c2", "rainy"),
            two,
            user("And now?"),
        ]


@BOTH
async def test_all_rounds_and_calls_of_a_turn_come_back(stream: bool) -> None:
    script = [
        answer(calls=[echo("c1", "a"), echo("c2", "b")]),
        answer(calls=[echo("c3", "c")]),
        answer("Done."),
        TURN_2,
    ]
    async with bridged(*script, tools=RESTORED) as place:
        said = assistant(await place.said(FIRST, stream=stream))
        asked_last = sent(place)
        await place.said([*FIRST, said, *SECOND], stream=stream)
        assert sent(place) == [*asked_last, said, *SECOND]
    assert [m.get("tool_call_id") for m in asked_last] == [None, None, "c1", "c2", None, "c3"]


@BOTH
async def test_what_was_said_before_the_tools_ran_is_not_said_twice(stream: bool) -> None:
    script = [answer("Let me see.", calls=[echo("c1", "sunny")]), answer("It is sunny."), TURN_2]
    async with bridged(*script, tools=RESTORED) as place:
        said = assistant(await place.said(FIRST, stream=stream))
        assert said["content"] == "Let me see.\n\nIt is sunny."
        asked_last = sent(place)
        await place.said([*FIRST, said, *SECOND], stream=stream)
        last = {"role": "assistant", "content": "It is sunny."}
        assert sent(place) == [*asked_last, last, *SECOND]
    assert asked_last[1]["content"] == "Let me see."


@BOTH
async def test_a_mixed_turn_and_the_text_after_it_come_back(stream: bool) -> None:
    """What ran before, beside and after the client's own call is all there in the next turn."""
    tools = [{"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}]
    script = [
        answer(calls=[echo("c1", "a"), ("m1", "mine", "{}")]),
        answer(calls=[echo("c2", "b")]),
        answer("Done."),
        TURN_2,
    ]
    async with bridged(*script, tools=RESTORED) as place:
        handed = await place.said(FIRST, stream=stream, tools=tools)
        theirs = {"role": "tool", "tool_call_id": "m1", "content": "theirs"}
        called = {**assistant(handed), "tool_calls": handed["tool_calls"]}
        so_far = [*FIRST, called, theirs]
        said = assistant(await place.said(so_far, stream=stream, tools=tools))
        asked_last = sent(place)
        await place.said([*so_far, said, *SECOND], stream=stream, tools=tools)
        assert sent(place) == [*asked_last, said, *SECOND]
    answered = [m["tool_call_id"] for m in asked_last if m["role"] == "tool"]
    assert answered == ["c1", "m1", "c2"]


# What stays as the client has it


@BOTH
async def test_it_is_off_unless_asked_for(stream: bool) -> None:
    async with bridged(*TURN_1, TURN_2) as place:
        said = assistant(await place.said(FIRST, stream=stream))
        history = [*FIRST, said, *SECOND]
        await place.said(history, stream=stream)
        assert sent(place) == history


async def test_no_other_caller_gets_them() -> None:
    keys = [{"key": "key-of-a"}, {"key": "key-of-b"}]
    security = {"auth": {"enabled": True, "api_keys": keys}}
    async with bridged(*TURN_1, TURN_2, TURN_2, tools=RESTORED, security=security) as place:
        a, b = ({"authorization": f"Bearer key-of-{name}"} for name in "ab")
        first = await place.post(FIRST, headers=a)
        history = [*FIRST, assistant(first.json()["choices"][0]["message"]), *SECOND]
        await place.post(history, headers=b)
        assert sent(place) == history
        await place.post(history, headers=a)
        assert len(sent(place)) == len(history) + 2


@pytest.mark.parametrize(
    "history",
    [
        [user("How is the sea?"), {"role": "assistant", "content": "It is sunny."}, *SECOND],
        [*FIRST, {"role": "assistant", "content": "It is cloudy."}, *SECOND],
        [*FIRST, {"role": "user", "content": "It is sunny."}, *SECOND],
    ],
    ids=["another question", "another answer", "not said by the model"],
)
async def test_another_conversation_stays_as_it_is(history: list[Json]) -> None:
    async with bridged(*TURN_1, TURN_2, tools=RESTORED) as place:
        await place.said(FIRST, stream=False)
        await place.said(history, stream=False)
        assert sent(place) == history


@BOTH
async def test_a_client_that_keeps_the_tool_messages_itself_gets_them_once(stream: bool) -> None:
    """Open WebUI does, when it was shown them as its own."""
    async with bridged(*TURN_1, TURN_2, tools=RESTORED) as place:
        said = assistant(await place.said(FIRST, stream=stream))
        history = [*FIRST, *hidden("c1", "sunny"), said, *SECOND]
        await place.said(history, stream=stream)
        assert sent(place) == history


async def test_they_are_forgotten_after_their_time() -> None:
    async with bridged(*TURN_1, TURN_2, tools={**RESTORED, "memory_ttl": 1e-6}) as place:
        said = assistant(await place.said(FIRST, stream=False))
        history = [*FIRST, said, *SECOND]
        await place.said(history, stream=False)
        assert sent(place) == history


async def test_a_reload_that_is_about_something_else_keeps_them() -> None:
    async with bridged(*TURN_1, TURN_2, tools=RESTORED) as place:
        said = assistant(await place.said(FIRST, stream=False))
        settings = place.bridge.settings
        limits = settings.limits.model_copy(update={"max_rounds": 7})
        place.bridge.apply(settings.model_copy(update={"limits": limits}))
        await place.said([*FIRST, said, *SECOND], stream=False)
        assert sent(place) == [*FIRST, *hidden("c1", "sunny"), said, *SECOND]
