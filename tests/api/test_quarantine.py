"""One tool that the inference server cannot compile must not break every request (P1)."""

import json
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import Context, MCPServer

from tests.api.bridged import Place, bridged
from tests.fakes import Item, Reply, Request, answer, chunk, sse, whole
from tests.mcp_client.running import PATIENCE
from tests.servers.web import serving

Json = dict[str, Any]
Tool = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def refusal(message: str, *, status: int = 400, **more: Any) -> Reply:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return whole({"error": {**error, **more}}, status=status)


LLAMA_CPP = refusal("JSON schema error at #: unrecognized type nonsense", code=400)
GEMINI_SAYS = (
    'Invalid JSON payload received. Unknown name "const" at '
    "'tools[0].function_declarations[3].parameters': Cannot find field."
)
ENGINES: dict[str, Reply] = {
    "llama.cpp": LLAMA_CPP,
    "Gemini": whole(
        [{"error": {"code": 400, "message": GEMINI_SAYS, "status": "INVALID_ARGUMENT"}}], status=400
    ),
    "OpenAI": refusal(
        "Invalid schema for function 'x': In context=(), array schema missing items.",
        param="tools[3].function.parameters",
        code="invalid_function_parameters",
    ),
    "vLLM": whole(
        {
            "object": "error",
            "message": "Failed to convert the tools' schema to a grammar: unsupported pattern",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        status=400,
    ),
    "Groq": refusal("tools.3.function.parameters: 'type' : value is not valid", status=422),
}
every_engine = pytest.mark.parametrize("said", ENGINES.values(), ids=ENGINES)


def named(*names: str) -> Callable[[Tool], bool]:
    return lambda tool: tool["function"]["name"] in names


def refusing(bad: Callable[[Tool], bool], said: Reply) -> Item:
    """A model that refuses every request with a bad tool among its tools."""

    def model(request: Request) -> Any:
        return said if any(map(bad, request.json.get("tools", ()))) else answer("Here I am.")

    return model


def is_question(request: Request) -> bool:
    """Whether the bridge asks this on its own."""
    return request.json.get("max_tokens") == 1


def tools_of(request: Request) -> set[str]:
    return {tool["function"]["name"] for tool in request.json.get("tools", ())}


def taken(place: Place) -> list[Request]:
    """The requests that have come since this was last asked."""
    requests = list(place.inference.requests)
    place.inference.requests.clear()
    return requests


@BOTH
@every_engine
async def test_a_tool_that_the_engine_refuses_is_left_out_and_the_answer_comes(
    said: Reply, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with bridged(then=refusing(named("big"), said)) as place:
        assert (await place.said("hi", stream=stream))["content"] == "Here I am."
        first, *questions, last = taken(place)
        assert (await place.said("again", stream=stream))["content"] == "Here I am."
        next_time = taken(place)
    assert tools_of(last) == tools_of(first) - {"big"}
    assert last.json["messages"] == first.json["messages"]
    assert all(map(is_question, questions))
    assert [tools_of(request) for request in next_time] == [tools_of(last)]
    logged = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert len(logged) == 1
    assert "tool big is left out for model model-a" in logged[0]


async def test_the_engine_is_asked_with_few_words_that_are_not_the_users() -> None:
    async with bridged(then=refusing(named("big"), LLAMA_CPP)) as place:
        await place.said("my secret", stream=True, temperature=0)
        first, *questions, _ = taken(place)
    assert 1 < len(questions) < 2 * len(tools_of(first))
    for question in questions:
        assert question.json["messages"] == [{"role": "user", "content": "hi"}]
        assert question.json["stream"] is False
        assert "secret" not in question.body.decode()


@BOTH
async def test_all_bad_tools_are_found_at_once(stream: bool) -> None:
    bad = {"echo", "big", "give", "slow"}
    async with bridged(then=refusing(named(*bad), LLAMA_CPP)) as place:
        await place.said("hi", stream=stream)
        first, *_, last = taken(place)
        assert tools_of(last) == tools_of(first) - bad
        await place.said("hi", stream=stream)
        assert len(taken(place)) == 1


@BOTH
async def test_a_request_without_the_bad_tool_is_asked_once(stream: bool) -> None:
    async with bridged(then=refusing(named("big"), LLAMA_CPP)) as place:
        await place.said("hi", stream=stream, mcp={"tools": ["tools:echo"]})
        assert [tools_of(request) for request in taken(place)] == [{"echo"}]


@BOTH
async def test_the_tools_that_are_left_still_run(stream: bool) -> None:
    call = answer(calls=[("c1", "echo", json.dumps({"text": "I ran"}))])

    def model(request: Request) -> Any:
        if "big" in tools_of(request):
            return LLAMA_CPP
        last = request.json["messages"][-1]
        if last["role"] == "tool":
            return answer(f"It said: {last['content']}")
        return answer("") if is_question(request) else call

    async with bridged(then=model) as place:
        said = await place.said("hi", stream=stream)
    assert (said["content"], said["finish_reason"]) == ("It said: I ran", "stop")


# What is no tool's fault


@BOTH
@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (refusal("the request exceeds the available context size, try increasing it"), 1),
        (refusal("messages[0].content: invalid JSON"), 2),  # could be a tool's: one question
    ],
    ids=["does not sound like it", "sounds like it"],
)
async def test_a_400_about_something_else_keeps_its_status_and_every_tool(
    said: Reply, asked: int, stream: bool
) -> None:
    def model(request: Request) -> Any:
        bad = request.json["messages"][-1]["content"] == "bad"
        return said if bad else answer("Here I am.")

    async with bridged(then=model) as place:
        response = await place.post("bad", stream=stream)
        assert response.status_code == 400
        wanted = json.loads(b"".join(p for p in said.pieces if isinstance(p, bytes)))["error"]
        assert response.json()["error"]["message"] == wanted["message"]
        first, *questions = taken(place)
        assert len(questions) == asked - 1
        await place.post("bad", stream=stream)
        assert len(taken(place)) == 1  # it is known by now that the tools are fine
        await place.said("good", stream=stream)
        assert [tools_of(request) for request in taken(place)] == [tools_of(first)]


