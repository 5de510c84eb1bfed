"""An MCP server as people write them: the SDK's, over any transport, with the echo tool.

python -m benchmarks.servers.sdk http --port 8002
python -m benchmarks.servers.sdk stdio
"""

import argparse
import os

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.scenarios import ECHOED
from mcp_bridge.mcp_server.streams import serve_socket
from mcp_bridge.websocket import SUBPROTOCOL, ServerSocket

IDLE_SECONDS, MOST_BYTES = 600.0, 2**22


def server() -> MCPServer:
    """The server: one tool, which says what it is told."""
    made = MCPServer("sdk", version="1", log_level="ERROR")

    @made.tool()
    def sdk_echo(text: str) -> str:
        """Says the text again."""
        return f"{ECHOED} {text}"

    return made


def socket_app(made: MCPServer) -> Starlette:
    """The same over a WebSocket, which the SDK has no server for: on the bridge's own end of it."""

    async def serve(websocket: WebSocket) -> None:
        await websocket.accept(SUBPROTOCOL)
        socket = ServerSocket(websocket, max_bytes=MOST_BYTES, idle_seconds=IDLE_SECONDS)
        await serve_socket(made._lowlevel_server, socket)  # the SDK's apps serve this one too

    return Starlette(routes=[WebSocketRoute("/ws", serve)])


def app_of(transport: str) -> Starlette:
    match transport:
        case "sse":
            return server().sse_app()
        case "websocket":
            return socket_app(server())
        case _:
            return server().streamable_http_app()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.servers.sdk", description=__doc__)
    parser.add_argument("transport", choices=("http", "sse", "websocket", "stdio"))
    parser.add_argument("--port", type=int, default=8002)
    given = parser.parse_args()
    if cores := os.environ.get("BENCH_CORES"):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    if given.transport == "stdio":
        server().run("stdio")
        return
    app = app_of(given.transport)
    uvicorn.run(app, port=given.port, log_level="warning", access_log=False, backlog=4096)


if __name__ == "__main__":
    main()
