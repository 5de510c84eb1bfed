"""An MCP server that costs next to nothing: stdio, no SDK, echo and as many tools as are wanted.

python -I -S benchmarks/servers/echo.py PREFIX COUNT
"""

import json
import os
import sys
from typing import Any

PROTOCOL = "2025-06-18"


def tool(prefix: str, number: int) -> dict[str, Any]:
    """A definition about as long as real ones are; number 0 is the echo."""
    name = f"{prefix}_echo" if number == 0 else f"{prefix}_tool_{number}"
    properties = {
        "text": {"type": "string", "description": "The text to work on, at most one page of it."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
        "mode": {"type": "string", "enum": ["fast", "thorough"], "description": "How."},
    }
    schema = {"type": "object", "properties": properties, "required": ["text"]}
    description = f"Says the text again ({name}). Use it whenever the user asks for an echo."
    return {"name": name, "description": description, "inputSchema": schema}


def result_of(method: str, params: dict[str, Any], tools: list[dict[str, Any]]) -> Any:
    match method:
        case "initialize":
            about = {"name": "echo", "version": "1"}
            return {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            return {"tools": tools}
        case "tools/call":
            text = f"echoed: {params.get('arguments', {}).get('text')}"
            return {"content": [{"type": "text", "text": text}], "isError": False}
        case "ping":
            return {}
        case _:
            return None


def main() -> None:
    prefix, count = sys.argv[1], int(sys.argv[2])
    if cores := os.environ.get("BENCH_CORES"):  # not the core of the bridge that starts this
        os.sched_setaffinity(0, map(int, cores.split(",")))
    tools = [tool(prefix, number) for number in range(count)]
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "id" not in request:
            continue
        answer = {"jsonrpc": "2.0", "id": request["id"]}
        result = result_of(request.get("method", ""), request.get("params") or {}, tools)
        if result is None:
            answer["error"] = {"code": -32601, "message": "Method not found"}
        else:
            answer["result"] = result
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
