"""Tools that ask the user, in a plain chat: the next message answers, and the call goes on."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.api.bridged import Place, bridged, scripted_server
from tests.fakes import Item, answer
from tests.mcp_client.running import PATIENCE, logged
from tests.servers.web import Log, serving, web_server

Json = dict[str, Any]
QUESTION: Json = {
    "message": "Which colour?",
    "requestedSchema": {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
        "required": ["colour"],
    },
}
ASKS: Json = {"method": "elicitation/create", "params": QUESTION}

streamed_or_whole = pytest.mark.parametrize("stream", [False, True])


def asks(id: str = "c1", message: str = "Which colour?") -> tuple[str, str, str]:
    """A call of the tool that asks the user."""
    params = {**QUESTION, "message": message}
    return (id, "ask", json.dumps({**ASKS, "params": params}))


WEB_ASKS = ("c1", "ask", "{}")
"""The same tool of a server over HTTP, where each question is known to belong to its call."""


@asynccontextmanager
async def web_place(*script: Item, era: str = "auto") -> AsyncGenerator[Place]:
    async with serving(web_server(Log()).streamable_http_app()) as site:
        servers = {"web": {"url": f"{site.url}/mcp", "protocol": era}}
        async with bridged(*script, tools={"elicitation": True}, mcp_servers=servers) as made:
            yield made


@asynccontextmanager
async def place(*script: Item, **tools: Any) -> AsyncGenerator[Place]:
    async with bridged(*script, tools={"elicitation": True, **tools}) as made:
        yield made


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def tool_results(place: Place, request: int = -1) -> list[str]:
    """What the model read of its tools, in its last question."""
    messages = place.inference.requests[request].json["messages"]
    return [m["content"] for m in messages if m["role"] == "tool"]


class Chat:
    """A client that keeps its history, as chat clients do."""

    def __init__(self, place: Place, *, stream: bool) -> None:
        self._place = place
        self._stream = stream
        self.messages: list[Json] = []

    async def say(self, text: str, **fields: Any) -> str:
        self.messages.append(user(text))
        said = await self._place.said(self.messages, stream=self._stream, **fields)
        assert said["finish_reason"] == "stop"
        self.messages.append({"role": "assistant", "content": said["content"]})
        content = said["content"]
        assert isinstance(content, str)
        return content


@streamed_or_whole
async def test_the_next_message_answers_the_question_and_the_call_goes_on(stream: bool) -> None:
    async with place(answer("Let me see.", calls=[asks()]), answer("Blue it is.")) as made:
        chat = Chat(made, stream=stream)
        asked = await chat.say("Paint it.")
        assert asked.startswith("Let me see.\n\n**tools** asks: Which colour?\n")
        assert "- `colour` (one of red | blue)" in asked
        assert len(made.inference.requests) == 1
        assert await chat.say("Blue", temperature=0.5) == "Blue it is."
        assert len(made.bridge.waiting) == 0
    second = made.inference.requests[1].json
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "tool"]
    assert json.loads(tool_results(made)[0]) == {"action": "accept", "content": {"colour": "blue"}}
    assert second["temperature"] == 0.5  # the request that is answered now decides


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_real_servers_of_both_eras_are_answered(era: str) -> None:
    async with web_place(answer(calls=[WEB_ASKS]), answer("Done."), era=era) as made:
        chat = Chat(made, stream=True)
        assert "Which colour?" in await chat.say("Paint it.")
        assert await chat.say("mauve") == "Done."
    assert tool_results(made) == ["mauve"]


@streamed_or_whole
async def test_an_answer_that_does_not_fit_is_asked_for_once_more(stream: bool) -> None:
    async with place(answer(calls=[asks()]), answer("Red it is.")) as made:
        chat = Chat(made, stream=stream)
        await chat.say("Paint it.")
        again = await chat.say("mauve")
        assert again.startswith("That does not fit: colour: 'mauve' is not one of")
        assert await chat.say("red") == "Red it is."
    assert json.loads(tool_results(made)[0])["content"] == {"colour": "red"}


async def test_after_two_answers_that_do_not_fit_the_server_hears_of_none() -> None:
    async with place(answer(calls=[asks()]), answer("Never mind.")) as made:
        chat = Chat(made, stream=False)
        await chat.say("Paint it.")
        await chat.say("mauve")
        assert await chat.say("pink") == "Never mind."
    assert json.loads(tool_results(made)[0]) == {"action": "cancel"}


async def test_the_user_may_refuse() -> None:
    async with place(answer(calls=[asks()]), answer("As you like.")) as made:
        chat = Chat(made, stream=False)
        await chat.say("Paint it.")
        assert await chat.say("decline") == "As you like."
    assert json.loads(tool_results(made)[0]) == {"action": "decline"}


async def test_calls_side_by_side_ask_one_after_the_other() -> None:
    calls = [WEB_ASKS, ("c2", "echo", '{"text": "hi"}'), ("c3", "ask", "{}")]
    async with web_place(answer(calls=calls), answer("Done.")) as made:
        chat = Chat(made, stream=True)
        assert "Which colour?" in await chat.say("Paint it.")
        assert "Which colour?" in await chat.say("red")
        assert await chat.say("blue") == "Done."
    first, echo, last = tool_results(made)
    assert (sorted([first, last]), echo) == (["blue", "red"], "hi")


async def test_a_turn_that_ends_with_calls_for_the_client_asks_nothing() -> None:
    mine = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
    calls = [asks(), ("c2", "mine", "{}")]
    async with place(answer(calls=calls), answer("Done.")) as made:
        completion = await made.chat("Paint it.", tools=[mine])
        choice = completion["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert not choice["message"]["content"]
        follow_up = [
            user("Paint it."),
            choice["message"],
            {"role": "tool", "tool_call_id": "c2", "content": "mine"},
        ]
        await made.chat(follow_up, tools=[mine])
        assert len(made.bridge.waiting) == 0
    assert json.loads(tool_results(made)[0]) == {"action": "cancel"}


async def test_a_legacy_completion_asks_nobody() -> None:
    async with place(answer(calls=[asks()]), answer("Not asked.")) as made:
        body = {"model": "model-a", "prompt": "Paint it.", "mcp": {"tools": ["*"]}}
        with anyio.fail_after(PATIENCE):
            response = await made.http.post("/v1/completions", json=body)
    assert response.json()["choices"][0]["text"] == "Not asked."


async def test_a_call_may_ask_more_than_once_and_a_later_round_too() -> None:
    script = (answer(calls=[asks("c1", "Wall?")]), answer(calls=[asks("c2", "Door?")]))
    async with place(*script, answer("Done.")) as made:
        chat = Chat(made, stream=False)
        assert "Wall?" in await chat.say("Paint it.")
        assert "Door?" in await chat.say("red")
        assert await chat.say("blue") == "Done."
    colours = [json.loads(result)["content"]["colour"] for result in tool_results(made)]
    assert colours == ["red", "blue"]


async def test_switched_off_a_question_is_declined_at_once_and_the_model_reads_it() -> None:
    async with bridged(answer(calls=[asks()]), answer("I cannot ask you.")) as made:
        assert await Chat(made, stream=False).say("Paint it.") == "I cannot ask you."
    assert "which the caller cannot answer" in tool_results(made)[0]


async def test_another_conversation_is_not_taken_for_the_answer() -> None:
    async with place(answer(calls=[asks()]), answer("Hello."), answer("Done.")) as made:
        chat = Chat(made, stream=False)
        await chat.say("Paint it.")
        stranger = Chat(made, stream=False)
        stranger.messages = [user("Something else."), *chat.messages[1:]]
        assert await stranger.say("red") == "Hello."
        assert await chat.say("red") == "Done."


async def test_two_users_with_the_same_question_get_their_own_call_back() -> None:
    call = answer(calls=[WEB_ASKS])
    async with web_place(call, call, answer("Done."), answer("Done.")) as made:
        chats = [Chat(made, stream=False), Chat(made, stream=False)]
        for chat in chats:
            await chat.say("Paint it.")
        for chat, colour in zip(chats, ("red", "blue"), strict=True):
            await chat.say(colour)
            assert tool_results(made) == [colour]


async def test_a_question_that_nobody_answers_ends_its_call(tmp_path: Path) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    tools = {"elicitation": True, "memory_ttl": 0.05}
    async with bridged(answer(calls=[asks()]), tools=tools, mcp_servers=servers) as made:
        await Chat(made, stream=False).say("Paint it.")
        await logged(log, lambda entry: entry.get("method") == "notifications/cancelled")
        assert len(made.bridge.waiting) == 0


async def test_leaving_after_the_answer_stops_the_calls_that_still_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(), "other": scripted_server(log=log)}
    calls = [asks(), ("c2", "other__hang", "{}")]
    tools = {"elicitation": True}
    async with bridged(answer(calls=calls), tools=tools, mcp_servers=servers) as made:
        chat = Chat(made, stream=True)
        await chat.say("Paint it.")
        body = {**made.body([*chat.messages, user("red")]), "stream": True}
        with anyio.fail_after(PATIENCE):
            async with made.http.stream("POST", "/v1/chat/completions", json=body) as response:
                assert response.status_code == 200
        await logged(log, lambda entry: entry.get("method") == "notifications/cancelled")


async def test_a_bridge_that_ends_takes_its_waiting_calls_with_it() -> None:
    async with place(answer(calls=[asks()])) as made:
        await Chat(made, stream=False).say("Paint it.")
        assert len(made.bridge.waiting) == 1
    assert len(made.bridge.waiting) == 0


async def test_the_conversation_goes_on_as_any_other_afterwards() -> None:
    script = (answer(calls=[asks()]), answer("Done."), answer("You are welcome."))
    async with place(*script, restore_history=True) as made:
        chat = Chat(made, stream=False)
        await chat.say("Paint it.")
        await chat.say("red")
        assert await chat.say("Thanks.") == "You are welcome."
    roles = [m["role"] for m in made.inference.requests[2].json["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "tool", "assistant", "user"]
