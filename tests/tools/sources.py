"""Tool sources in memory, whose answers are the test's to choose."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio

from mcp_bridge.errors import SourceTimeout
from mcp_bridge.tools.source import CallContext, Tool, text_result
from mcp_bridge.types import Json

Handler = Callable[[str, Json, CallContext], Awaitable[Json]]


async def echo(name: str, arguments: Json, context: CallContext) -> Json:
    """What tools do unless they are told otherwise."""
    return text_result(f"{name} {arguments}")


def tool(source: str, name: str, schema: Json | None = None, **fields: Any) -> Tool:
    definition: Json = {"name": name, "inputSchema": schema or {"type": "object"}, **fields}
    return Tool(source, name, definition)


class Source:
    """A `ToolSource`; `calls` holds the names that were called, in order."""

    def __init__(
        self,
        name: str,
        tools: Sequence[str] | Mapping[str, Json] = (),
        handler: Handler = echo,
        *,
        parallel: bool = True,
    ) -> None:
        self.name = name
        self.parallel = parallel
        schemas = tools if isinstance(tools, Mapping) else dict.fromkeys(tools)
        self.tools = tuple(tool(name, each, schema) for each, schema in schemas.items())
        self.calls: list[str] = []
        self._handler = handler

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        self.calls.append(name)
        with anyio.move_on_after(context.deadline - time.monotonic()):
            return await self._handler(name, arguments, context)
        raise SourceTimeout(self.name, "it took too long")
