"""A client that does, through the bridge, what the suite's client scenarios want to see.

Most scenarios watch what reaches their server when a client uses everything that is there.
"""

import traceback
from typing import Any

import anyio
from mcp.client import Client
from mcp_types import CreateMessageResult, ElicitResult, ListRootsResult, TextContent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from mcp_bridge.types import Json
from tests.mcp_server.running import client, house

SAMPLES: Json = {
    "string": "x",
    "number": 1,
    "integer": 1,
    "boolean": True,
    "object": {},
    "array": [],
}


async def fill_in(context: Any, params: Any) -> ElicitResult:
    """Accept a form as it is: with its defaults."""
    properties: Json = getattr(params, "requested_schema", {}).get("properties", {})
    content = {
        name: schema.get("default", SAMPLES.get(schema.get("type", "string"), "x"))
        for name, schema in properties.items()
    }
    return ElicitResult(action="accept", content=content)


async def sample(context: Any, params: Any) -> CreateMessageResult:
    content = TextContent(type="text", text="Paris")
    return CreateMessageResult(role="assistant", content=content, model="m")


async def roots(context: Any) -> ListRootsResult:
    return ListRootsResult(roots=[])


CALLBACKS: Json = {
    "elicitation_callback": fill_in,
    "sampling_callback": sample,
    "list_roots_callback": roots,
}


def arguments_for(tool: Any, tools: list[Any]) -> Json:
    """Arguments that fit; a `schema` is another tool's, as we have got it."""
    properties = tool.input_schema.get("properties", {})
    if "schema" in properties:
        return {"schema": next(t.input_schema for t in tools if t.name != tool.name)}
    wanted = tool.input_schema.get("required") or properties
    return {name: SAMPLES.get(properties[name].get("type", "string"), "x") for name in wanted}


async def use(mcp: Client, context: Json) -> None:
    """Use everything that is there, calls side by side."""
    tools = (await mcp.list_tools()).tools
    calls = context.get("toolCalls") or [
        {"name": tool.name, "arguments": arguments_for(tool, tools)} for tool in tools
    ]
    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(attempt, mcp, call["name"], call["arguments"])
    for resource in (await mcp.list_resources()).resources:
        await mcp.read_resource(resource.uri)
    for prompt in (await mcp.list_prompts()).prompts:
        await mcp.get_prompt(prompt.name)


async def attempt(mcp: Client, name: str, arguments: Json) -> None:
    """Call a tool; that it fails may be what the scenario is about."""
    try:
        await mcp.call_tool(name, arguments)
    except Exception:  # boundary: whatever fails is the scenario's to judge; its log says what
        traceback.print_exc()


async def run(url: str, version: str, context: Json) -> None:
    """One scenario: its server behind the bridge, and a client of its era in front."""
    modern = version == "2026-07-28"
    server = {"url": url, "transport": "http", "protocol": "auto" if modern else "legacy"}
    async with (
        house({"mock": server}) as opened,
        client("http", opened.url, "modern" if modern else "legacy", **CALLBACKS) as mcp,
    ):
        await use(mcp, context)


async def handle(request: Request) -> PlainTextResponse:
    """What relay.py asks for."""
    body = await request.json()
    try:
        await run(body["url"], body["version"], body["context"])
    except Exception:  # boundary: relay.py prints it and fails the scenario
        return PlainTextResponse(traceback.format_exc(), status_code=500)
    return PlainTextResponse("")


app = Starlette(routes=[Route("/", handle, methods=["POST"])])
