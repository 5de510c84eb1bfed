"""The scripted model, over HTTP as an OpenAI client sees it."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest
from openai.types.chat import ChatCompletion

from mcp_bridge.demo.model import MODEL, scripted_model

Json = dict[str, Any]

QUESTION = "What time is it in Tokyo, and what is 17 * 23?"
TOKYO = '{"timezone": "Asia/Tokyo", "datetime": "2026-11-25T21:05:00+09:00"}'


def function(name: str, description: str, *parameters: str) -> Json:
    schema = {"type": "object", "properties": {key: {"type": "string"} for key in parameters}}
    about = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": about}


CLOCK = function("x__clock", "Get the current time.", "zone")
CALCULATOR = function("y__calc", "Calculate an expression.", "expression")
NOTES = function("list_notes", "List notes.")


@asynccontextmanager
async def over_http() -> AsyncGenerator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(scripted_model())
    async with httpx2.AsyncClient(transport=transport, base_url="http://model/v1/") as client:
        yield client


@asynccontextmanager
async def client() -> AsyncGenerator[openai.AsyncOpenAI]:
    async with (
        over_http() as http,
        openai.AsyncOpenAI(
            base_url="http://model/v1", api_key="any", max_retries=0, http_client=http
        ) as made,
    ):
        yield made


async def whole(question: str, tools: list[Json], **more: Any) -> ChatCompletion:
    messages = [{"role": "user", "content": question}]
    async with client() as model:
        completion = await model.chat.completions.create(
            model=MODEL,
            messages=more.pop("messages", messages),
            tools=tools or openai.omit,  # type: ignore[arg-type]  # plain objects, as they are sent
            **more,
        )
    assert isinstance(completion, ChatCompletion)
    return completion


def calls(completion: ChatCompletion) -> list[tuple[str, Json]]:
    return [
        (call.function.name, json.loads(call.function.arguments))
        for call in completion.choices[0].message.tool_calls or ()
        if call.type == "function"
    ]


def text(completion: ChatCompletion) -> str:
    return completion.choices[0].message.content or ""


BOTH = [("x__clock", {"zone": "Asia/Tokyo"}), ("y__calc", {"expression": "17 * 23"})]


async def test_it_is_listed_as_our_model() -> None:
    async with client() as model:
        listed = [one async for one in model.models.list()]
    assert [(one.id, one.owned_by) for one in listed] == [("scripted-demo", "mcp_bridge")]


async def test_it_calls_the_tools_that_the_question_needs_in_parallel() -> None:
    completion = await whole(QUESTION, [NOTES, CALCULATOR, CLOCK])
    assert calls(completion) == BOTH
    assert completion.choices[0].finish_reason == "tool_calls"
    assert completion.choices[0].message.content is None
    assert completion.usage is not None
    counted = completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert completion.usage.total_tokens == counted > 0


async def test_streamed_it_says_the_same_in_openais_shape() -> None:
    async with (
        client() as model,
        model.chat.completions.stream(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            tools=[CLOCK, CALCULATOR],  # type: ignore[list-item]  # plain objects, as they are sent
            stream_options={"include_usage": True},
        ) as stream,
    ):
        chunks = [event.chunk async for event in stream if event.type == "chunk"]
        completion = await stream.get_final_completion()
    assert calls(completion) == BOTH
    assert completion.usage is not None
    assert [len(chunk.choices) for chunk in chunks] == [1] * (len(chunks) - 1) + [0]
    reasons = [chunk.choices[0].finish_reason for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["tool_calls"]
    assert len({chunk.id for chunk in chunks}) == 1
    roles = [chunk.choices[0].delta.role for chunk in chunks[:-1]]
    assert roles == ["assistant"] + [None] * (len(roles) - 1)


async def test_a_stream_without_include_usage_has_none_and_ends_with_done() -> None:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    async with over_http() as http:
        answer = await http.post("chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    assert not any("usage" in chunk for chunk in chunks)
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert "not a language model" in said


def after(*results: tuple[str, Json, str], question: str = QUESTION) -> list[Json]:
    """A conversation in which these tools were called and have answered."""
    made = [
        {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for number, (name, arguments, _) in enumerate(results)
    ]
    answers = [
        {"role": "tool", "tool_call_id": f"c{number}", "content": content}
        for number, (_, _, content) in enumerate(results)
    ]
    asked = {"role": "user", "content": question}
    return [asked, {"role": "assistant", "content": None, "tool_calls": made}, *answers]


async def test_it_answers_from_the_results_and_says_what_it_is() -> None:
    (clock, zone), (calculator, expression) = BOTH
    messages = after((clock, zone, TOKYO), (calculator, expression, '{"result": "391"}'))
    completion = await whole("", [CLOCK, CALCULATOR], messages=messages)
    assert text(completion) == (
        "In Asia/Tokyo it is 21:05 on Wednesday, 25 November 2026. 17 * 23 = 391.\n\n"
        "(I am the scripted demo model of mcp_bridge, not a language model: "
        "simple rules chose these tools.)"
    )
    assert completion.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ("Error: no such zone", "The tool x__clock failed: Error: no such zone"),
        ("half past nine", "The tool x__clock answered: half past nine"),
        ('{"timezone": "UTC", "datetime": "soon"}', "The tool x__clock answered: {"),
    ],
)
async def test_a_result_it_does_not_know_is_told_as_it_is(result: str, said: str) -> None:
    messages = after(("x__clock", {"zone": "UTC"}, result), question="What time is it?")
    assert said in text(await whole("", [CLOCK], messages=messages))


async def test_without_parallel_calls_it_makes_one_after_the_other() -> None:
    (clock, zone), second = BOTH
    tools = [CLOCK, CALCULATOR]
    first = await whole(QUESTION, tools, parallel_tool_calls=False)
    assert calls(first) == [(clock, zone)]
    messages = after((clock, zone, TOKYO))
    then = await whole("", tools, messages=messages, parallel_tool_calls=False)
    assert calls(then) == [second]


async def test_it_calls_nothing_when_tool_choice_is_none() -> None:
    assert calls(await whole(QUESTION, [CLOCK, CALCULATOR], tool_choice="none")) == []


async def test_without_tools_it_says_that_it_cannot_answer() -> None:
    completion = await whole(QUESTION, [])
    assert "not a language model" in text(completion)
    assert "offers me no tool" in text(completion)


async def test_with_half_of_the_tools_it_says_what_is_missing() -> None:
    messages = after(("y__calc", {"expression": "17 * 23"}, '{"result": "391"}'))
    completion = await whole("", [CALCULATOR], messages=messages)
    assert "17 * 23 = 391. No tool for the current time was offered to me." in text(completion)


async def test_a_question_beyond_its_rules_is_told_what_it_can_do() -> None:
    completion = await whole("Who wrote Faust?", [CLOCK, CALCULATOR])
    assert "can be asked for: the current time, arithmetic." in text(completion)


async def test_only_the_last_question_counts_and_text_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "And 2 + 3?"}, {"type": "image_url", "image_url": {}}]
    messages = [
        {"role": "system", "content": "Answer 9 * 9."},
        *after(("x__clock", {"zone": "UTC"}, TOKYO), question="What time is it?"),
        {"role": "assistant", "content": "Late."},
        {"role": "user", "content": parts},
    ]
    completion = await whole("", [CLOCK, CALCULATOR], messages=messages)
    assert calls(completion) == [("y__calc", {"expression": "2 + 3"})]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [None, {"text": 1}]}],
        [{"role": "user", "content": "\ud800 2+2"}],
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": 5},
            {"role": "assistant", "tool_calls": [None, {}, {"id": "a", "function": {}}]},
            {"role": "tool", "tool_call_id": "a", "content": None},
        ],
    ],
)
async def test_strange_messages_get_an_answer(messages: Any) -> None:
    body = json.dumps({"model": MODEL, "messages": messages})
    async with over_http() as http:
        answer = await http.post("chat/completions", content=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "chat/completions", "no json", 400, None),
        ("POST", "chat/completions", "[]", 400, "messages"),
        ("POST", "chat/completions", f'{{"model": "{MODEL}"}}', 400, "messages"),
        ("POST", "chat/completions", '{"model": "gpt", "messages": []}', 404, "model"),
        ("GET", "chat/completions", "", 405, None),
        ("POST", "embeddings", "{}", 404, None),
    ],
)
async def test_a_bad_request_is_answered_as_openai_shapes_errors(
    method: str, path: str, body: str, status: int, param: str | None
) -> None:
    async with over_http() as http:
        answer = await http.request(method, path, content=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"]
    assert error["param"] == param
