"""What can be called: a tool, and the source that has it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from mcp_bridge.tools.plain import Plain, plain
from mcp_bridge.types import ANYONE, Caller, Json, frozen

OnProgress = Callable[[float, float | None, str | None], None]
"""Called at once, in order, with (progress, total or None, message or None)."""


@dataclass(frozen=True)  # with room for what is worked out from its definition, once
class Tool:
    """A tool as its source describes it. `definition` is the MCP `Tool` object, untouched."""

    source: str
    name: str
    definition: Json

    @property
    def description(self) -> str:
        value = self.definition.get("description")
        return value if isinstance(value, str) else ""

    @cached_property
    def input_schema(self) -> Json:
        value = self.definition.get("inputSchema")
        return value if isinstance(value, dict) else {"type": "object"}

    @cached_property
    def plain(self) -> Plain | None:
        """Its arguments, if a look at their types can tell whether they fit."""
        return plain(self.input_schema)

    def hint(self, name: str) -> bool:
        """An annotation such as `readOnlyHint`, False when it is not given."""
        annotations = self.definition.get("annotations")
        return isinstance(annotations, dict) and annotations.get(name) is True

    @property
    def read_only(self) -> bool:
        """Whether calling it changes nothing."""
        return self.hint("readOnlyHint")

    @property
    def repeatable(self) -> bool:
        """Whether calling it twice does no more than calling it once (L22)."""
        return self.read_only or self.hint("idempotentHint")


class Answerer(Protocol):
    """Who answers what a server asks while it works on a call: sampling, elicitation, roots."""

    def capabilities(self) -> Json:
        """The MCP client capabilities that this answerer really has."""
        ...

    async def answer(self, source: str, method: str, params: Json) -> Json:
        """The raw result of `sampling/createMessage`, `elicitation/create` or `roots/list`.

        Raises:
            SourceRefused: the answer is an error, with its JSON-RPC code.
        """
        ...


@frozen
class CallContext:
    """What surrounds one call of a source.

    `timeout` (seconds) None means the source's own; progress re-arms it up to the source's
    maximum (L24). `deadline` (as `time.monotonic` counts) ends the call whatever happens: the time
    of the request that it is part of. `meta` is sent as `_meta` (for instance `traceparent`).
    `on_log` gets the params of `notifications/message` that the server sends while it works.

    `extra` are further params of the request that are sent as they are (`inputResponses`, `task`).
    With `hands_back`, a result that asks for input is returned instead of being answered here.
    """

    caller: Caller = ANYONE
    deadline: float = math.inf
    on_progress: OnProgress | None = None
    answerer: Answerer | None = None
    meta: Json = field(default_factory=dict)
    timeout: float | None = None
    on_log: Callable[[Json], None] | None = None
    extra: Json = field(default_factory=dict)
    hands_back: bool = False


class ToolSource(Protocol):
    """Anything that has tools: an MCP connection, a wrapped REST API, a command."""

    @property
    def name(self) -> str: ...

    @property
    def tools(self) -> tuple[Tool, ...]: ...

    @property
    def parallel(self) -> bool:
        """False when its calls must run one after the other, in call order (L4)."""
        ...

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        """Call a tool and return the raw MCP `CallToolResult` (content, isError, …).

        It ends by `context.deadline`: the source keeps that time with its own, for each further
        timeout around a call costs as much as the call.

        Raises:
            SourceError: it could not answer; the subclass says whether it may have happened.
        """
        ...


def text_result(text: str, *, is_error: bool = False) -> Json:
    """A `CallToolResult` that holds one text."""
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
    if is_error:
        result["isError"] = True
    return result
