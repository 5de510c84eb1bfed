"""What can be set. Every field's description is its documentation: docs/configuration.md and the
JSON schema (`mcp-bridge schema`) are made from this file.

The sections that the original MCP Bridge had keep their names and their meaning. All values are
frozen: a reload makes a new Settings, and whoever holds the old one keeps it whole.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

Seconds = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
SchemaProfile = Literal["openai", "llamacpp", "gemini", "strict"]
Progress = Literal["off", "reasoning", "openwebui"]
PrefixPolicy = Literal["collision", "always", "never"]


class Section(BaseModel):
    """A part of the configuration. Unknown keys are warned about when it is loaded."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class InferenceServer(Section):
    """An OpenAI-compatible server that runs the models."""

    name: str = Field("", description="Name in messages and logs; made from the host when empty.")
    base_url: str = Field(
        "", description="Where `/chat/completions` is below, usually ending in `/v1`."
    )
    api_key: SecretStr | None = Field(
        None, description='Sent as a bearer token. "None" or empty: no key is sent.'
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Extra headers of every request, for other ways to log in.",
    )
    models: tuple[str, ...] = Field(
        (), description="Models (names or globs) served here; empty: whatever the server lists."
    )
    api_version: str | None = Field(
        None, description="Azure OpenAI: the `api-version`. Setting it makes this an Azure server."
    )
    schema_profile: SchemaProfile = Field(
        "openai",
        description="Which JSON Schema the server can compile: tools are rewritten to it.",
    )
    vision: tuple[str, ...] = Field(
        (), description="Models (globs) that see images; the others get a placeholder text."
    )
    text_tool_calls: tuple[str, ...] = Field(
        (),
        description="Models (globs) that write tool calls as text, which is then parsed.",
    )
    connect_timeout: Seconds = Field(5, description="Seconds to connect.")
    first_byte_timeout: Seconds = Field(
        600, description="Seconds until the first byte of an answer (prompt processing is slow)."
    )
    idle_timeout: Seconds = Field(120, description="Seconds between two bytes of a stream.")
    max_retries: int = Field(
        2,
        ge=0,
        description="Tries more after a connection error, 429 or 5xx, before the first byte.",
    )
    max_connections: int = Field(512, ge=1, description="Open connections at the same time.")


def _as_list(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping | InferenceServer) else value


class SamplingModel(Section):
    """A model that MCP servers may be given."""

    model: str = Field(description="The model's name on the inference server.")
    intelligence: Fraction = Field(0.5, description="How capable it is, 0 to 1.")
    cost: Fraction = Field(0.5, description="How expensive it is, 0 to 1 (1: most expensive).")
    speed: Fraction = Field(0.5, description="How fast it is, 0 to 1.")


class Sampling(Section):
    """Models for MCP servers that ask for one (`sampling/createMessage`)."""

    timeout: Seconds = Field(60, description="Seconds for one sampling request.")
    models: tuple[SamplingModel, ...] = Field(
        (), description="The models to choose from; empty: the caller's model."
    )
    answer: Literal["caller", "bridge", "caller-then-bridge"] = Field(
        "caller-then-bridge", description="Who answers a sampling request."
    )
    max_depth: int = Field(2, ge=0, description="Sampling inside sampling, at most this deep.")
    max_requests: int = Field(10, ge=0, description="Sampling requests in one tool call, at most.")
    max_tokens: int = Field(
        100_000, ge=0, description="Tokens that the sampling of one tool call may use in all."
    )


class ToolSettings(Section):
    """What differs for one tool of a server."""

    timeout: Seconds | None = Field(None, description="Seconds, instead of the server's timeout.")
    max_result_chars: int | None = Field(
        None, ge=0, description="Instead of the server's cap on results; 0: no cap."
    )


