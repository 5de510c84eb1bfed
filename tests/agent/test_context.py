"""Prompts and resources in a chat: what a request may want, where it is, and how it reads."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from mcp.server.mcpserver import AssistantMessage, MCPServer, Message, UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from mcp_bridge.agent.context import (
    NOTHING_WANTED,
    READ,
    Library,
    Wanted,
    opened,
    prompt_messages,
    resource_message,
    with_reader,
)
from mcp_bridge.agent.convert import readable
from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.policy.access import parse_selection
from mcp_bridge.tools.catalog import EMPTY_VIEW
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json
from tests.mcp_client.running import PATIENCE
from tests.servers.web import serving

PIXEL = b"\x89PNG\r\n\x1a\n"
CONTEXT = CallContext()


def library_server(name: str) -> MCPServer:
    """A server with prompts and resources."""
    server = MCPServer(name, version="1", log_level="ERROR")

    @server.prompt()
    def review(code: str, style: str = "kind") -> list[Message]:
        return [
            UserMessage(f"{name}: review this, be {style}: {code}"),
            AssistantMessage("Gladly."),
        ]

    @server.prompt()
    def picky(day: str) -> str:
        raise MCPError(INVALID_PARAMS, f"{day} is no day")

    @server.resource("notes://today", description="What is on today")
    def today() -> str:
        return f"{name}: nothing"

    @server.resource("notes://pixel", mime_type="image/png")
    def pixel() -> bytes:
        return PIXEL

    @server.resource("notes://day/{day}")
    def day(day: str) -> str:
        return f"{name}: {day}"

    return server


@asynccontextmanager
async def servers(*names: str, era: str = "auto") -> AsyncGenerator[list[Connection]]:
    """Connections to servers with prompts and resources."""
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        found: list[Connection] = []
        for name in names:
            app = library_server(name).streamable_http_app()
            site = await stack.enter_async_context(serving(app))
            settings = McpServer.model_validate({"url": f"{site.url}/mcp", "protocol": era})
            found.append(Connection(name, settings))
            tasks.start_soon(found[-1].run)
            with anyio.fail_after(PATIENCE):
                await found[-1].settled()
        yield found


# What a request may want


@pytest.mark.parametrize(
    ("extension", "wanted"),
    [
        ({}, Wanted()),
        ({"prompt": "review"}, Wanted("review")),
        ({"prompt": {"name": "review"}}, Wanted("review")),
        (
            {"prompt": {"name": "review", "arguments": {"code": "x"}}, "resources": ["a:b"]},
            Wanted("review", {"code": "x"}, ("a:b",)),
        ),
        ({"resources": "a:b"}, Wanted(resources=("a:b",))),
    ],
)
def test_a_request_names_a_prompt_and_resources(extension: Json, wanted: Wanted) -> None:
    assert Wanted.of(extension) == wanted


@pytest.mark.parametrize(
    ("extension", "param"),
    [
        ({"prompt": 5}, "mcp.prompt"),
        ({"prompt": ""}, "mcp.prompt.name"),
        ({"prompt": {}}, "mcp.prompt.name"),
        ({"prompt": {"name": "x", "arguments": []}}, None),
        ({"prompt": {"name": "x", "arguments": "y"}}, "mcp.prompt.arguments"),
        ({"prompt": {"name": "x", "arguments": {"n": 1}}}, "mcp.prompt.arguments.n"),
        ({"resources": {"a": 1}}, "mcp.resources"),
        ({"resources": [1]}, "mcp.resources"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(extension: Json, param: str | None) -> None:
    if param is None:
        assert Wanted.of(extension).arguments == {}
        return
    with pytest.raises(RequestError) as caught:
        Wanted.of(extension)
    assert (caught.value.param, caught.value.status) == (param, 400)


def test_a_toolsets_prompt_is_used_unless_the_request_names_one() -> None:
    default = Wanted("helper", {"tone": "dry"})
    wanted = Wanted(resources=("a:b",)).or_else(default)
    assert wanted == Wanted("helper", {"tone": "dry"}, ("a:b",))
    assert Wanted("own").or_else(default) == Wanted("own")
    assert NOTHING_WANTED.or_else(NOTHING_WANTED) == NOTHING_WANTED


# Where it is

every_era = pytest.mark.parametrize("era", ["legacy", "auto"])


@every_era
async def test_a_prompt_and_resources_open_the_conversation(era: str) -> None:
    wanted = Wanted("review", {"code": "x = 1"}, ("notes://today", "notes://day/Monday"))
    async with servers("a", era=era) as found:
        messages = await Library(found).opening(wanted, CONTEXT, vision=False)
    assert messages == [
        {"role": "user", "content": "a: review this, be kind: x = 1"},
        {"role": "assistant", "content": "Gladly."},
        {"role": "user", "content": "[resource notes://today]\na: nothing"},
        {"role": "user", "content": "[resource notes://day/Monday]\na: Monday"},
    ]


async def test_an_image_is_shown_to_a_model_that_sees_and_named_to_others() -> None:
    wanted = Wanted(resources=("notes://pixel",))
    async with servers("a") as found:
        library = Library(found)
        (seen,) = await library.opening(wanted, CONTEXT, vision=True)
        (named,) = await library.opening(wanted, CONTEXT, vision=False)
    assert seen["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert named["content"].startswith("[resource notes://pixel, image/png, ")


async def test_of_equal_names_the_first_servers_is_meant_and_the_others_have_a_prefix() -> None:
    async with servers("a", "b") as found:
        library = Library(found)
        for name, owner in (("review", "a"), ("a__review", "a"), ("b__review", "b")):
            result = await library.prompt(name, {"code": "x"}, CONTEXT)
            assert result["messages"][0]["content"]["text"].startswith(f"{owner}: ")


async def test_servers_that_the_caller_does_not_see_have_nothing_for_it() -> None:
    async with servers("a", "b") as found:
        library = Library(found, [parse_selection(["b:*"])])
        (message,) = await library.opening(
            Wanted(resources=("notes://today",)), CONTEXT, vision=False
        )
        assert message["content"].endswith("b: nothing")
        with pytest.raises(RequestError) as caught:
            await library.prompt("a__review", {}, CONTEXT)
    assert caught.value.status == 404


@every_era
@pytest.mark.parametrize(
    ("wanted", "status", "param", "code"),
    [
        (Wanted("reviev"), 404, "mcp.prompt.name", "prompt_not_found"),
        (
            Wanted(resources=("notes://today", "no://where")),
            404,
            "mcp.resources[1]",
            "resource_not_found",
        ),
    ],
)
async def test_what_is_not_there_is_404_with_its_place_in_the_request(
    era: str, wanted: Wanted, status: int, param: str, code: str
) -> None:
    async with servers("a", era=era) as found:
        with pytest.raises(RequestError) as caught:
            await Library(found).opening(wanted, CONTEXT, vision=False)
    exc = caught.value
    assert (exc.status, exc.param, exc.code) == (status, param, code)
    if wanted.prompt:
        assert "did you mean review?" in exc.message


async def test_a_prompt_without_arguments_that_it_takes_is_the_callers_mistake() -> None:
    async with servers("a") as found:
        with pytest.raises(RequestError) as caught:
            await Library(found).opening(Wanted("review"), CONTEXT, vision=False)
        assert (caught.value.status, caught.value.param) == (400, "mcp.prompt.arguments.code")
        with pytest.raises(RequestError, match="Noneday is no day") as caught:
            await Library(found).opening(Wanted("picky", {"day": "Noneday"}), CONTEXT, vision=False)
        assert (caught.value.status, caught.value.param) == (400, "mcp.prompt.arguments")


# How it reads


def user(content: str | list[Json]) -> Json:
    return {"role": "user", "content": content}


SYSTEM: Json = {"role": "system", "content": "Be brief."}
SAID: Json = {"role": "assistant", "content": "Yes?"}
IMAGE: Json = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("messages", "opening", "whole"),
    [
        ([SYSTEM, user("hi")], [], [SYSTEM, user("hi")]),
        ([SYSTEM, user("hi")], [user("note")], [SYSTEM, user("note\n\nhi")]),
        ([user("hi"), SAID, user("so")], [user("n")], [user("n\n\nhi"), SAID, user("so")]),
        ([user("hi")], [user("review"), SAID], [user("review"), SAID, user("hi")]),
        ([user("hi")], [SAID, user("a"), user("b")], [SAID, user("a\n\nb\n\nhi")]),
        ([SAID, user("hi")], [user("a")], [user("a"), SAID, user("hi")]),
        ([SYSTEM], [user("a")], [SYSTEM, user("a")]),
        ([], [user("a")], [user("a")]),
        (
            [user("hi")],
            [user([IMAGE])],
            [user([IMAGE, {"type": "text", "text": "hi"}])],
        ),
        ([user([IMAGE])], [user("a")], [user([{"type": "text", "text": "a"}, IMAGE])]),
    ],
)
def test_the_opening_stands_behind_the_system_messages_and_roles_alternate(
    messages: list[Json], opening: list[Json], whole: list[Json]
) -> None:
    before = repr(messages)
    assert opened(messages, opening) == whole
    assert repr(messages) == before


def test_a_prompt_may_hold_everything_that_mcp_content_holds() -> None:
    result: Json = {
        "messages": [
            user([{"type": "text", "text": "Look:"}, {"type": "image", "data": "AA=="}]),
            {
                "role": "assistant",
                "content": {"type": "image", "data": "AA==", "mimeType": "image/gif"},
            },
            {
                "role": "user",
                "content": {"type": "resource", "resource": {"uri": "a:b", "text": "T"}},
            },
            {"role": "user", "content": []},
            "not a message",
        ]
    }
    messages = prompt_messages(result, vision=True)
    assert messages[0]["content"] == [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    assert messages[1]["content"].startswith("[image image/gif")
    assert messages[2:] == [user("[resource a:b]\nT")]


def test_an_empty_resource_says_so() -> None:
    assert resource_message("a:b", {"contents": []}, vision=True) == user("[resource a:b: empty]")


# What the model may read by itself


async def test_the_model_is_offered_what_there_is_and_reads_it() -> None:
    async with servers("a") as found:
        view = with_reader(EMPTY_VIEW, Library(found))
        (entry,) = view.entries
        assert entry.name == READ
        assert "- notes://today (today: What is on today)" in entry.tool.description
        assert "- notes://day/{day}" in entry.tool.description
        good = await entry.source.call(READ, {"uri": "notes://today"}, CONTEXT)
        bad = await entry.source.call(READ, {"uri": "no://where"}, CONTEXT)
    assert readable(good, vision=False).text == "[resource notes://today]\na: nothing"
    assert bad["isError"] is True


async def test_a_tool_of_that_name_keeps_it() -> None:
    async with servers("a") as found:
        twice = with_reader(with_reader(EMPTY_VIEW, Library(found)), Library(found))
    assert [entry.name for entry in twice.entries] == [READ, f"mcp_bridge__{READ}"]


def test_where_nothing_can_be_read_nothing_is_offered() -> None:
    assert with_reader(EMPTY_VIEW, Library([])) is EMPTY_VIEW
