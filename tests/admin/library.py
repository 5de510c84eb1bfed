"""An MCP server with prompts, resources and templates, and a tool that waits."""

from dataclasses import dataclass, field

import anyio
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette


@dataclass
class Seen:
    """What the server has been asked."""

    began: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)


def library(seen: Seen | None = None) -> Starlette:
    """The server as a web application."""
    seen = seen or Seen()
    server = MCPServer("library", version="1", log_level="ERROR")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def wrapped(arguments: dict[str, int]) -> str:
        return str(sorted(arguments))

    @server.tool()
    async def hang() -> str:
        seen.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            seen.cancelled.set()
        return "never"

    @server.prompt()
    def greet(who: str, tone: str = "warmly") -> str:
        return f"Greet {who} {tone}"

    @server.resource("books://list")
    def books() -> str:
        return "all books"

    @server.resource("books://shelf/{number}")
    def shelf(number: str) -> str:
        return f"shelf {number}"

    return server.streamable_http_app()
