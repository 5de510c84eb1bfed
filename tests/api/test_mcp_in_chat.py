"""What MCP has besides tools, in a chat: prompts, resources, and servers that want a model."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from mcp_bridge.agent.sampling import DEPTH_HEADER
from tests.api.bridged import Place, bridged
from tests.fakes import Item, answer
from tests.servers.web import serving

Json = dict[str, Any]
SAMPLING: Json = {
    "method": "sampling/createMessage",
    "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": "A rhyme?"}}],
        "maxTokens": 20,
    },
}

streamed_or_whole = pytest.mark.parametrize("stream", [False, True])


def library() -> MCPServer:
    server = MCPServer("library", version="1", log_level="ERROR")

    @server.prompt()
    def pirate(mood: str) -> str:
        return f"Speak like a {mood} pirate."

    @server.resource("notes://today", description="What is on")
    def today() -> str:
        return "Nothing is on."

    @server.tool()
    def echo(text: str) -> str:
        return text

    return server


@asynccontextmanager
async def place(*script: Item, **config: Any) -> AsyncGenerator[Place]:
    async with serving(library().streamable_http_app()) as site:
        servers = {"library": {"url": f"{site.url}/mcp"}}
        async with bridged(*script, then=answer("Arr."), mcp_servers=servers, **config) as made:
            yield made


def asked(place: Place, request: int = 0) -> list[Json]:
    messages = place.inference.requests[request].json["messages"]
    assert isinstance(messages, list)
    return messages


PIRATE: Json = {"name": "pirate", "arguments": {"mood": "merry"}}


# Prompts and resources


@streamed_or_whole
async def test_a_prompt_and_a_resource_open_the_conversation(stream: bool) -> None:
    question = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is on?"},
    ]
    async with place() as made:
        wanted = {"prompt": PIRATE, "resources": ["notes://today"]}
        said = await made.said(question, stream=stream, mcp=wanted)
        assert said["content"] == "Arr."
        assert asked(made) == [
            question[0],
            {
                "role": "user",
                "content": "Speak like a merry pirate.\n\n"
                "[resource notes://today]\nNothing is on.\n\nWhat is on?",
            },
        ]
        assert "mcp" not in made.inference.requests[0].json


async def test_with_a_prompt_a_conversation_needs_no_messages_of_its_own() -> None:
    async with place() as made:
        await made.chat([], mcp={"prompt": PIRATE})
        assert asked(made) == [{"role": "user", "content": "Speak like a merry pirate."}]
        response = await made.post([], mcp={"resources": ["notes://today"]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


@pytest.mark.parametrize(
    ("wanted", "status", "param"),
    [
        ({"prompt": "pirat"}, 404, "mcp.prompt.name"),
        ({"prompt": "pirate"}, 400, "mcp.prompt.arguments.mood"),
        ({"prompt": 7}, 400, "mcp.prompt"),
        ({"resources": ["notes://today", "notes://gone"]}, 404, "mcp.resources[1]"),
        ({"prompt": PIRATE, "toolset": "nothing"}, 404, "mcp.prompt.name"),
    ],
)
async def test_what_cannot_be_had_is_an_error_with_its_place_in_the_request(
    wanted: Json, status: int, param: str
) -> None:
    async with place(toolsets={"nothing": {"include": ["other:*"]}}) as made:
        response = await made.post(mcp=wanted)
        assert made.inference.requests == []
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_a_toolsets_prompt_is_used_where_its_name_chose_the_model() -> None:
    ship = {"prompt": "pirate", "prompt_arguments": {"mood": "grim"}}
    async with place(toolsets={"ship": ship}) as made:
        await made.chat("Hi", model="model-a@ship")
        await made.chat("Hi", path="/t/ship/v1")
        await made.chat("Hi", model="model-a@ship", mcp={"prompt": PIRATE})
        await made.chat("Hi")
        contents = [asked(made, number)[0]["content"] for number in range(4)]
    assert contents == [
        "Speak like a grim pirate.\n\nHi",
        "Speak like a grim pirate.\n\nHi",
        "Speak like a merry pirate.\n\nHi",
        "Hi",
    ]


async def test_a_model_that_may_reads_resources_by_itself() -> None:
    reads = answer(calls=[("c1", "read_resource", '{"uri": "notes://today"}')])
    async with place(reads, tools={"read_resource": True}) as made:
        await made.chat("What is on?")
        tools = made.inference.requests[0].json["tools"]
        (reader,) = [t for t in tools if t["function"]["name"] == "read_resource"]
        assert "- notes://today (today: What is on)" in reader["function"]["description"]
        result = asked(made, 1)[-1]
    assert (result["role"], result["content"]) == (
        "tool",
        "[resource notes://today]\nNothing is on.",
    )


async def test_resources_are_not_offered_unless_that_is_switched_on() -> None:
    async with place() as made:
        await made.chat("What is on?")
        names = [t["function"]["name"] for t in made.inference.requests[0].json["tools"]]
    assert names == ["echo"]


# Servers that want a model


def asks(id: str = "c1") -> Item:
    """The model calls a tool whose server wants a model."""
    return answer(calls=[(id, "ask", json.dumps(SAMPLING))])


@streamed_or_whole
async def test_a_server_that_wants_a_model_gets_that_of_the_conversation(stream: bool) -> None:
    script = (asks(), answer("Roses."), answer("It rhymes."))
    async with bridged(*script, models=("model-a", "model-b")) as made:
        said = await made.said("Rhyme!", stream=stream, model="model-b")
        question = made.inference.requests[1].json
        result = json.loads(asked(made, 2)[-1]["content"])
    assert said["content"] == "It rhymes."
    assert question["model"] == "model-b"
    assert question["messages"] == [{"role": "user", "content": "A rhyme?"}]
    assert "tools" not in question
    assert result["content"] == {"type": "text", "text": "Roses."}


async def test_each_call_has_a_budget_of_its_own() -> None:
    script = (asks("c1"), answer("1"), asks("c2"), answer("2"), answer("Done."))
    async with bridged(*script, sampling={"max_requests": 1}) as made:
        await made.chat("Rhyme twice!")
        results = [json.loads(m["content"]) for m in asked(made, 4) if m["role"] == "tool"]
    assert [r["content"]["text"] for r in results] == ["1", "2"]


async def test_a_conversation_that_is_itself_sampling_may_go_only_so_deep() -> None:
    async with bridged(asks(), answer("Without it, then.")) as made:
        await made.post("Rhyme!", headers={DEPTH_HEADER: "2"})
        headers = made.inference.requests[0].headers
        result = json.loads(asked(made, 1)[-1]["content"])
    assert headers[DEPTH_HEADER] == "2"
    assert result["code"] == -32601


async def test_where_only_callers_may_answer_a_chat_declines_at_once() -> None:
    async with bridged(asks(), answer("No rhyme."), sampling={"answer": "caller"}) as made:
        completion = await made.chat("Rhyme!")
        result = json.loads(asked(made, 1)[-1]["content"])
    assert completion["choices"][0]["message"]["content"] == "No rhyme."
    assert "cannot answer" in result["message"]
