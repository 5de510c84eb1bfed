"""The demo's MCP servers, called in this process through the SDK's own client."""

from typing import Any

import anyio
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp_types import TextContent

Json = dict[str, Any]


async def call(server: MCPServer, tool: str, **arguments: Any) -> Json:
    """The structured content of a good result."""
    with anyio.fail_after(10):
        async with Client(server) as client:
            result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert isinstance(result.structured_content, dict)
    return result.structured_content


async def refused(server: MCPServer, tool: str, **arguments: Any) -> str:
    """The text of an error result."""
    with anyio.fail_after(10):
        async with Client(server) as client:
            result = await client.call_tool(tool, arguments)
    assert result.is_error
    block = result.content[0]
    assert isinstance(block, TextContent)
    return block.text
