"""An MCP server as people write them: the SDK's, over HTTP or stdio, with the echo tool.

python -m benchmarks.servers.sdk http --port 8002
python -m benchmarks.servers.sdk stdio
"""

import argparse
import os

import uvicorn
from mcp.server.mcpserver import MCPServer

from benchmarks.scenarios import ECHOED


def server() -> MCPServer:
    """The server: one tool, which says what it is told."""
    made = MCPServer("sdk", version="1", log_level="ERROR")

    @made.tool()
    def sdk_echo(text: str) -> str:
        """Says the text again."""
        return f"{ECHOED} {text}"

    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.servers.sdk", description=__doc__)
    parser.add_argument("transport", choices=("http", "stdio"))
    parser.add_argument("--port", type=int, default=8002)
    given = parser.parse_args()
    if cores := os.environ.get("BENCH_CORES"):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    if given.transport == "stdio":
        server().run("stdio")
        return
    app = server().streamable_http_app()
    uvicorn.run(app, port=given.port, log_level="warning", access_log=False, backlog=4096)


if __name__ == "__main__":
    main()
