"""What the doctor finds, and what it advises."""

import sys
from typing import Any

import anyio
import pytest

from mcp_bridge.config.load import Loaded
from mcp_bridge.config.settings import Settings
from mcp_bridge.doctor import PROBE_TOKENS, Check, How, examine
from tests.fakes import (
    Item,
    Json,
    Reply,
    Request,
    Said,
    ScriptedInference,
    answer,
    closed_port,
    hang,
    page,
    whole,
)
from tests.mcp_client.running import SCRIPTED

OSLO = ("c1", "get_weather", '{"city": "Oslo"}')
LIMA = ("c2", "get_weather", '{"city": "Lima"}')


async def examined(settings: Json, **how: Any) -> list[Check]:
    found: list[Check] = []
    with anyio.fail_after(60):
        loaded = Loaded(Settings.model_validate(settings), sources=("config.json",))
        await examine(loaded, How(**how), found.append)
    return found


async def asked(*script: Item, then: Item | None = None, **settings: Any) -> list[Check]:
    """What is found at an inference server that says this."""
    async with ScriptedInference(*script, then=then) as server:
        given = {"base_url": server.base_url, **settings}
        return about(await examined({"inference_server": given}), "inference server")


def about(checks: list[Check], area: str) -> list[Check]:
    return [check for check in checks if check.area.startswith(area)]


def calls(checks: list[Check]) -> list[tuple[str, str]]:
    """Mark and words of the tool calls that were tried, without the time they took."""
    found = [check for check in checks if check.words.startswith("tool call of")]
    return [(check.mark, check.words.rpartition(" (")[0] or check.words) for check in found]


def one(checks: list[Check], words: str) -> Check:
    (found,) = [check for check in checks if words in check.words]
    return found


def scripted(*behaviours: str, **more: Any) -> Json:
    return {"command": sys.executable, "args": [SCRIPTED, *behaviours], **more}


# Tool calls


@pytest.mark.parametrize(
    ("said", "mark", "words"),
    [
        (answer(calls=[OSLO, LIMA]), "ok", "structured calls, two at once"),
        (answer(calls=[OSLO]), "ok", "structured calls, one at a time"),
        (answer(calls=[OSLO, ("c2", "get_weather", "{")]), "warn", "not JSON"),
        (answer(calls=[("c1", "get_weather", "Oslo")]), "FAIL", "not JSON"),
        (
            answer('<tool_call>{"name": "get_weather", "arguments": {}}</tool_call>'),
            "FAIL",
            "as text",
        ),
        (answer("It rains."), "warn", "without calling"),
        (answer(""), "FAIL", "empty"),
        (answer("Let me think", finish_reason="length"), "warn", "cut off"),
    ],
)
async def test_a_real_tool_call_shows_what_the_model_and_its_server_can_do(
    said: Said, mark: str, words: str
) -> None:
    found = await asked(then=said)
    tried = calls(found)
    assert [found_mark for found_mark, _ in tried] == [mark, mark]
    assert words in tried[0][1]
    assert "whole" in tried[0][1]
    assert "streamed" in tried[1][1]


async def test_the_question_is_small_bounded_and_asked_both_ways() -> None:
    async with ScriptedInference(then=answer(calls=[OSLO])) as server:
        await examined({"inference_server": {"base_url": server.base_url}})
    first, second = (request.json for request in server.requests)
    assert (first["stream"], second["stream"]) == (False, True)
    for body in (first, second):
        assert body["max_tokens"] == PROBE_TOKENS
        assert body["tool_choice"] == "auto"
        assert len(body["tools"]) == 1


async def test_a_call_as_text_is_told_how_to_be_mended_and_is_well_once_it_is_read() -> None:
    said = answer('<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>')
    for check in [check for check in await asked(then=said) if check.mark == "FAIL"]:
        assert "--jinja" in check.hint
        assert "text_tool_calls" in check.hint
    assert [mark for mark, _ in calls(await asked(then=said, text_tool_calls=["*"]))] == [
        "ok",
        "ok",
    ]


async def test_a_model_that_wants_another_name_for_the_bound_is_asked_again() -> None:
    def only_new(request: Request) -> Reply | Said:
        if "max_tokens" in request.json:
            message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return whole({"error": {"message": message}}, status=400)
        assert request.json["max_completion_tokens"] == PROBE_TOKENS
        return answer(calls=[OSLO])

    assert [mark for mark, _ in calls(await asked(then=only_new))] == ["ok", "ok"]


async def test_a_server_that_refuses_tools_is_named_with_what_to_do() -> None:
    message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'
    found = await asked(then=whole({"error": {"message": message}}, status=400))
    failed = [check for check in found if check.mark == "FAIL"]
    assert len(failed) == 2
    assert all(message in check.words for check in failed)
    assert all("start vLLM with" in check.hint for check in failed)


async def test_no_model_is_asked_when_that_is_not_wanted() -> None:
    async with ScriptedInference() as server:
        found = await examined({"inference_server": {"base_url": server.base_url}}, probe=False)
    assert server.requests == []
    assert calls(found) == []


