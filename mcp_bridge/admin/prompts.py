"""REST for prompts: list them, and fill one in."""

from difflib import get_close_matches

from fastapi import APIRouter, Query, Request, Response

from mcp_bridge.admin.shapes import PromptResult, Prompts
from mcp_bridge.admin.visitor import User, Visitor, not_found
from mcp_bridge.admin.wire import arguments_in, json_response, read_object, result_of
from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json

BODY: Json = {
    "requestBody": {
        "description": 'The arguments, as an object or as `{"arguments": {…}}`; nothing is `{}`.',
        "content": {
            "application/json": {
                "schema": {"type": "object", "additionalProperties": {"type": "string"}}
            }
        },
    }
}

router = APIRouter(prefix="/mcp/prompts", tags=["prompts"])


@router.get("", response_model=dict[str, Prompts], summary="List the prompts")
async def list_prompts(visitor: User) -> Response:
    """The prompts of each MCP server that your key sees."""
    return json_response({n: {"prompts": list(c.prompts)} for n, c in visitor.servers.items()})


@router.post(
    "/{name:path}", response_model=PromptResult, summary="Fill in a prompt", openapi_extra=BODY
)
async def get_prompt(
    name: str,
    request: Request,
    visitor: User,
    server: str | None = Query(None, description="Which server's, when several have that name."),
) -> Response:
    """The messages of a prompt. `server__name` works too where several servers have the name."""
    connection, prompt = find(visitor, name, server)
    body = await read_object(request, visitor.settings.limits.max_request_bytes)
    params = {"name": prompt["name"], "arguments": checked(body, prompt)}
    context = CallContext(caller=visitor.caller, meta=visitor.trace)
    return await result_of(request, lambda: connection.request("prompts/get", params, context))


def find(visitor: Visitor, name: str, server: str | None) -> tuple[Connection, Json]:
    """The first prompt of that name, in the order of the servers.

    Raises:
        RequestError: 404, the caller sees none.
    """
    servers = visitor.servers if server is None else {server: visitor.server(server)}
    names: list[str] = []
    for connection in servers.values():
        for prompt in connection.prompts:
            if name in (prompt["name"], f"{connection.name}__{prompt['name']}"):
                return connection, prompt
            names.append(prompt["name"])
    raise not_found("prompt", name, get_close_matches(name, names))


def checked(body: Json, prompt: Json) -> Json:
    """The arguments, of which MCP says that they are texts.

    Raises:
        RequestError: 400, one is missing or no text.
    """
    wanted = [a for a in prompt.get("arguments") or () if isinstance(a, dict)]
    arguments = arguments_in(body, [argument.get("name") for argument in wanted])
    for name, value in arguments.items():
        if not isinstance(value, str):
            raise RequestError(f"{name}: prompts take texts only", param=name)
    for argument in wanted:
        if argument.get("required") is True and argument.get("name") not in arguments:
            name = str(argument.get("name"))
            raise RequestError(f"{name}: this prompt needs it", param=name)
    return arguments
