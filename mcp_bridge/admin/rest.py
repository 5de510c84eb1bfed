"""The operator's door: every route of it in one router."""

from typing import Any

from fastapi import APIRouter

from mcp_bridge.admin import docs, health, prompts, resources, servers, tools
from mcp_bridge.admin.metrics import metrics_router
from mcp_bridge.admin.shapes import ErrorAnswer
from mcp_bridge.admin.visitor import docs_button
from mcp_bridge.telemetry.metrics import Metrics

ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "No API key, or one that is not known here."},
    403: {"model": ErrorAnswer, "description": "The API key does not open this door."},
    404: {"model": ErrorAnswer, "description": "Not there, or not for this caller."},
    "default": {"model": ErrorAnswer, "description": "Any other error."},
}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body or the arguments do not fit."},
    413: {"model": ErrorAnswer, "description": "The body is larger than the limit."},
    502: {"model": ErrorAnswer, "description": "The MCP server could not answer."},
    503: {"model": ErrorAnswer, "description": "The MCP server is not connected."},
    504: {"model": ErrorAnswer, "description": "The MCP server did not answer in time."},
}


def admin_router(metrics: Metrics) -> APIRouter:
    """Everything for operators, and the REST of the original MCP Bridge."""
    router = APIRouter()
    router.include_router(docs.router)
    router.include_router(health.router)
    router.include_router(metrics_router(metrics), dependencies=[docs_button])
    for part in (tools, prompts, resources):
        router.include_router(part.router, dependencies=[docs_button], responses=ERRORS | REFUSED)
    router.include_router(servers.router, dependencies=[docs_button], responses=ERRORS)
    return router
