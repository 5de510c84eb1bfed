"""Who asks at the operator's door, and what they see: the same part as at every other door (X3)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPBearer

from mcp_bridge.bridge import Bridge
from mcp_bridge.config.settings import PrefixPolicy, Settings
from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.policy.access import Selection, selections_of
from mcp_bridge.policy.origin import check_origin
from mcp_bridge.policy.words import HEADER, of_words, prefix_of, toolsets_for, words_in
from mcp_bridge.tools.catalog import View
from mcp_bridge.types import Caller, Json

Chosen = Annotated[
    Sequence[str],
    Header(alias=HEADER, description="Toolsets and patterns: only that part of what the key sees."),
]
TRACE = ("traceparent", "tracestate", "baggage")

docs_button = Security(HTTPBearer(auto_error=False, description="An API key of the bridge."))
"""Only for the page at /docs, which then asks for a key: the doorkeeper decides."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A caller who was let in, and the bridge as it was at that moment."""

    caller: Caller
    bridge: Bridge
    settings: Settings
    selections: tuple[Selection, ...]
    prefix: PrefixPolicy | None
    trace: Json

    @property
    def view(self) -> View:
        """The tools that the caller sees."""
        return self.bridge.catalog.view(self.selections, self.prefix)

    @property
    def servers(self) -> dict[str, Connection]:
        """The MCP servers of which the caller sees anything."""
        return {
            name: connection
            for name, connection in self.bridge.connections.items()
            if all(selection.allows_server(name) for selection in self.selections)
        }

    def server(self, name: str) -> Connection:
        """The MCP server of that name.

        Raises:
            RequestError: 404, there is none for this caller.
        """
        found = self.servers.get(name)
        if found is None:
            raise not_found("MCP server", name, get_close_matches(name, self.servers))
        return found


def not_found(what: str, name: str, close: list[str]) -> RequestError:
    """The 404 for something that is not there, or not for this caller: nobody can tell which."""
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    code = f"{what.lower().replace(' ', '_')}_not_found"
    return RequestError(f"there is no {what} {name!r}{hint}", code=code, status=404)


def admitted(scope: str) -> Callable[[Request], Awaitable[Visitor]]:
    """A dependency that lets in callers whose key opens `scope`."""

    async def admit(request: Request, chosen: Chosen = ()) -> Visitor:
        bridge: Bridge = request.app.state.bridge
        headers, settings = request.headers, bridge.settings
        check_origin(headers.get("origin"), settings)
        caller = bridge.doorkeeper.admit(headers, scope)
        trace = {name: headers[name] for name in TRACE if name in headers}
        selections = selections_of(caller, settings.toolsets)
        prefix = prefix_of(caller.toolset, settings)
        if words := words_in(chosen):
            selection, own = of_words(words, toolsets_for(caller, settings))
            selections, prefix = (*selections, selection), own or prefix
        return Visitor(caller, bridge, settings, selections, prefix, trace)

    return admit


User = Annotated[Visitor, Depends(admitted("tools"))]
"""May see and use its part of the tools, prompts and resources."""

Operator = Annotated[Visitor, Depends(admitted("admin"))]
"""May see how the bridge is, and act on it."""
