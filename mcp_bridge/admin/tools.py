"""REST for tools: list them, and call one."""

import time
import uuid

import orjson
from fastapi import APIRouter, Request, Response

from mcp_bridge.admin.shapes import CallResult, Tools
from mcp_bridge.admin.visitor import User, Visitor, not_found
from mcp_bridge.admin.wire import arguments_in, json_response, read_object, result_of
from mcp_bridge.errors import RequestError
from mcp_bridge.tools.arguments import BadArguments, read
from mcp_bridge.tools.catalog import Entry
from mcp_bridge.tools.runner import ToolCall
from mcp_bridge.tools.source import CallContext, Tool
from mcp_bridge.types import Json

SERVER, NAME = "mcp_bridge/server", "mcp_bridge/name"

BODY: Json = {
    "requestBody": {
        "description": 'The arguments, as an object or as `{"arguments": {…}}`; nothing is `{}`.',
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}

router = APIRouter(prefix="/mcp/tools", tags=["tools"])


@router.get("", response_model=Tools, summary="List the tools")
async def list_tools(visitor: User) -> Response:
    """The tools that your key sees, under the names that models see."""
    return json_response({"tools": [shown(entry) for entry in visitor.view.entries]})


@router.post("/{name}/call", response_model=CallResult, summary="Call a tool", openapi_extra=BODY)
async def call_tool(name: str, request: Request, visitor: User) -> Response:
    """Runs it and answers what its server said; a tool's own failure is a 200 with `isError`."""
    entry = visitor.view.find(name)
    if entry is None:
        raise not_found("tool", name, visitor.view.close_matches(name))
    body = await read_object(request, visitor.settings.limits.max_request_bytes)
    call = tool_call(visitor, entry, checked(body, entry.tool))
    return await result_of(request, lambda: visitor.bridge.runner.run(call))


def shown(entry: Entry) -> Json:
    """A tool as its server describes it, under the name that it is called by here."""
    definition = entry.tool.definition
    given = definition.get("_meta")
    meta = {**(given if isinstance(given, dict) else {}), SERVER: entry.source.name}
    if entry.name != entry.tool.name:
        meta[NAME] = entry.tool.name
    return {**definition, "name": entry.name, "_meta": meta}


def checked(body: Json, tool: Tool) -> Json:
    """The arguments of a call, as its tool wants them.

    Raises:
        RequestError: 400, they do not fit.
    """
    names = tool.input_schema.get("properties")
    arguments = arguments_in(body, names if isinstance(names, dict) else ())
    try:
        return read(orjson.dumps(arguments).decode(), tool)
    except BadArguments as exc:
        raise RequestError(str(exc), param="arguments", code="invalid_arguments") from exc


def tool_call(visitor: Visitor, entry: Entry, arguments: Json) -> ToolCall:
    deadline = time.monotonic() + visitor.settings.limits.max_seconds
    return ToolCall(
        caller=visitor.caller,
        entry=entry,
        arguments=arguments,
        id=f"call_{uuid.uuid4().hex}",
        door="rest",
        context=CallContext(caller=visitor.caller, deadline=deadline, meta=visitor.trace),
    )
