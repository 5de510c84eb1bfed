"""MCP servers that a request names itself, as `{"type": "mcp", "server_url": …}` (U4)."""

from pydantic import ValidationError

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import RequestError
from mcp_bridge.policy.access import literal
from mcp_bridge.types import Json


def server_of(tool: Json) -> tuple[str, McpServer]:
    """The label and the settings of such a tool object. Only HTTP: a request starts no command.

    Raises:
        RequestError: 400, a field is wrong.
    """
    headers = dict(tool.get("headers") or {})
    if token := tool.get("authorization"):
        headers.setdefault("Authorization", f"Bearer {token}")
    allowed = tool.get("allowed_tools")
    if isinstance(allowed, dict):
        allowed = allowed.get("tool_names")
    try:
        server = McpServer.model_validate(
            {
                "url": tool["server_url"],
                "headers": headers,
                "include": [literal(name) for name in allowed or ()],
                "exclude": ["*"] if allowed == [] else [],
            }
        )
    except (ValidationError, TypeError, ValueError) as exc:
        raise RequestError(
            "tools: a server_url needs string headers and a list of names in allowed_tools",
            param="tools",
            code="invalid_value",
        ) from exc
    return tool["server_label"], server
