"""Open WebUI in front of the bridge, replayed by its twin (`openwebui.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.api.bridged import Place, bridged, scripted_server
from tests.api.openwebui import CLOCK, NOW, TASKS, TOOLS, OpenWebUI
from tests.fakes import USAGE, Call, answer
from tests.mcp_client.running import entries

Json = dict[str, Any]
MODES = pytest.mark.parametrize("progress", ["", "off", "reasoning", "openwebui"])


def say(id: str, text: str) -> Call:
    return (id, "echo", json.dumps({"text": text}))


def sent(place: Place, request: int = -1) -> list[Json]:
    """The messages of a question to the model."""
    messages: list[Json] = place.inference.requests[request].json["messages"]
    return messages


def results(messages: list[Json]) -> dict[str, str]:
    return {m["tool_call_id"]: m["content"] for m in messages if m["role"] == "tool"}


def check_pairs(messages: list[Json]) -> None:
    """As strict inference servers check: each call is answered once, right behind its message."""
    open_calls: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in open_calls
            open_calls.remove(message["tool_call_id"])
            continue
        assert not open_calls
        open_calls = [call["id"] for call in message.get("tool_calls") or ()]
    assert not open_calls


def executed(log: Path) -> int:
    return len([e for e in entries(log) if e.get("method") == "tools/call"])


@MODES
async def test_its_tools_are_offered_beside_ours_and_one_message_comes_back(progress: str) -> None:
    script = [answer("I look.", calls=[say("c1", "x"), say("c2", "y")]), answer("It is x.")]
    async with bridged(*script) as place:
        chat = OpenWebUI(place, progress=progress)
        text = await chat.say("hi")
        offered = [t["function"]["name"] for t in place.inference.requests[0].json["tools"]]
    assert len(TOOLS) == 36
    assert offered[:36] == [tool["function"]["name"] for tool in TOOLS]
    assert "echo" in offered
    assert text == "I look.\n\nIt is x."
    assert len(chat.answers) == 1
    assert chat.answers[0].calls == []


@MODES
async def test_usage_is_shown_once_and_for_all_rounds(progress: str) -> None:
    async with bridged(answer(calls=[say("c1", "x")]), answer("ok")) as place:
        chat = OpenWebUI(place, progress=progress)
        await chat.say("hi")
    (read,) = chat.answers
    assert read.usage == {key: 2 * value for key, value in USAGE.items()}


async def test_the_panel_comes_back_in_the_history_and_nothing_is_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = [answer(calls=[say("c1", "x"), say("c2", "y")]), answer("ok"), answer("Because.")]
    servers = {"tools": scripted_server(log=log)}
    async with bridged(*script, mcp_servers=servers) as place:
        chat = OpenWebUI(place, progress="openwebui")
        await chat.say("hi")
        await chat.say("why?")
        history = sent(place)
    assert executed(log) == 2
    assert [len(read.calls) for read in chat.answers] == [0]
    check_pairs(history)
    assert results(history) == {"c1": "x", "c2": "y"}
    assert [m["content"] for m in history if m["role"] == "assistant"][-1] == "ok"


@MODES
@pytest.mark.parametrize(
    "calls",
    [
        [say("c1", "ours"), ("t1", CLOCK, "{}")],
        [("t1", CLOCK, "{}"), say("c1", "ours")],
        [say("c1", "ours"), ("t1", CLOCK, "{}"), say("c2", "more")],
    ],
    ids=["ours-first", "theirs-first", "theirs-between"],
)
async def test_no_result_is_lost_when_its_tools_and_ours_are_called_at_once(
    progress: str, calls: list[Call], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    script = [answer("All at once.", calls=calls), answer("Done."), answer("Fine.")]
    expected = {id: NOW if name == CLOCK else json.loads(a)["text"] for id, name, a in calls}
    async with bridged(*script, mcp_servers=servers) as place:
        chat = OpenWebUI(place, progress=progress)
        await chat.say("hi")
        follow_up = sent(place)
        await chat.say("thanks")
        next_turn = sent(place)
    for messages in (follow_up, next_turn):
        check_pairs(messages)
        assert results(messages) == expected
        assert [m["content"] for m in messages].count("All at once.") == 1
    assert executed(log) == len(calls) - 1


@MODES
async def test_turns_in_which_its_tools_and_ours_take_turns_stay_whole(progress: str) -> None:
    script = [
        answer("First ours.", calls=[say("c1", "1")]),
        answer("Now theirs.", calls=[("t1", CLOCK, "{}")]),
        answer("Ours again.", calls=[say("c2", "2")]),
        answer("Done."),
        answer("Fine."),
    ]
    async with bridged(*script) as place:
        chat = OpenWebUI(place, progress=progress)
        await chat.say("hi")
        last = sent(place)
    check_pairs(last)
    assert results(last) == {"c1": "1", "t1": NOW, "c2": "2"}
    said = "".join(m["content"] or "" for m in last if m["role"] == "assistant")
    assert [said.count(text) for text in ("First ours.", "Now theirs.", "Ours again.")] == [1, 1, 1]


async def test_an_answer_made_again_does_not_see_the_first_one() -> None:
    script = [answer(calls=[say("c1", "x")]), answer("one"), answer("two")]
    async with bridged(*script) as place:
        chat = OpenWebUI(place, progress="openwebui")
        await chat.say("hi")
        assert await chat.regenerate() == "two"
        assert sent(place) == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("named", [True, False], ids=["with-header", "by-its-prompt"])
@pytest.mark.parametrize("task", list(TASKS))
async def test_titles_tags_and_follow_ups_get_no_tools(task: str, named: bool) -> None:
    async with bridged(answer('{"title": "Time"}')) as place:
        completion = await OpenWebUI(place).task(task, named=named)
        body = place.inference.requests[0].json
    assert "tools" not in body
    assert body == {**TASKS[task], "model": "model-a"}
    assert completion["choices"][0]["message"]["content"] == '{"title": "Time"}'


# Status lines


async def test_the_status_line_stays_while_any_tool_runs_and_goes_with_the_last() -> None:
    slow = ("c1", "slow", '{"steps": 2, "pause": 0.05}')
    async with bridged(answer(calls=[slow, say("c2", "x")]), answer("ok")) as place:
        chat = OpenWebUI(place, progress="openwebui")
        await chat.say("hi")
    assert {"Calling echo …", "Calling slow …"} <= {line["description"] for line in chat.status}
    *running, last = chat.status
    assert not any(line["done"] for line in running)
    assert last["done"]
    assert last["hidden"]


async def test_a_question_to_the_user_takes_the_status_line_away_until_it_is_answered() -> None:
    schema = {"type": "object", "properties": {"colour": {"type": "string"}}}
    params = {"message": "Which colour?", "requestedSchema": schema}
    asks = ("c1", "ask", json.dumps({"method": "elicitation/create", "params": params}))
    async with bridged(answer(calls=[asks]), answer("ok"), tools={"elicitation": True}) as place:
        chat = OpenWebUI(place, progress="openwebui")
        question = await chat.say("hi")
        asked = chat.status
        await chat.say("red")
        told = results(sent(place))
    assert "Which colour?" in question
    assert asked[-1]["hidden"]
    assert [line["description"] for line in chat.status] == ["Calling ask …", "ask is done"]
    assert chat.status[-1]["hidden"]
    assert json.loads(told["c1"])["content"] == {"colour": "red"}
