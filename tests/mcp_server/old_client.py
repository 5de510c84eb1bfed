# mypy: ignore-errors
# (its types are those of another SDK, which is not installed here)
"""A client of the older Python SDK (mcp 1.x): python old_client.py http|sse|websocket URL

It runs in an environment of its own (scripts/mcp1), uses what the server `everything` has, answers
what it asks, and prints what it got as JSON. No part of the project is imported.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any


def streams(kind: str, url: str) -> Any:
    if kind == "http":
        from mcp.client.streamable_http import streamablehttp_client

        return streamablehttp_client(url)
    if kind == "sse":
        from mcp.client.sse import sse_client

        return sse_client(url)
    from mcp.client.websocket import websocket_client

    return websocket_client(url)


async def main(kind: str, url: str) -> None:
    import mcp.types as types
    from mcp import ClientSession

    async def sample(context: Any, params: Any) -> Any:
        content = types.TextContent(type="text", text="Paris")
        return types.CreateMessageResult(role="assistant", model="m", content=content)

    async def fill_in(context: Any, params: Any) -> Any:
        content = {"username": "Ada", "email": "a@b.example"}
        return types.ElicitResult(action="accept", content=content)

    async def roots(context: Any) -> Any:
        return types.ListRootsResult(roots=[types.Root(uri="file:///home/ada")])

    progress: list[float] = []

    async def note(done: float, total: Any, message: Any) -> None:
        progress.append(done)

    async with AsyncExitStack() as stack:
        read, write, *_ = await stack.enter_async_context(streams(kind, url))
        session = await stack.enter_async_context(
            ClientSession(
                read,
                write,
                sampling_callback=sample,
                elicitation_callback=fill_in,
                list_roots_callback=roots,
            )
        )
        await session.initialize()

        async def text(name: str, arguments: Any, **more: Any) -> str:
            return (await session.call_tool(name, arguments, **more)).content[0].text

        found = {
            "tools": [tool.name for tool in (await session.list_tools()).tools],
            "prompts": [prompt.name for prompt in (await session.list_prompts()).prompts],
            "resource": (await session.read_resource("test://static-text")).contents[0].text,
            "simple": await text("test_simple_text", {}),
            "sampled": await text("test_sampling", {"prompt": "?"}),
            "filled": await text("test_elicitation", {"message": "?"}),
            "roots": await text("test_input_required_result_list_roots", {}),
            "done": await text("test_tool_with_progress", {}, progress_callback=note),
            "progress": progress,
        }
        sys.stdout.write(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
