"""REST for resources: list them and their templates, and read one."""

import re
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response

from mcp_bridge.admin.shapes import ReadRequest, ReadResult, Resources, ResourceTemplates
from mcp_bridge.admin.visitor import User, Visitor, not_found
from mcp_bridge.admin.wire import json_response, read_object, result_of
from mcp_bridge.agent.context import likely
from mcp_bridge.errors import RequestError, SourceRefused
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json

PREFIX = "/mcp/resources/"
BODY: Json = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ReadRequest.model_json_schema()}},
    }
}
URI: Json = {  # read from the raw path, so FastAPI does not see it
    "parameters": [{"name": "uri", "in": "path", "required": True, "schema": {"type": "string"}}]
}

router = APIRouter(prefix="/mcp/resources", tags=["resources"])


@router.get("", response_model=dict[str, Resources], summary="List the resources")
async def list_resources(visitor: User) -> Response:
    """The resources of each MCP server that your key sees."""
    return json_response({n: {"resources": list(c.resources)} for n, c in visitor.servers.items()})


@router.get(
    "/templates", response_model=dict[str, ResourceTemplates], summary="List resource templates"
)
async def list_templates(visitor: User) -> Response:
    """The templates of each MCP server: fill one in, and read the URI that it makes."""
    servers = visitor.servers.items()
    return json_response({n: {"resourceTemplates": list(c.resource_templates)} for n, c in servers})


@router.post("/read", response_model=ReadResult, summary="Read a resource", openapi_extra=BODY)
async def read_resource(request: Request, visitor: User) -> Response:
    """Its contents: texts as they are, anything else in base64."""
    body = await read_object(request, visitor.settings.limits.max_request_bytes)
    uri, server = body.get("uri"), body.get("server")
    if not isinstance(uri, str) or not uri:
        raise RequestError("uri: give the URI of a resource", param="uri")
    if server is not None and not isinstance(server, str):
        raise RequestError("server: give the name of an MCP server", param="server")
    return await result_of(request, lambda: read(visitor, uri, server))


@router.get(
    "/{uri:path}",
    response_model=ReadResult,
    summary="Read a resource by its URI",
    openapi_extra=URI,
)
async def get_resource(
    request: Request,
    visitor: User,
    server: str | None = Query(None, description="Which server's, when several have that URI."),
) -> Response:
    """As `POST /mcp/resources/read`, for URIs that are percent-encoded into the path."""
    uri = uri_in(request, visitor)
    return await result_of(request, lambda: read(visitor, uri, server))


def uri_in(request: Request, visitor: Visitor) -> str:
    """The URI in a path. Where its `//` was taken for `/` on the way, a listed one is meant."""
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    given = unquote(raw.decode("latin-1").partition(PREFIX)[2])
    listed = [r["uri"] for c in visitor.servers.values() for r in c.resources]
    if given in listed:
        return given
    return next((uri for uri in listed if re.sub("/{2,}", "/", uri) == given), given)


async def read(visitor: Visitor, uri: str, server: str | None) -> Json:
    """Ask the servers that may have it, the likeliest first.

    Raises:
        RequestError: 404, no server that the caller sees has it.
        SourceError: its server could not answer.
    """
    servers = visitor.servers.values() if server is None else (visitor.server(server),)
    context = CallContext(caller=visitor.caller, meta=visitor.trace)
    refusal: SourceRefused | None = None
    for connection in likely(uri, servers):
        try:
            return await connection.request("resources/read", {"uri": uri}, context)
        except SourceRefused as exc:
            refusal = refusal or exc
    raise not_found("resource", uri, []) from refusal
