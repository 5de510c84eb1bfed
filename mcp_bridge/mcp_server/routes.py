"""The URLs of the door, and who is let in."""

from collections.abc import Awaitable, Callable, Mapping

from mcp_types import INVALID_REQUEST
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from mcp_bridge.errors import BridgeError, RequestError
from mcp_bridge.mcp_server.door import Door
from mcp_bridge.mcp_server.http import Fields
from mcp_bridge.mcp_server.streamable import Incoming
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.policy.access import named
from mcp_bridge.policy.words import toolsets_for
from mcp_bridge.types import Json
from mcp_bridge.websocket import SUBPROTOCOL

DoorOf = Callable[[Scope], Door]
Serve = Callable[[Door, Visit, Scope, Receive, Send], Awaitable[None]]

ALL, PART = "/mcp", "/toolsets/{toolset}/mcp"


def mcp_routes(door_of: DoorOf) -> list[BaseRoute]:
    """The door of MCP clients. Each path with and without a slash at its end: nothing redirects."""
    sse = Entrance(door_of, Door.sse)
    message = Entrance(door_of, Door.sse_message)
    # An entrance of its own for each path, for /metrics counts by it.
    streamable = (StreamableEntrance(door_of, path) for path in (ALL, PART))
    return [
        *(Route(path, entrance) for entrance in streamable for path in both(entrance.path)),
        *(Route(path, sse, methods=["GET"]) for path in both("/mcp-server/sse")),
        *(Route(path, message) for path in both("/mcp-server/sse/messages")),
        *(Route(path, message) for path in both("/mcp-server/messages")),
        *(WebSocketRoute(path, SocketEntrance(door_of)) for path in both("/mcp-server/ws")),
    ]


def both(path: str) -> tuple[str, str]:
    return path + "/", path


def admitted(door: Door, headers: Mapping[str, str], toolset: str | None = None) -> Visit:
    """Who it is, and where they go.

    Raises:
        RequestError: they are not let in, and why.
    """
    settings = door.bridge.settings
    door.hosts.check(headers, settings)
    caller = door.bridge.doorkeeper.admit(headers, "mcp")
    if toolset is not None:
        named(toolset, toolsets_for(caller, settings))
    return Visit(caller, toolset)


def refusal(error: BridgeError) -> JSONResponse:
    """Why somebody is not let in, as MCP clients show it."""
    body: Json = {"code": INVALID_REQUEST, "message": error.message, "data": {"code": error.code}}
    headers = {**error.headers}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(
        {"jsonrpc": "2.0", "id": None, "error": body}, status_code=error.status, headers=headers
    )


class StreamableEntrance:
    """The way in over streamable HTTP, for all tools or for a toolset: a plain ASGI application."""

    def __init__(self, door_of: DoorOf, path: str) -> None:
        self.path = path
        self._door_of = door_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door, fields = self._door_of(scope), Fields(scope["headers"])
        try:
            visit = admitted(door, fields, scope.get("path_params", {}).get("toolset"))
            await door.streamable.serve(Incoming(visit, fields, scope, receive, send))
        except BridgeError as exc:  # nothing has been sent then
            await refusal(exc)(scope, receive, send)


class Entrance:
    """A way in over the SSE transport."""

    def __init__(self, door_of: DoorOf, serve: Serve) -> None:
        self._door_of = door_of
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._door_of(scope)
        # httptools leaves the optional white space that HTTP allows around a value (RFC 9110, 5.5).
        scope["headers"] = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        try:
            visit = admitted(door, Headers(scope=scope))
        except BridgeError as exc:
            await refusal(exc)(scope, receive, send)
            return
        await self._serve(door, visit, scope, receive, send)


class SocketEntrance:
    """The way in over a WebSocket."""

    def __init__(self, door_of: DoorOf) -> None:
        self._door_of = door_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._door_of(scope)
        websocket = WebSocket(scope, receive, send)
        try:
            visit = admitted(door, Headers(scope=scope))
            if SUBPROTOCOL not in scope.get("subprotocols", ()):
                raise RequestError('this is the WebSocket subprotocol "mcp": ask for it')
        except BridgeError as exc:
            await websocket.receive()
            await websocket.send_denial_response(refusal(exc))
            return
        await websocket.accept(SUBPROTOCOL)
        await door.websocket(visit, websocket)