async def test_a_model_for_something_else_is_not_asked_to_chat() -> None:
    async with ScriptedInference(
        models=["nomic-embed-text", "qwen"], then=answer(calls=[OSLO])
    ) as server:
        await examined({"inference_server": {"base_url": server.base_url}})
        assert {request.json["model"] for request in server.requests} == {"qwen"}


async def test_a_model_can_be_named() -> None:
    async with ScriptedInference(models=["a", "b"], then=answer(calls=[OSLO])) as server:
        settings = {"inference_server": {"base_url": server.base_url}}
        await examined(settings, model="b")
        assert {request.json["model"] for request in server.requests} == {"b"}
        found = await examined(settings, model="c")
    assert one(found, "it has no model c").mark == "warn"
    assert len(server.requests) == 2


# Reaching an inference server


async def test_models_are_listed_and_missing_ones_are_named() -> None:
    found = await asked(then=answer(calls=[OSLO]), models=["model-a", "model-b", "qwen*"])
    assert one(found, "models: model-a, model-b").mark == "ok"
    assert one(found, "name model-b, which").mark == "warn"
    assert one(found, "name qwen*, which").mark == "warn"


async def test_a_server_that_is_not_there_is_one_failure() -> None:
    with closed_port() as port:
        base_url = f"http://127.0.0.1:{port}/v1"
        found = await examined({"inference_server": {"base_url": base_url}})
    (check,) = about(found, "inference server")
    assert check.mark == "FAIL"
    assert "connection refused" in check.words
    assert "is the server running" in check.hint or "in a container" in check.hint


async def test_a_wrong_key_is_said_to_be_one_and_not_shown() -> None:
    async with ScriptedInference() as server:
        error = {"error": {"message": "Incorrect API key provided: sk-very-secret"}}
        server.models = whole(error, status=401)
        given = {"base_url": server.base_url, "api_key": "sk-very-secret"}
        found = await examined({"inference_server": given})
    (check,) = about(found, "inference server")
    assert (check.mark, "api_key" in check.hint) == ("FAIL", True)
    assert "very-secret" not in repr(found)


@pytest.mark.parametrize("models", [page(status=200), whole({"error": {"message": "down"}})])
async def test_a_list_of_models_that_is_none_is_a_failure(models: Item) -> None:
    async with ScriptedInference() as server:
        server.models = models
        found = await examined({"inference_server": {"base_url": server.base_url}})
    (check,) = about(found, "inference server")
    assert check.mark == "FAIL"


async def test_a_server_that_does_not_list_models_is_asked_for_the_one_that_is_named() -> None:
    async with ScriptedInference(then=answer(calls=[OSLO, LIMA])) as server:
        server.models = whole({"error": {"message": "no"}}, status=404)
        settings = {"inference_server": {"base_url": server.base_url}}
        unnamed = await examined(settings)
        named = await examined(settings, model="m")
    assert one(unnamed, "no model is known").mark == "warn"
    assert [mark for mark, _ in calls(named)] == ["ok", "ok"]


async def test_every_inference_server_is_looked_at() -> None:
    async with ScriptedInference(then=answer(calls=[OSLO])) as good:
        with closed_port() as port:
            servers = [
                {"base_url": f"http://127.0.0.1:{port}/v1", "name": "down"},
                {"base_url": good.base_url, "name": "good"},
            ]
            found = await examined({"inference_server": servers})
    assert [check.mark for check in about(found, "inference server down")] == ["FAIL"]
    assert {check.mark for check in about(found, "inference server good")} == {"ok"}


# Tools and the context


async def in_context(tokens: int, *, place: str = "entry") -> Check:
    """What is said of the context when the server tells its size in that way."""
    async with ScriptedInference(then=answer(calls=[OSLO])) as server:
        entry: Json = {"id": "model-a", "object": "model"}
        ways: dict[str, tuple[str, Json]] = {
            "llama.cpp": ("/props", {"default_generation_settings": {"n_ctx": tokens}}),
            "Ollama": (
                "/api/ps",
                {"models": [{"name": "model-a:latest", "context_length": tokens}]},
            ),
            "LM Studio": ("/api/v0/models/model-a", {"loaded_context_length": tokens}),
        }
        for path, _ in ways.values():
            server.routes["GET", path] = page("not found", status=404)
        if place == "entry":
            entry["max_model_len"] = tokens
        elif place == "meta":
            entry["meta"] = {"n_ctx": tokens}
        else:
            path, body = ways[place]
            server.routes["GET", path] = whole(body)
        server.models = whole({"data": [entry]})
        found = await examined(
            {
                "inference_server": {"base_url": server.base_url},
                "mcp_servers": {"x": scripted()},
            }
        )
    return one(about(found, "tools"), "of model-a")


