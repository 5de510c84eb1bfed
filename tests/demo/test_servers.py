"""The demo's MCP servers as the bridge runs them: child processes over stdio."""

from pathlib import Path

import anyio

from mcp_bridge.bridge import open_bridge
from mcp_bridge.config.settings import InferenceServer, Network
from mcp_bridge.demo.run import Demo
from tests.mcp_client.running import PATIENCE


async def test_each_server_runs_over_stdio_and_describes_its_tools_well(tmp_path: Path) -> None:
    demo = Demo(Network(), "", InferenceServer(), "", tmp_path)
    with anyio.fail_after(PATIENCE):
        async with open_bridge(demo.settings()) as bridge:
            assert await bridge.settled(PATIENCE)
            servers = {name: one.tools for name, one in bridge.connections.items()}
    for tool in (tool for tools in servers.values() for tool in tools):
        assert tool.description
        assert tool.definition["outputSchema"]["type"] == "object"
        assert all("description" in one for one in tool.input_schema["properties"].values())
    read_only = {
        name: {tool.name: tool.hint("readOnlyHint") for tool in tools}
        for name, tools in servers.items()
    }
    assert read_only == {
        "clock": {"current_time": True, "convert_time": True, "time_difference": True},
        "calculator": {"calculate": True},
        "notes": {
            "list_notes": True,
            "read_note": True,
            "write_note": False,
            "search_notes": True,
            "delete_note": False,
        },
    }
