"""`/metrics` in the Prometheus format, and what feeds it with tool calls."""

import anyio
from fastapi import APIRouter, Response

from mcp_bridge.admin.visitor import Operator
from mcp_bridge.agent.record import ConversationRecord, log_conversation
from mcp_bridge.bridge import Records
from mcp_bridge.errors import RequestError
from mcp_bridge.telemetry.metrics import CONTENT_TYPE, Metrics
from mcp_bridge.tools.runner import CallRecord, log_record


def metrics_router(metrics: Metrics) -> APIRouter:
    """Serves these metrics while `telemetry.metrics` is true."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE: {}}}},
        summary="Metrics for Prometheus",
    )
    async def page(visitor: Operator) -> Response:
        """Needs a key with the scope `admin` where authentication is enabled."""
        if not visitor.settings.telemetry.metrics:
            raise RequestError(
                "metrics are switched off (telemetry.metrics)", code="not_found", status=404
            )
        connections = visitor.bridge.connections.items()
        servers = {name: str(connection.state) for name, connection in connections}
        metrics.tell()
        text = await anyio.to_thread.run_sync(metrics.page, servers)
        return Response(text, media_type=CONTENT_TYPE)

    return router


def counting(metrics: Metrics) -> Records:
    """What is told about each tool call and conversation: it is logged, and counted."""

    def call(ended: CallRecord) -> None:
        log_record(ended)
        entry = ended.call.entry
        metrics.tool_call(entry.source.name, entry.tool.name, ended.outcome, ended.seconds)

    def conversation(ended: ConversationRecord) -> None:
        log_conversation(ended)
        metrics.conversation(
            ended.caller,
            ended.model,
            ended.outcome,
            stopped=ended.stopped,
            rounds=ended.rounds,
            usage=ended.usage,
        )

    return Records(call, conversation)