@BOTH
async def test_a_server_that_refuses_every_tool_says_why_itself(stream: bool) -> None:
    words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    async with bridged(then=refusing(lambda tool: True, refusal(words))) as place:
        response = await place.post("hi", stream=stream)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == words


@BOTH
async def test_a_bad_tool_of_the_clients_own_is_refused_as_it_is_without_us(stream: bool) -> None:
    tool = {"type": "function", "function": {"name": "mine", "parameters": {"type": "nonsense"}}}
    async with bridged(then=refusing(named("mine"), LLAMA_CPP)) as place:
        response = await place.post("hi", stream=stream, tools=[tool])
        await place.said("hi", stream=stream)
        assert "echo" in tools_of(place.inference.requests[-1])
    assert response.status_code == 400
    assert "unrecognized type nonsense" in response.json()["error"]["message"]


# Models without tools

OLLAMA = refusal("registry.ollama.ai/library/gemma:2b does not support tools", type="api_error")


@BOTH
async def test_a_model_that_takes_no_tools_is_asked_without_them(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with bridged(then=refusing(lambda tool: True, OLLAMA)) as place:
        for _ in range(2):
            assert (await place.said("hi", stream=stream))["content"] == "Here I am."
        first, *rest = taken(place)
    assert tools_of(first)
    assert [("tools" in r.json, "tool_choice" in r.json) for r in rest] == [(False, False)] * 2
    assert caplog.text.count("model model-a takes no tools") == 1


async def test_only_that_model_is_asked_without_them() -> None:
    def model(request: Request) -> Any:
        small = request.json["model"] == "small"
        return OLLAMA if small and "tools" in request.json else answer("Here I am.")

    async with bridged(then=model, models=["small", "large"]) as place:
        await place.said("hi", stream=False, model="small")
        await place.said("hi", stream=False, model="large")
        assert tools_of(taken(place)[-1])


# A tool that has changed


def changing_server() -> MCPServer:
    """A server whose tool `look` gets another definition by calling `change`."""
    server = MCPServer("changing", version="1", log_level="ERROR")

    def look(depth: int) -> str:
        return str(depth)

    def look_again(far: bool) -> str:
        return str(far)

    server.add_tool(look, name="look")

    @server.tool()
    async def change(ctx: Context) -> str:
        server.remove_tool("look")
        server.add_tool(look_again, name="look")
        await ctx.session.send_tool_list_changed()
        await ctx.notify_tools_changed()
        return "changed"

    return server


@BOTH
async def test_a_tool_whose_definition_changes_gets_a_new_chance(stream: bool) -> None:
    def is_bad(tool: Tool) -> bool:
        return "depth" in tool["function"]["parameters"].get("properties", {})

    async with serving(changing_server().streamable_http_app()) as site:
        servers = {"web": {"url": f"{site.url}/mcp"}}
        async with bridged(then=refusing(is_bad, LLAMA_CPP), mcp_servers=servers) as place:
            await place.said("hi", stream=stream)
            assert tools_of(taken(place)[-1]) == {"change"}
            changed = anyio.Event()
            place.bridge.subscribe(lambda kind: changed.set() if kind == "tools" else None)
            await place.http.post("/mcp/tools/change/call", json={})
            with anyio.fail_after(PATIENCE):
                await changed.wait()
            await place.said("hi", stream=stream)
            assert [tools_of(request) for request in taken(place)] == [{"look", "change"}]


async def test_an_answer_that_fails_in_the_middle_is_no_tools_fault_and_not_begun_again() -> None:
    error = {"code": 500, "message": "Failed to parse tool call arguments as JSON"}
    shown = anyio.Event()
    failing = sse(chunk({"role": "assistant", "content": "half"}), shown, {"error": error})
    async with bridged(failing, then=answer("another")) as place:
        read = await place.streamed("hi", on_chunk=shown.set)
        asked = len(place.inference.requests)
    assert read.text == "half"
    assert read.error is not None
    assert asked == 1