class McpServer(Section):
    """An MCP server behind the bridge: a command, a URL, or a docker image."""

    command: str | None = Field(None, description="stdio: the program to start.")
    args: tuple[str, ...] = Field((), description="stdio: its arguments.")
    env: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="stdio: added to a minimal environment (HOME, LANG, LOGNAME, PATH, …).",
    )
    cwd: str | None = Field(None, description="stdio: working directory.")
    image: str | None = Field(None, description="docker: run this image as a stdio server.")
    url: str | None = Field(
        None, description="HTTP: the endpoint. Also spelled `serverUrl` or `httpUrl`."
    )
    transport: Literal["stdio", "http", "sse", "websocket", "auto"] = Field(
        "auto",
        description="How to talk to it; also spelled `type`, and `streamable-http` for `http`.",
    )
    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="HTTP: sent with every request."
    )
    disabled: bool = Field(False, description="Not started, and shown as disabled.")
    required: bool = Field(False, description="`/readyz` fails while it is not connected.")
    protocol: Literal["auto", "legacy", "2026-07-28"] = Field(
        "auto", description="Protocol era: `legacy` skips the probe for 2026-07-28."
    )
    startup_timeout: Seconds | None = Field(
        None, description="Seconds to connect and list; default 30, or 120 for npx, uvx and docker."
    )
    timeout: Seconds = Field(60, description="Seconds for a call; progress starts it again.")
    max_timeout: Seconds = Field(900, description="Seconds for a call, whatever its progress.")
    parallel: bool = Field(True, description="False: calls run one after the other.")
    include: tuple[str, ...] = Field((), description="Only these tools (globs); empty: all.")
    exclude: tuple[str, ...] = Field((), description="Not these tools (globs).")
    max_result_chars: int | None = Field(
        None, ge=0, description="Cap on a result's text, instead of `tools.max_result_chars`."
    )
    tools: dict[str, ToolSettings] = Field(
        default_factory=dict, description="Settings of single tools, by the tool's own name."
    )
    problem: str | None = Field(
        None,
        exclude=True,
        description="Set while loading, when something it needs is missing: it is then disabled.",
    )


class Toolset(Section):
    """A named part of the catalog, offered as `model@toolset` and under other names."""

    description: str = Field("", description="For people who choose.")
    include: tuple[str, ...] = Field(
        ("*:*",), description="Patterns `server:tool`, with `*` in either part."
    )
    exclude: tuple[str, ...] = Field((), description="Patterns that are left out again.")
    models: tuple[str, ...] = Field(
        (), description="List `model@toolset` for these models (globs) only; empty: for all."
    )
    prefix: PrefixPolicy = Field(
        "collision", description="When tools get their server's name as a prefix."
    )
    prompt: str | None = Field(
        None,
        description="A prompt that opens chats with `model@toolset`, unless they name another.",
    )
    prompt_arguments: dict[str, str] = Field(
        default_factory=dict, description="The arguments of that prompt."
    )


class ApiKey(Section):
    """A key that opens the bridge."""

    key: SecretStr = Field(description="What the client sends as its bearer token.")
    name: str = Field("", description="Who it is, in logs; `key-1`, `key-2`, … when empty.")
    tenant: str | None = Field(None, description="A group that the key belongs to.")
    scopes: tuple[str, ...] = Field(
        ("chat", "tools", "mcp", "admin"), description="Which doors it opens."
    )
    toolset: str | None = Field(None, description="Bound to this toolset.")
    tools: tuple[str, ...] | None = Field(
        None, description="Patterns such as `files:*`, `!files:delete_*`; an empty list: no tools."
    )


class Auth(Section):
    """Who may come in."""

    enabled: bool = Field(False, description="Ask for an API key.")
    api_keys: tuple[ApiKey, ...] = Field((), description="The keys.")


class Cors(Section):
    """Which web pages may call the bridge from a browser. Closed unless opened here."""

    enabled: bool = Field(False, description="Answer cross-origin requests.")
    allow_origins: tuple[str, ...] = Field(
        (), description="Origins, such as `https://chat.example`."
    )
    allow_credentials: bool = Field(False, description="Let browsers send cookies.")
    allow_methods: tuple[str, ...] = Field(("GET", "POST"), description="Methods.")
    allow_headers: tuple[str, ...] = Field(
        (
            "authorization",
            "content-type",
            "x-mcp-toolset",
            "x-mcp-progress",
            "mcp-session-id",
            "mcp-protocol-version",
            "mcp-method",
            "mcp-name",
        ),
        description="Headers.",
    )


