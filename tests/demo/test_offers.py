"""Which offered tool the scripted model takes: by what it says and needs, not by its name."""

from typing import Any

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp_server_time.server import create_server  # type: ignore[import-untyped]  # has no py.typed

from mcp_bridge.demo.offers import Offer, fits, offers
from mcp_bridge.demo.servers import calculator, clock, notes
from mcp_bridge.demo.understand import Intent, Skill


def tool(name: str, description: str = "", **parameters: str) -> Offer:
    """Parameters as `name="required"` or `name="optional"`."""
    required = [key for key, need in parameters.items() if need == "required"]
    return Offer(name, description, {"properties": dict.fromkeys(parameters), "required": required})


async def offered(server: MCPServer) -> list[Offer]:
    async with Client(server) as client:
        tools = (await client.list_tools()).tools
    return [Offer(one.name, one.description or "", one.input_schema) for one in tools]


async def test_each_tool_of_our_servers_is_found_for_its_skill(tmp_path: Any) -> None:
    servers = [clock.build(), calculator.build(), notes.build(notes.Folder(tmp_path))]
    tools = [one for server in servers for one in await offered(server)]
    assert {skill: fit.tool for skill, fit in fits(tools).items()} == {
        Skill.NOW: "current_time",
        Skill.CONVERT: "convert_time",
        Skill.DIFFERENCE: "time_difference",
        Skill.CALCULATE: "calculate",
        Skill.WRITE: "write_note",
        Skill.SEARCH: "search_notes",
        Skill.DELETE: "delete_note",
        Skill.READ: "read_note",
        Skill.LIST: "list_notes",
    }


async def test_a_public_time_server_is_used_too() -> None:
    found = fits(await offered(create_server("UTC")))
    assert {skill: fit.tool for skill, fit in found.items()} == {
        Skill.NOW: "get_current_time",
        Skill.CONVERT: "convert_time",
    }
    asked = Intent(Skill.CONVERT, 0, {"source": "A", "target": "B", "time": "10:00"})
    assert found[Skill.CONVERT].arguments(asked) == {
        "source_timezone": "A",
        "target_timezone": "B",
        "time": "10:00",
    }


@pytest.mark.parametrize(
    ("offer", "skill"),
    [
        (tool("x1", "Get the current time in a city.", city="required"), Skill.NOW),
        (tool("server__current_time", "", tz="optional"), Skill.NOW),
        (tool("getCurrentTime", "", timeZone="required"), Skill.NOW),
        (tool("math", "Evaluate a formula", expr="required"), Skill.CALCULATE),
        (tool("noteDelete", "", note_id="required"), Skill.DELETE),
        (tool("add_note", "", title="required", content="required"), Skill.WRITE),
    ],
)
def test_a_tool_fits_by_words_and_parameters(offer: Offer, skill: Skill) -> None:
    assert list(fits([offer])) == [skill]


@pytest.mark.parametrize(
    "offer",
    [
        tool("current_time", "Get the time", timezone="required", api_key="required"),
        tool("current_time", "Get the time"),
        tool("weather", "Get the current weather", city="required"),
        tool("calculate_tax", "Calculate a tax", income="required"),
    ],
)
def test_a_tool_that_cannot_be_filled_or_is_about_something_else_does_not_fit(offer: Offer) -> None:
    assert fits([offer]) == {}


def test_of_two_tools_the_one_that_is_named_so_is_taken() -> None:
    tools = [
        tool("misc", "Get the current time or whatever.", zone="required"),
        tool("current_time", "", zone="required"),
    ]
    assert fits(tools)[Skill.NOW].tool == "current_time"


@pytest.mark.parametrize(
    "tools",
    [
        None,
        "tools",
        [None, 1, "x", {}, {"function": None}, {"function": {"name": 1}}],
        [{"function": {"name": "x", "description": 1, "parameters": [1]}}],
        [{"function": {"name": "x", "parameters": {"properties": [], "required": {"a": 1}}}}],
    ],
)
def test_tools_that_cannot_be_read_do_no_harm(tools: Any) -> None:
    assert fits(offers(tools)) == {}
