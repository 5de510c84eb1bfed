"""REST for MCP servers: how they are, why, and another try. For operators."""

from fastapi import APIRouter, Response

from mcp_bridge.admin.shapes import Health, Prompts, Resources, Servers, ServerStatus, Tools
from mcp_bridge.admin.tools import shown
from mcp_bridge.admin.visitor import Operator, User
from mcp_bridge.admin.wire import json_response
from mcp_bridge.config.settings import Settings
from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.connection import Connection, State
from mcp_bridge.telemetry.redactor import Redactor
from mcp_bridge.types import Json

router = APIRouter(prefix="/mcp", tags=["servers"])


@router.get("/servers", response_model=Servers, summary="How the MCP servers are")
async def list_servers(visitor: Operator) -> Response:
    """All MCP servers of the configuration that your key sees, disabled ones too."""
    found = [status_of(connection, visitor.settings) for connection in visitor.servers.values()]
    for status in found:
        del status["stderr"]
    return json_response({"servers": found})


@router.get(
    "/servers/{name:path}/status", response_model=ServerStatus, summary="How an MCP server is"
)
async def server_status(name: str, visitor: Operator) -> Response:
    """Its state, why it is not connected, and the last lines of its standard error."""
    return json_response(status_of(visitor.server(name), visitor.settings))


@router.post(
    "/servers/{name:path}/reconnect",
    response_model=ServerStatus,
    status_code=202,
    summary="Try to connect now",
)
async def reconnect(name: str, visitor: Operator) -> Response:
    """Begins an attempt instead of waiting for the next; a working connection is left alone."""
    connection = visitor.server(name)
    if connection.state is State.DISABLED:
        why = connection.status()["error"]
        raise RequestError(f"{name} is not started: {why}", code="server_disabled", status=409)
    connection.reconnect()
    return json_response(status_of(connection, visitor.settings), 202)


@router.get("/servers/{name:path}/tools", response_model=Tools, summary="List a server's tools")
async def server_tools(name: str, visitor: User) -> Response:
    """Those that your key sees."""
    server = visitor.server(name)
    entries = [entry for entry in visitor.view.entries if entry.source is server]
    return json_response({"tools": [shown(entry) for entry in entries]})


@router.get(
    "/servers/{name:path}/prompts", response_model=Prompts, summary="List a server's prompts"
)
async def server_prompts(name: str, visitor: User) -> Response:
    return json_response({"prompts": list(visitor.server(name).prompts)})


@router.get(
    "/servers/{name:path}/resources", response_model=Resources, summary="List a server's resources"
)
async def server_resources(name: str, visitor: User) -> Response:
    return json_response({"resources": list(visitor.server(name).resources)})


@router.get("/health", response_model=Health, summary="Which MCP servers are not well")
async def health(visitor: Operator) -> Response:
    """In short what `/mcp/servers` says at length."""
    servers = visitor.servers.values()
    ill = [c for c in servers if c.state not in (State.CONNECTED, State.DISABLED)]
    redact = Redactor.of(visitor.settings)
    events = [
        {
            "name": connection.name,
            "severity": "error" if connection.settings.required else "warning",
            "message": redact(connection.status()["error"] or str(connection.state)),
        }
        for connection in ill
    ]
    return json_response({"status": "error" if ill else "ok", "unhealthy_events": events})


def status_of(connection: Connection, settings: Settings) -> Json:
    """How it is, in the words of the original (`online`, `enabled`) and in ours; no secrets."""
    status: Json = {
        "online": connection.state is State.CONNECTED,
        "enabled": connection.state is not State.DISABLED,
        "required": connection.settings.required,
        **connection.status(),
    }
    redacted: Json = Redactor.of(settings).json(status)
    return redacted
