"""Clients of the API before tools, with `functions` and `function_call`."""

import json
from typing import Any

import pytest

from tests.api.bridged import bridged
from tests.fakes import DONE, Item, answer, chunk, sse, whole

Json = dict[str, Any]
FUNCTIONS = [{"name": "lookup", "parameters": {"type": "object"}}]
CALL = {"name": "lookup", "arguments": '{"q": 1}'}


def old_stream() -> Item:
    return sse(
        chunk({"role": "assistant", "content": None, "function_call": {**CALL, "arguments": ""}}),
        chunk({"function_call": {"arguments": CALL["arguments"]}}),
        chunk({}, finish_reason="function_call"),
        DONE,
    )


def old_whole() -> Item:
    message = {"role": "assistant", "content": None, "function_call": CALL}
    return whole(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "model-a",
            "choices": [{"index": 0, "message": message, "finish_reason": "function_call"}],
        }
    )


@pytest.mark.parametrize("said", [old_whole(), answer(calls=[("c1", "lookup", '{"q": 1}')])])
async def test_a_call_of_a_function_goes_back_to_the_client_as_one(said: Item) -> None:
    async with bridged(said) as place:
        completion = await place.chat("hi", functions=FUNCTIONS, function_call="auto")
        (sent,) = (request.json for request in place.inference.requests)
    assert completion["choices"][0]["message"]["function_call"] == CALL
    assert "tool_calls" not in completion["choices"][0]["message"]
    assert completion["choices"][0]["finish_reason"] == "function_call"
    assert sent["functions"] == FUNCTIONS
    assert "tools" not in sent


@pytest.mark.parametrize("said", [old_stream(), answer(calls=[("c1", "lookup", '{"q": 1}')])])
async def test_it_is_streamed_in_that_shape_too(said: Item) -> None:
    async with bridged(said) as place:
        read = await place.streamed("hi", functions=FUNCTIONS)
    pieces = [delta["function_call"] for delta in read.deltas if "function_call" in delta]
    assert [piece["name"] for piece in pieces if "name" in piece] == ["lookup"]
    assert "".join(piece["arguments"] for piece in pieces) == CALL["arguments"]
    assert read.calls == []
    assert read.finish_reason == "function_call"


async def test_a_history_with_functions_is_passed_on_as_it_is() -> None:
    history: list[Json] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "function_call": CALL},
        {"role": "function", "name": "lookup", "content": json.dumps({"found": 2})},
    ]
    async with bridged(answer("It is 2.")) as place:
        completion = await place.chat(history, functions=FUNCTIONS)
        assert place.inference.requests[0].json["messages"] == history
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "It is 2."}


async def test_functions_beside_tools_are_the_clients_too() -> None:
    tools = [{"type": "function", "function": {"name": "other"}}]
    async with bridged(answer(calls=[("c1", "lookup", "{}")])) as place:
        completion = await place.chat("hi", functions=FUNCTIONS, tools=tools)
    assert [c["id"] for c in completion["choices"][0]["message"]["tool_calls"]] == ["c1"]
