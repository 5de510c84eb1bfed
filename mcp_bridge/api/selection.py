"""Which tools a request gets (DESIGN 3.16, 3.17).

Everything that speaks about tools must agree: the caller's key, the URL (`/t/{toolset}/v1/…`), the
model's name (`model@toolset`), the header `X-MCP-Toolset`, the body's `mcp` object, and OpenAI's
`{"type": "mcp"}` tools. A tool that one of them leaves out is left out.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from mcp_bridge.agent.context import NOTHING_WANTED, Wanted
from mcp_bridge.api.headers import Headers
from mcp_bridge.config.settings import PrefixPolicy, Progress, Settings, Toolset
from mcp_bridge.errors import RequestError
from mcp_bridge.policy.access import (
    NOTHING,
    Pattern,
    Selection,
    literal,
    parse_selection,
    selections_of,
)
from mcp_bridge.policy.words import (
    HEADER,
    NO_TOOLS,
    Toolsets,
    limited,
    of_name,
    of_words,
    prefix_of,
    toolsets_for,
    words_in,
)
from mcp_bridge.types import Caller, Json, frozen

MODES: tuple[Progress, ...] = ("off", "reasoning", "openwebui")
EXTENSION = frozenset(
    {"toolset", "toolsets", "tools", "servers", "progress", "prompt", "resources"}
)

SIDE_TASKS = frozenset(
    {
        "autocomplete_generation",
        "emoji_generation",
        "follow_up_generation",
        "function_calling",
        "image_prompt_generation",
        "moa_response_generation",
        "query_generation",
        "tags_generation",
        "title_generation",
    }
)
"""What Open WebUI calls the questions that it asks by itself."""


@frozen
class Choice:
    """What a request says about tools, and its body without that.

    `selections` must all allow a tool; `asked` tells that the request itself named tools.
    `strangers` are `{"type": "mcp"}` tools with a `server_url` of their own.
    """

    body: Json
    selections: tuple[Selection, ...] = ()
    prefix: PrefixPolicy | None = None
    progress: Progress = "off"
    asked: bool = False
    strangers: tuple[Json, ...] = field(default=())
    wanted: Wanted = NOTHING_WANTED

    def narrowed(self, selection: Selection, prefix: PrefixPolicy | None = None) -> "Choice":
        selections = (*self.selections, selection)
        return replace(self, selections=selections, prefix=prefix or self.prefix, asked=True)


def choose(
    body: Json, caller: Caller, headers: Headers, toolset: str | None, settings: Settings
) -> Choice:
    """Read everything that a request says about tools.

    Raises:
        RequestError: 400 for what cannot be read, 404 for a toolset that is not there.
    """
    allowed = selections_of(caller, settings.toolsets)
    sets = toolsets_for(caller, settings)
    prefix, progress = prefix_of(caller.toolset, settings), settings.tools.progress
    choice = Choice(dict(body), allowed, prefix, progress)
    for name in (toolset, alias_of(choice.body, sets)):
        if name is not None:
            choice = choice.narrowed(of_name(name, sets), prefix_of(name, settings))
            choice = with_default_prompt(choice, sets.get(name))
    if words := words_in(headers.each(HEADER.lower())):
        choice = with_words(choice, words, sets)
    choice = with_extension(choice, sets)
    choice = with_mcp_tools(choice, allowed, settings)
    if mode := headers.get("x-mcp-progress", "").strip():
        choice = replace(choice, progress=progress_mode(mode, "X-MCP-Progress"))
    return choice


def alias_of(body: Json, sets: Toolsets) -> str | None:
    """The toolset in `model@toolset`; the model's own name may hold an `@` too."""
    model, at, name = body["model"].rpartition("@")
    if not at or not model or (name not in sets and name != NO_TOOLS):
        return None
    body["model"] = model
    return str(name)


def with_words(choice: Choice, words: list[str], sets: Toolsets) -> Choice:
    """Apply toolsets and patterns, or the one word `none`."""
    return choice.narrowed(*of_words(words, sets))


def with_extension(choice: Choice, sets: Toolsets) -> Choice:
    """Apply the body's `mcp` object and take it out: nothing internal is sent on."""
    value = choice.body.pop("mcp", None)
    if value is None:
        return choice
    if value is False:
        return choice.narrowed(NOTHING)
    if not isinstance(value, dict):
        raise RequestError("mcp must be an object, or false for no tools", param="mcp")
    for key in value.keys() - EXTENSION:
        known = ", ".join(sorted(EXTENSION))
        raise RequestError(f"mcp.{key} is not known; there are: {known}", param=f"mcp.{key}")
    for key in ("toolset", "toolsets"):
        if (words := strings(value.get(key), f"mcp.{key}")) is not None:
            choice = with_words(choice, words, sets)
    if (patterns := strings(value.get("tools"), "mcp.tools")) is not None:
        choice = choice.narrowed(parse_selection(patterns))
    if (servers := strings(value.get("servers"), "mcp.servers")) is not None:
        choice = choice.narrowed(parse_selection([f"{name}:*" for name in servers]))
    if (mode := value.get("progress")) is not None:
        choice = replace(choice, progress=progress_mode(mode, "mcp.progress"))
    return replace(choice, wanted=Wanted.of(value).or_else(choice.wanted))


