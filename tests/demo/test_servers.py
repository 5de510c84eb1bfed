"""The demo's MCP servers as the bridge runs them: child processes over stdio."""

from pathlib import Path

from mcp_bridge.demo.run import mcp_server
from tests.mcp_client.running import running


async def test_each_server_runs_over_stdio_and_describes_its_tools_well(tmp_path: Path) -> None:
    read_only: dict[str, dict[str, bool]] = {}
    for name, arguments in [("clock", ()), ("calculator", ()), ("notes", (str(tmp_path),))]:
        async with running(mcp_server(name, *arguments)) as watch:
            assert watch.connection.state == "connected", watch.connection.status()
            tools = watch.connection.tools
        read_only[name] = {tool.name: tool.hint("readOnlyHint") for tool in tools}
        for tool in tools:
            assert tool.description
            assert tool.definition["outputSchema"]["type"] == "object"
            assert all("description" in one for one in tool.input_schema["properties"].values())
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