class Security(Section):
    """Authentication and the browser's rules."""

    auth: Auth = Auth()
    cors: Cors = Field(Cors(), validation_alias="CORS")
    allow_public_without_auth: bool = Field(
        False, description="Serve on a public address without authentication. Know what you do."
    )
    allow_server_url: bool = Field(
        False, description="Let a request name an MCP server by `server_url`."
    )


class Network(Section):
    """Where the bridge listens."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0: any free one.")
    workers: int = Field(
        1, ge=1, description="Processes that answer, for machines with more cores (not on Windows)."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (), description="Host headers that `/mcp` accepts besides loopback, such as `bridge:*`."
    )
    allowed_origins: tuple[str, ...] = Field(
        (), description="Origins that `/mcp` accepts besides loopback."
    )


class Logging(Section):
    """What is written to standard error."""

    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="The least important level that is written."
    )
    log_server_pings: bool = Field(False, description="Write requests of `/healthz` too.")
    format: Literal["text", "json"] = Field("text", description="One line of text, or of JSON.")


class Tools(Section):
    """How tools are offered and run."""

    max_result_chars: int = Field(
        60_000, ge=0, description="Cap on the text of one result; 0: no cap."
    )
    prefix: PrefixPolicy = Field(
        "collision", description="When tools get their server's name as a prefix."
    )
    progress: Progress = Field(
        "off", description="Show running tools: in `reasoning_content`, or as Open WebUI's panel."
    )
    side_requests: bool = Field(
        True, description="Titles, tags and the like that UIs ask for pass without tools."
    )
    restore_history: bool = Field(
        False, description="Put hidden tool turns back when the conversation goes on."
    )
    memory_ttl: Seconds = Field(
        3600, description="Seconds that mixed turns, cut results and hidden turns are kept."
    )
    read_resource: bool = Field(
        False, description="Offer a tool that reads the resources of MCP servers."
    )
    elicitation: bool = Field(
        False,
        description="What a tool asks the user is asked in the chat, and the next message answers "
        "it. Off: it is declined.",
    )


class Limits(Section):
    """Bounds of one request."""

    max_rounds: int = Field(20, ge=1, description="Questions to the model.")
    max_calls: int = Field(100, ge=0, description="Tool calls.")
    max_seconds: Seconds = Field(
        1800,
        description="Wall clock: tool calls end then, a stream is cut, no further round begins.",
    )
    max_tokens: int = Field(0, ge=0, description="Tokens over all rounds; 0: no bound.")
    max_parallel_calls: int = Field(16, ge=1, description="Calls that run at the same time.")
    max_same_failures: int = Field(3, ge=1, description="The same failing call ends the loop.")
    max_request_bytes: int = Field(
        33_554_432, ge=1, description="Size of a request body; more is answered 413."
    )
    keep_alive: Seconds = Field(15, description="Seconds of silence before an SSE comment.")


class Telemetry(Section):
    """What is measured."""

    metrics: bool = Field(True, description="Serve `/metrics` in the Prometheus format.")


class Settings(Section):
    """The whole configuration."""

    inference_server: Annotated[tuple[InferenceServer, ...], BeforeValidator(_as_list)] = Field(
        (), description="One server as an object, or a list of them; requests go by model."
    )
    sampling: Sampling = Sampling()
    mcp_servers: dict[str, McpServer] = Field(
        default_factory=dict, description="MCP servers by name; also spelled `mcpServers`."
    )
    toolsets: dict[str, Toolset] = Field(default_factory=dict, description="Toolsets by name.")
    tools: Tools = Tools()
    limits: Limits = Limits()
    security: Security = Security()
    network: Network = Network()
    logging: Logging = Logging()
    telemetry: Telemetry = Telemetry()
