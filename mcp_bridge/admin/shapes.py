"""What the operator's door answers, for the page at /docs.

The parts that come from MCP servers go out as they came: these models name the fields that one can
count on, and more may be there.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mcp_bridge.mcp_client.connection import State
from mcp_bridge.types import Json


class Shape(BaseModel):
    """An object that may have more fields than these."""

    model_config = ConfigDict(extra="allow")


class ErrorDetail(Shape):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(Shape):
    """Every error, in OpenAI's shape."""

    error: ErrorDetail


class Tool(Shape):
    """An MCP tool. `_meta` names the server that has it, and its name there."""

    name: str
    description: str | None = None
    inputSchema: Json


class Tools(Shape):
    tools: list[Tool]


class CallResult(Shape):
    """An MCP `CallToolResult`."""

    content: list[Json]
    structuredContent: Any = None
    isError: bool = False


class Prompt(Shape):
    name: str
    description: str | None = None
    arguments: list[Json] = Field(default_factory=list)


class Prompts(Shape):
    prompts: list[Prompt]


class PromptResult(Shape):
    """An MCP `GetPromptResult`."""

    description: str | None = None
    messages: list[Json]


class Resource(Shape):
    uri: str
    name: str


class Resources(Shape):
    resources: list[Resource]


class ResourceTemplate(Shape):
    uriTemplate: str
    name: str


class ResourceTemplates(Shape):
    resourceTemplates: list[ResourceTemplate]


class ReadRequest(BaseModel):
    """Which resource to read; `server` chooses between servers that have the same one."""

    uri: str
    server: str | None = None


class ReadResult(Shape):
    """An MCP `ReadResourceResult`."""

    contents: list[Json]


class ServerSummary(Shape):
    """How an MCP server is. `error` says in words why it is not connected."""

    name: str
    online: bool
    enabled: bool
    required: bool
    state: State
    error: str | None
    transport: str | None
    protocol: str | None
    tools: int
    prompts: int
    resources: int
    attempt: int
    next_retry_seconds: float | None
    skipped_tools: list[Json]


class ServerStatus(ServerSummary):
    """The same, with the last lines of its standard error."""

    stderr: list[str]


class Servers(Shape):
    servers: list[ServerSummary]


class UnhealthyEvent(BaseModel):
    """An MCP server that is not connected; `error` when it is required, else `warning`."""

    name: str
    severity: Literal["error", "warning"]
    message: str


class Health(BaseModel):
    """Whether every MCP server that is not disabled is connected."""

    status: Literal["ok", "error"]
    unhealthy_events: list[UnhealthyEvent]


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Check(BaseModel):
    """One thing that the bridge needs. `reason` is for those with an admin key."""

    kind: Literal["inference_server", "mcp_server"]
    name: str
    ready: bool
    reason: str | None = None


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    checks: list[Check]