def with_default_prompt(choice: Choice, toolset: Toolset | None) -> Choice:
    """The prompt of a toolset that the URL or the model's name chose."""
    if toolset is None or toolset.prompt is None:
        return choice
    return replace(choice, wanted=Wanted(toolset.prompt, toolset.prompt_arguments))


def strings(value: Any, param: str) -> list[str] | None:
    if value is None:
        return None
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RequestError(f"{param} must be a string or a list of strings", param=param)
    return limited([item.strip() for item in items], param)


def progress_mode(value: Any, param: str) -> Progress:
    for mode in MODES:
        if value == mode:
            return mode
    raise RequestError(f"{param} must be one of {', '.join(MODES)}", param=param)


def with_mcp_tools(choice: Choice, allowed: tuple[Selection, ...], settings: Settings) -> Choice:
    """Take `{"type": "mcp"}` out of the tools: they choose among the caller's servers (U4)."""
    tools = choice.body.get("tools")
    if not isinstance(tools, list):
        return choice
    numbered = list(enumerate(tools))
    chosen = [(f"tools[{number}]", tool) for number, tool in numbered if is_mcp(tool)]
    if not chosen:
        return choice
    if is_mcp(choice.body.get("tool_choice")):
        raise RequestError(
            'tool_choice: a server cannot be forced; say "required", or name a function',
            param="tool_choice",
        )
    labels = [name for name in settings.mcp_servers if all(s.allows_server(name) for s in allowed)]
    may_visit = settings.security.allow_server_url and not allowed
    include: list[Pattern] = []
    strangers: list[Json] = []
    for param, tool in chosen:
        check_approval(tool, param)
        if tool.get("server_url") is not None:
            strangers.append(stranger(tool, param, may_visit=may_visit))
        else:
            include += patterns_of(tool, param, labels)
    choice.body["tools"] = [tool for _, tool in numbered if not is_mcp(tool)]
    # Without a pattern nothing of the configured servers was asked for: [] is nothing (X3).
    choice = choice.narrowed(Selection(tuple(include), ()))
    return replace(choice, strangers=tuple(strangers))


def is_mcp(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "mcp"


def stranger(tool: Json, param: str, *, may_visit: bool) -> Json:
    if not may_visit:  # nor may a key that is limited to some of the configured tools
        raise RequestError(
            f"{param}.server_url: requests may not name servers by URL here; use the server_label "
            "of a configured server, or let the operator set security.allow_server_url",
            param=f"{param}.server_url",
            code="server_url_not_allowed",
        )
    if not isinstance(tool["server_url"], str) or not isinstance(tool.get("server_label"), str):
        raise RequestError(
            f"{param}: server_url and server_label must be strings", param=f"{param}.server_url"
        )
    allowed_names(tool, param)
    return tool


def patterns_of(tool: Json, param: str, labels: list[str]) -> list[Pattern]:
    label = tool.get("server_label")
    if not isinstance(label, str) or label not in labels:
        raise RequestError(
            f"{param}.server_label: there is no MCP server {label!r}",
            param=f"{param}.server_label",
            code="mcp_server_not_found",
        )
    names = allowed_names(tool, param)
    if names is None:
        return [Pattern(literal(label), "*")]
    return [Pattern(literal(label), literal(name)) for name in names]


def allowed_names(tool: Json, param: str) -> list[str] | None:
    allowed = tool.get("allowed_tools")
    if isinstance(allowed, dict):
        if allowed.get("read_only"):
            raise RequestError(
                f"{param}.allowed_tools.read_only is not supported: list the tools by name",
                param=f"{param}.allowed_tools",
            )
        allowed = allowed.get("tool_names")
    return strings(allowed, f"{param}.allowed_tools")


def check_approval(tool: Json, param: str) -> None:
    approval = tool.get("require_approval")
    if approval not in (None, "never") and (not isinstance(approval, dict) or "always" in approval):
        raise RequestError(
            f"{param}.require_approval: nobody can be asked during a chat completion; "
            'set "never" and list the tools in allowed_tools',
            param=f"{param}.require_approval",
        )


def is_side_request(body: Json, headers: Mapping[str, str]) -> bool:
    """Titles, tags and follow-ups that a UI asks for by itself (L25)."""
    task = headers.get("x-openwebui-task", "").strip()
    if task and not task.startswith("{{"):  # a template that was not filled in
        return True
    metadata = body.get("metadata")
    named = metadata.get("task") if isinstance(metadata, dict) else None
    if isinstance(named, str) and named in SIDE_TASKS:
        return True
    messages = body["messages"]
    if body.get("stream") is True or body.get("tools") or len(messages) != 1:
        return False
    content = messages[0].get("content")
    return isinstance(content, str) and content.lstrip().startswith("### Task:")
