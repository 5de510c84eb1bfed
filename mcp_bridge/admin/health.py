"""Probes: `/healthz` says that the process answers, `/readyz` that it can do its work (D5).

Both are open, for probes have no key; why something is not ready is told to operators only.
"""

from fastapi import APIRouter, Request, Response

from mcp_bridge.admin.shapes import Alive, Readiness
from mcp_bridge.admin.visitor import docs_button
from mcp_bridge.admin.wire import json_response
from mcp_bridge.bridge import Bridge
from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.connection import State
from mcp_bridge.telemetry.redactor import Redactor
from mcp_bridge.types import Json

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)  # as some load balancers ask
@router.get("/healthz", response_model=Alive, summary="Alive?")
async def healthz() -> Response:
    """200 whenever the process answers. It asks nobody, so it may be called often."""
    return json_response({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness}},
    summary="Ready?",
    dependencies=[docs_button],
)
async def readyz(request: Request) -> Response:
    """200 when an inference server answers and every `required` MCP server is connected, else 503.

    What inference servers said is believed for a few seconds, so that probes cost nothing. With an
    admin key, or without authentication, each check says why it is not ready.
    """
    bridge: Bridge = request.app.state.bridge
    inference = await inference_checks(bridge)
    servers = server_checks(bridge)
    answers = not inference or any(check["ready"] for check in inference)
    ready = answers and all(check["ready"] for check in servers)
    checks = [*inference, *servers]
    if may_know_why(bridge, request):
        checks = Redactor.of(bridge.settings).json(checks)
    else:
        checks = [{**check, "reason": None} for check in checks]
    status = "ready" if ready else "not_ready"
    return json_response({"status": status, "checks": checks}, 200 if ready else 503)


async def inference_checks(bridge: Bridge) -> list[Json]:
    """Each inference server: one that answers is enough, the others are named nevertheless."""
    return [
        check("inference_server", state["name"], ready=state["ok"], reason=state["error"])
        for state in await bridge.inference.check()
    ]


def server_checks(bridge: Bridge) -> list[Json]:
    """Each MCP server that the configuration calls required."""
    return [
        check(
            "mcp_server",
            name,
            ready=connection.state is State.CONNECTED,
            reason=f"{connection.state}: {connection.status()['error'] or 'not connected yet'}",
        )
        for name, connection in bridge.connections.items()
        if connection.settings.required
    ]


def check(kind: str, name: str, *, ready: bool, reason: str | None) -> Json:
    return {"kind": kind, "name": name, "ready": ready, "reason": None if ready else reason}


def may_know_why(bridge: Bridge, request: Request) -> bool:
    try:
        bridge.doorkeeper.admit(request.headers, "admin")
    except RequestError:
        return False
    return True
