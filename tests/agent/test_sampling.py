"""Who answers what servers ask: the caller or a model of ours, within a budget."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import anyio
import pytest
from mcp.server.mcpserver import MCPServer, Resolve, Sample
from mcp_types import (
    CreateMessageResult,
    CreateMessageResultWithTools,
    SamplingMessage,
    TextContent,
    Tool,
)

from mcp_bridge.agent.sampling import DEPTH_HEADER, Answerers, Nobody, depth_of
from mcp_bridge.config.settings import InferenceServer, McpServer, Sampling
from mcp_bridge.errors import SourceRefused
from mcp_bridge.inference.client import Inference
from mcp_bridge.tools.source import Answerer, CallContext
from mcp_bridge.types import Json
from tests.fakes import Item, ScriptedInference, answer, closed_port, hang, whole
from tests.mcp_client.running import PATIENCE, running, scripted, text
from tests.servers.web import serving

SAMPLING = "sampling/createMessage"
REJECTED, INTERNAL, INVALID, NO_METHOD = -1, -32603, -32602, -32601


@asynccontextmanager
async def models(
    *script: Item, then: Item | None = None, **settings: Any
) -> AsyncGenerator[tuple[ScriptedInference, Answerers]]:
    """A scripted model that can be asked, and answerers that ask it."""
    async with ScriptedInference(*script, then=then, models=("big", "small", "m")) as server:
        upstream = InferenceServer(base_url=server.base_url, max_retries=0, vision=("big",))
        inference = Inference((upstream,), backoff=0.001)
        try:
            yield server, Answerers(inference, Sampling.model_validate(settings))
        finally:
            await inference.aclose()


TWO: Json = {
    "models": [
        {"model": "small", "intelligence": 0.2, "cost": 0.1, "speed": 0.9},
        {"model": "big", "intelligence": 0.9, "cost": 0.9, "speed": 0.1},
    ]
}


def question(words: str = "hi", **params: Any) -> Json:
    message = {"role": "user", "content": {"type": "text", "text": words}}
    return {"messages": [message], "maxTokens": 100, **params}


async def ask(answerer: Answerer, **params: Any) -> Json:
    with anyio.fail_after(PATIENCE):
        return await answerer.answer("x", SAMPLING, question(**params))


async def refusal(answerer: Answerer, **params: Any) -> SourceRefused:
    with pytest.raises(SourceRefused) as caught:
        await ask(answerer, **params)
    return caught.value


class Person:
    """A caller that answers by itself, or will not."""

    def __init__(self, capabilities: Json, refuses: int | None = None) -> None:
        self._capabilities = capabilities
        self._refuses = refuses
        self.asked: list[str] = []

    def capabilities(self) -> Json:
        return self._capabilities

    async def answer(self, source: str, method: str, params: Json) -> Json:
        self.asked.append(method)
        if self._refuses is not None:
            raise SourceRefused(source, "no", rpc_code=self._refuses)
        return {"by": "person"}


# The answer of a model


async def test_a_model_answers_and_the_answer_names_it() -> None:
    async with models(answer("Hello.")) as (server, answerers):
        result = await ask(answerers.for_call("m"), systemPrompt="Be kind.", temperature=0.5)
    assert result == {
        "role": "assistant",
        "content": {"type": "text", "text": "Hello."},
        "model": "model-a",  # what the server said it was
        "stopReason": "endTurn",
    }
    sent = server.requests[0]
    assert sent.json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "hi"},
        ],
        "max_tokens": 100,
        "temperature": 0.5,
        "stream": False,
    }
    assert sent.headers[DEPTH_HEADER] == "1"


async def test_the_servers_preferences_choose_among_the_configured_models() -> None:
    async with models(then=answer("ok"), **TWO) as (server, answerers):
        for wanted in (
            {"intelligencePriority": 1},
            {"speedPriority": 1},
            {"hints": [{"name": "BIG"}], "speedPriority": 1},
            {},
        ):
            await ask(answerers.for_call("m"), modelPreferences=wanted)
    assert [r.json["model"] for r in server.requests] == ["big", "small", "big", "small"]


async def test_an_image_is_shown_to_the_model_that_sees() -> None:
    image = {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"}
    messages = [{"role": "user", "content": [image]}]
    async with models(then=answer("ok"), **TWO) as (server, answerers):
        for name in ("big", "small"):
            hints = {"hints": [{"name": name}]}
            await ask(answerers.for_call("m"), messages=messages, modelPreferences=hints)
    big, small = (r.json["messages"][0]["content"] for r in server.requests)
    assert big[0]["type"] == "image_url"
    assert small.startswith("[image image/png")


async def test_the_calls_that_a_model_makes_go_back_to_the_server_that_offered_the_tools() -> None:
    tools = [{"name": "add", "inputSchema": {"type": "object"}}]
    made = answer(calls=[("c1", "add", '{"a": 1}')])
    async with models(made) as (server, answerers):
        result = await ask(answerers.for_call("m"), tools=tools, toolChoice={"mode": "auto"})
    assert result["stopReason"] == "toolUse"
    assert result["content"] == [{"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}]
    assert len(server.requests) == 1
    assert server.requests[0].json["tools"][0]["function"]["name"] == "add"


async def test_a_model_that_knows_the_bound_by_its_new_name_is_asked_with_it() -> None:
    words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    refused = whole({"error": {"message": words}}, status=400)
    async with models(refused, answer("ok")) as (server, answerers):
        await ask(answerers.for_call("m"))
    assert server.requests[1].json["max_completion_tokens"] == 100
    assert "max_tokens" not in server.requests[1].json


# When models fail


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
async def test_the_next_model_is_asked_when_the_first_is_down(status: int) -> None:
    down = whole({"error": {"message": "out of order"}}, status=status)
    async with models(down, answer("I am here."), **TWO) as (server, answerers):
        result = await ask(answerers.for_call("m"))
    assert result["content"]["text"] == "I am here."
    assert [r.json["model"] for r in server.requests] == ["small", "big"]


async def test_a_question_that_is_wrong_is_not_put_to_the_next_model() -> None:
    wrong = whole({"error": {"message": "the context is too long"}}, status=400)
    async with models(wrong, then=answer("never"), **TWO) as (server, answerers):
        exc = await refusal(answerers.for_call("m"))
    assert (exc.rpc_code, len(server.requests)) == (INTERNAL, 1)
    assert "small: the context is too long" in exc.message


async def test_when_no_server_can_be_reached_the_asker_reads_which_were_tried() -> None:
    with closed_port() as port:
        upstream = InferenceServer(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0)
        inference = Inference((upstream,), backoff=0.001)
        answerers = Answerers(inference, Sampling.model_validate(TWO))
        exc = await refusal(answerers.for_call(None))
        await inference.aclose()
    assert exc.rpc_code == INTERNAL
    assert "small: " in exc.message and "big: " in exc.message


async def test_a_model_that_takes_too_long_is_given_up() -> None:
    async with models(hang(), timeout=0.05) as (_, answerers):
        exc = await refusal(answerers.for_call("m"))
    assert exc.rpc_code == INTERNAL
    assert "within 0.05 s" in exc.message


async def test_arguments_that_are_no_json_fail_the_request_with_words() -> None:
    made = answer(calls=[("c1", "add", "a=1")])
    tools = [{"name": "add", "inputSchema": {"type": "object"}}]
    async with models(made) as (_, answerers):
        exc = await refusal(answerers.for_call("m"), tools=tools)
    assert exc.rpc_code == INTERNAL
    assert "add" in exc.message


async def test_a_request_that_breaks_the_rules_is_invalid_and_asks_no_model() -> None:
    async with models() as (server, answerers):
        exc = await refusal(answerers.for_call("m"), maxTokens="many")
    assert (exc.rpc_code, server.requests) == (INVALID, [])


# Budget and depth


async def test_one_tool_call_may_ask_only_so_often_and_the_next_call_again() -> None:
    async with models(then=answer("ok"), max_requests=2) as (server, answerers):
        first = answerers.for_call("m")
        await ask(first)
        await ask(first)
        exc = await refusal(first)
        await ask(answerers.for_call("m"))
    assert exc.rpc_code == REJECTED
    assert "sampling.max_requests" in exc.message
    assert len(server.requests) == 3


async def test_one_tool_call_may_use_only_so_many_tokens() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
    async with models(then=answer("ok", usage=usage), max_tokens=150) as (server, answerers):
        answerer = answerers.for_call("m")
        for _ in range(3):
            await ask(answerer)
        exc = await refusal(answerer)
    assert [r.json["max_tokens"] for r in server.requests] == [100, 80, 10]
    assert exc.rpc_code == REJECTED
    assert "sampling.max_tokens" in exc.message


async def test_a_server_that_tells_no_usage_is_taken_to_have_used_what_was_granted() -> None:
    async with models(then=answer("ok", usage={}), max_tokens=120) as (server, answerers):
        answerer = answerers.for_call("m")
        await ask(answerer)
        await ask(answerer)
        await refusal(answerer)
    assert [r.json["max_tokens"] for r in server.requests] == [100, 20]


async def test_questions_side_by_side_cannot_overdraw_the_budget() -> None:
    async with models(then=answer("ok", usage={}), max_tokens=150) as (server, answerers):
        answerer = answerers.for_call("m")
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(lambda: ask(answerer))
    assert sorted(r.json["max_tokens"] for r in server.requests) == [50, 100]


async def test_sampling_inside_sampling_has_an_end() -> None:
    async with models(then=answer("ok"), max_depth=2) as (server, answerers):
        await ask(answerers.for_call("m", depth=1))
        too_deep = answerers.for_call("m", depth=2)
        assert too_deep.capabilities() == {}
        exc = await refusal(too_deep)
    assert (exc.rpc_code, len(server.requests)) == (REJECTED, 1)
    assert server.requests[0].headers[DEPTH_HEADER] == "2"


@pytest.mark.parametrize(
    ("headers", "depth"),
    [
        ({}, 0),
        ({DEPTH_HEADER: "3"}, 3),
        ({DEPTH_HEADER: "-1"}, 0),
        ({DEPTH_HEADER: "9" * 5000}, 0),
        ({DEPTH_HEADER: "²"}, 0),
    ],
)
def test_the_depth_comes_from_a_header(headers: dict[str, str], depth: int) -> None:
    assert depth_of(headers) == depth


async def test_without_any_model_sampling_is_not_offered() -> None:
    async with models() as (_, answerers):
        answerer = answerers.for_call(None)
        assert answerer.capabilities() == {}
        exc = await refusal(answerer)
    assert "sampling.models" in exc.message


async def test_each_request_leaves_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    name = "mcp_bridge.agent.sampling"
    async with models(answer("ok")) as (_, answerers):
        with caplog.at_level(logging.INFO, name):
            await ask(answerers.for_call("m"))
    assert [r.getMessage() for r in caplog.records if r.name == name] == [
        "sampling for x answered by m: 15 tokens, at most 100 were granted"
    ]


# Who answers

BOTH: Json = {"sampling": {}, "elicitation": {}, "roots": {}}


@pytest.mark.parametrize(
    ("mode", "capabilities", "by"),
    [
        ("caller", BOTH, "person"),
        ("caller", {}, "nobody"),
        ("bridge", BOTH, "model"),
        ("bridge", {}, "model"),
        ("caller-then-bridge", BOTH, "person"),
        ("caller-then-bridge", {"elicitation": {}}, "model"),
    ],
)
async def test_the_setting_says_who_answers_sampling(
    mode: Literal["caller", "bridge", "caller-then-bridge"], capabilities: Json, by: str
) -> None:
    async with models(answer("ok"), answer=mode) as (server, answerers):
        caller = Person(capabilities) if capabilities else None
        answerer = answerers.for_call("m", caller)
        assert ("sampling" in answerer.capabilities()) == (by != "nobody")
        if by == "nobody":
            assert (await refusal(answerer)).rpc_code == NO_METHOD
            return
        result = await ask(answerer)
    assert (result == {"by": "person"}) == (by == "person")
    assert len(server.requests) == (by == "model")


@pytest.mark.parametrize("mode", ["caller", "bridge", "caller-then-bridge"])
async def test_everything_but_sampling_goes_to_the_caller(mode: str) -> None:
    person = Person(BOTH)
    async with models(answer=mode) as (_, answerers):
        answerer = answerers.for_call("m", person)
        for method in ("elicitation/create", "roots/list"):
            assert await answerer.answer("x", method, {}) == {"by": "person"}
    assert person.asked == ["elicitation/create", "roots/list"]


async def test_a_question_with_tools_goes_to_the_bridge_when_the_caller_takes_none() -> None:
    tools = [{"name": "add", "inputSchema": {"type": "object"}}]
    person = Person({"sampling": {}})
    async with models(answer("ok")) as (_, answerers):
        answerer = answerers.for_call("m", person)
        assert answerer.capabilities() == {"sampling": {"tools": {}}}
        await ask(answerer, tools=tools)
        assert person.asked == []
        await ask(answerer)
    assert person.asked == [SAMPLING]


async def test_a_person_who_says_no_is_not_overruled_by_the_bridge() -> None:
    async with models(answer("never")) as (server, answerers):
        exc = await refusal(answerers.for_call("m", Person({"sampling": {}}, refuses=REJECTED)))
    assert (exc.rpc_code, server.requests) == (REJECTED, [])


async def test_a_caller_that_promised_too_much_is_replaced_by_the_bridge() -> None:
    async with models(answer("ok")) as (_, answerers):
        caller = Person({"sampling": {}}, refuses=NO_METHOD)
        assert (await ask(answerers.for_call("m", caller)))["content"]["text"] == "ok"


async def test_where_the_bridge_answers_a_caller_is_never_asked_for_a_model() -> None:
    person = Person(BOTH)
    async with models(answer="bridge") as (_, answerers):
        answerer = answerers.for_call(None, person)
        assert answerer.capabilities() == {"elicitation": {"form": {}}, "roots": {}}
        assert (await refusal(answerer)).rpc_code == NO_METHOD
    assert person.asked == []


@pytest.mark.parametrize(
    ("elicitation", "declared"),
    [({}, {"form": {}}), ({"url": {}}, {"url": {}}), ({"form": {}, "url": {}}, None)],
)
async def test_what_a_caller_can_answer_is_declared_for_it(
    elicitation: Json, declared: Json | None
) -> None:
    async with models() as (_, answerers):
        answerer = answerers.for_call("m", Person({"elicitation": elicitation}))
    assert answerer.capabilities() == {
        "sampling": {"tools": {}},
        "elicitation": elicitation if declared is None else declared,
    }


async def test_nobody_declines_with_words() -> None:
    exc = await refusal(Nobody())
    assert "cannot answer" in exc.message


# Real servers that ask


async def test_a_server_of_the_old_era_gets_its_answer_in_the_middle_of_the_call() -> None:
    async with models(answer("blue")) as (_, answerers), running(scripted()) as watch:
        context = CallContext(answerer=answerers.for_call("m"))
        result = await watch.call("ask", context, method=SAMPLING, params=question())
    reply = json.loads(text(result))
    assert reply["content"] == {"type": "text", "text": "blue"}
    CreateMessageResult.model_validate(reply)


async def test_a_server_of_the_old_era_reads_why_it_was_declined() -> None:
    async with models(max_requests=0) as (_, answerers), running(scripted()) as watch:
        context = CallContext(answerer=answerers.for_call("m"))
        result = await watch.call("ask", context, method=SAMPLING, params=question())
    reply = json.loads(text(result))
    assert reply["code"] == REJECTED
    assert "sampling.max_requests" in reply["message"]


def poet() -> MCPServer:
    """A server whose tools want a model."""
    server = MCPServer("poet", version="1", log_level="ERROR")
    prompt = [SamplingMessage(role="user", content=TextContent(type="text", text="A rhyme!"))]
    rhyme = Tool(name="rhyme", input_schema={"type": "object"})

    def plain() -> Sample:
        return Sample(prompt, max_tokens=20)

    def with_tools() -> Sample:
        return Sample(prompt, max_tokens=20, tools=[rhyme])

    @server.tool()
    def verse(said: Annotated[CreateMessageResult, Resolve(plain)]) -> str:
        assert isinstance(said.content, TextContent)
        return f"{said.content.text} ({said.stop_reason})"

    @server.tool()
    def tooled(said: Annotated[CreateMessageResultWithTools, Resolve(with_tools)]) -> str:
        return ", ".join(block.type for block in said.content_as_list)

    return server


@pytest.mark.parametrize("era", ["legacy", "auto"])
async def test_a_real_server_gets_a_model_in_both_eras(era: str) -> None:
    called = answer("Let me look.", calls=[("c1", "rhyme", "{}")])
    async with (
        models(answer("Roses are red.", finish_reason="length"), called) as (server, answerers),
        serving(poet().streamable_http_app()) as site,
        running(McpServer.model_validate({"url": f"{site.url}/mcp", "protocol": era})) as watch,
    ):
        assert (watch.connection.protocol_version == "2026-07-28") == (era == "auto")
        context = CallContext(answerer=answerers.for_call("m"))
        assert text(await watch.call("verse", context)) == "Roses are red. (maxTokens)"
        assert text(await watch.call("tooled", context)) == "text, tool_use"
    assert [r.json["max_tokens"] for r in server.requests] == [20, 20]