@pytest.mark.parametrize("place", ["entry", "meta", "llama.cpp", "Ollama", "LM Studio"])
async def test_the_size_of_the_context_is_read_wherever_a_server_tells_it(place: str) -> None:
    check = await in_context(4321, place=place)
    assert "4,321 tokens of model-a" in check.words


@pytest.mark.parametrize(("tokens", "mark"), [(1_000_000, "ok"), (1500, "warn"), (500, "FAIL")])
async def test_tools_that_leave_no_room_in_the_context_are_a_failure(
    tokens: int, mark: str
) -> None:
    check = await in_context(tokens)
    assert check.mark == mark
    assert ("toolsets" in check.hint) is (mark != "ok")


async def test_tools_with_the_same_name_are_told() -> None:
    found = await examined({"mcp_servers": {"a": scripted(), "b": scripted()}})
    assert one(found, "echo is a tool of a and of b").mark == "warn"


# MCP servers


async def test_each_mcp_server_is_told_with_its_state_and_why() -> None:
    servers = {
        "good": scripted(),
        "crashes": scripted("crash"),
        "gone": {"command": "no-such-command"},
        "off": {"command": "x", "disabled": True},
        "odd": scripted("bad-tools", "noise"),
        "silent": scripted("hang-initialize", startup_timeout=0.5),
    }
    found = about(await examined({"mcp_servers": servers}), "MCP servers")
    assert one(found, "good: connected over stdio").mark == "ok"
    crashed = one(found, "crashes: failed")
    assert crashed.mark == "FAIL"
    assert "out of luck" in crashed.words + crashed.hint
    assert "command not found: no-such-command" in one(found, "gone: failed").words
    assert one(found, "off: disabled").mark == "ok"
    assert one(found, "odd: tool list_schema is left out").mark == "warn"
    assert one(found, "standard output were no MCP messages").mark == "warn"
    assert "0.5 s" in one(found, "silent: failed").words


async def test_a_server_that_lacks_a_secret_is_a_failure_that_names_it() -> None:
    server = {"command": "x", "problem": "mcp_servers.x.env.KEY: KEY is not set"}
    found = about(await examined({"mcp_servers": {"x": server}}), "MCP servers")
    assert [(check.mark, "KEY is not set" in check.words) for check in found] == [("FAIL", True)]


async def test_a_server_that_is_still_starting_is_told_when_time_is_up() -> None:
    async with ScriptedInference(then=hang()):
        server = scripted("hang-initialize", startup_timeout=30)
        found = await examined({"mcp_servers": {"x": server}}, wait=0.1)
    check = one(found, "x: starting")
    assert (check.mark, "--wait" in check.hint) == ("FAIL", True)


async def test_commands_that_are_missing_are_named_with_how_to_get_them() -> None:
    path = {"PATH": "/nowhere"}
    servers = {
        "a": {"command": "uvx", "args": ["x"], "env": path},
        "b": {"command": "npx", "args": ["x"], "env": path},
        "c": {"image": "mcp/x", "env": path},
        "d": {"command": "uvx", "args": ["y"], "env": path},
        "e": {"command": "deno", "disabled": True},
    }
    found = about(await examined({"mcp_servers": servers}), "commands of MCP servers")
    assert [(check.mark, check.words.split()[0]) for check in found] == [
        ("FAIL", "uvx"),
        ("FAIL", "npx"),
        ("FAIL", "node"),
        ("FAIL", "docker"),
    ]
    assert "needed by a, d" in found[0].words
    assert "install uv" in found[0].hint
    assert "install Node.js" in found[1].hint


# The configuration


async def test_an_empty_configuration_says_what_is_missing() -> None:
    found = about(await examined({}), "configuration")
    assert one(found, "no inference server is configured").mark == "FAIL"
    assert one(found, "no MCP server is configured").mark == "warn"


@pytest.mark.parametrize(
    ("settings", "mark", "words"),
    [
        ({}, "ok", "only this machine"),
        (
            {
                "network": {"host": "0.0.0.0"},
                "security": {"auth": {"enabled": True, "api_keys": [{"key": "k" * 32}]}},
            },
            "ok",
            "asks for one of 1 API keys",
        ),
        (
            {"network": {"host": "0.0.0.0"}, "security": {"allow_public_without_auth": True}},
            "warn",
            "without authentication",
        ),
        (
            {"security": {"auth": {"enabled": True, "api_keys": [{"key": "short"}]}}},
            "warn",
            "api_keys.0 is short enough",
        ),
        (
            {"security": {"cors": {"enabled": True, "allow_origins": ["*"]}}},
            "warn",
            "every web page",
        ),
    ],
)
async def test_who_could_come_in_is_told(settings: Json, mark: str, words: str) -> None:
    assert one(about(await examined(settings), "configuration"), words).mark == mark


async def test_warnings_of_the_configuration_are_findings() -> None:
    found: list[Check] = []
    loaded = Loaded(Settings(), warnings=("a.b: unknown",), sources=("config.json",))
    await examine(loaded, How(), found.append)
    assert one(found, "a.b: unknown").mark == "warn"
