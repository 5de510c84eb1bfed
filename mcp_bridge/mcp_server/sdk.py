"""The facade as a `Server` of the SDK, which serves connections that stay: SSE, WebSocket, stdio.

The SDK does their protocol: ids, cancellation, both eras. What it would do with typed models the
facade does with raw JSON instead, in the SDK's one middleware, as it does for streamable HTTP.
"""

from typing import Any, Protocol

from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from mcp_bridge.mcp_server.client import Client
from mcp_bridge.mcp_server.messages import Result, Written
from mcp_bridge.mcp_server.session import Session
from mcp_bridge.mcp_server.visit import VISIT, Visit
from mcp_bridge.types import Json

Context = ServerRequestContext[Any, Any]
SESSION = "mcp_bridge_session"


class Answering(Protocol):
    """What answers, whichever way the messages came."""

    async def answer(self, client: Client, method: str, params: Json) -> Result: ...
    def notified(self, visit: Visit, session: Session, method: str) -> None: ...


def sdk_server(about: Json, answering: Answering) -> Server[Any]:
    """A server that hands every message on."""

    async def serve(ctx: Context, call_next: CallNext) -> HandlerResult:
        client = client_of(ctx)
        if ctx.request_id is None:
            await call_next(ctx)
            answering.notified(client.visit, client.session, ctx.method)
            return None
        if ctx.method == "initialize":
            await call_next(ctx)  # it keeps what the two have agreed on
        result = await answering.answer(client, ctx.method, dict(ctx.params or {}))
        return result.json if isinstance(result, Written) else result

    server: Server[Any] = Server(about["name"], version=about["version"])
    server.middleware.append(serve)
    return server


def client_of(context: Context) -> Client:
    """The client that a message is from."""
    # mcp 2.3 offers no public way to these two, which are all that raw JSON needs.
    channel: Any = context.session._request_outbound
    connection = context.session._connection
    session: Session | None = connection.state.get(SESSION)
    if session is None:
        session = connection.state[SESSION] = Session(connection.notify)
        connection.exit_stack.callback(session.close)
    version, number = context.protocol_version, context.request_id
    return Client(VISIT.get(), session, channel, version, number, dict(context.params or {}))
