# mypy: ignore-errors
# (its types are those of another SDK, which is not installed here)
"""A server of the older Python SDK (mcp 1.x) over a WebSocket: python old_server.py

It runs in an environment of its own (scripts/mcp1) and prints the port that it listens on.
"""

import asyncio
import socket
import sys
from typing import Any

import mcp.types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.websocket import websocket_server
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

server: Any = Server("old")


@server.list_tools()
async def list_tools() -> Any:
    return [types.Tool(name="echo", inputSchema={"type": "object"})]


@server.call_tool()
async def call_tool(name: str, arguments: Any) -> Any:
    return [types.TextContent(type="text", text=str(arguments["text"]))]


async def serve(websocket: Any) -> None:
    async with websocket_server(websocket.scope, websocket.receive, websocket.send) as streams:
        await server.run(*streams, server.create_initialization_options())


listener = socket.create_server(("127.0.0.1", 0))
sys.stdout.write(str(listener.getsockname()[1]))
sys.stdout.flush()
app = Starlette(routes=[WebSocketRoute("/ws", serve)])
config = uvicorn.Config(app, log_level="critical", ws="websockets-sansio")
asyncio.run(uvicorn.Server(config).serve([listener]))
