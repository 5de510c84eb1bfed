"""An open way to an MCP server, whatever carries it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.shared.dispatcher import Dispatcher

from mcp_bridge.errors import SourceUnavailable


class NeedsAuth(SourceUnavailable):
    """The server wants a login that the configuration does not give."""


class WrongTransport(SourceUnavailable):
    """What answered does not speak this transport; another one may work (T2)."""


class ProbeKilled(SourceUnavailable):
    """The server ended when it was asked which protocol it speaks: ask the old way."""


@dataclass(slots=True, eq=False)
class Channel:
    """An open way to a server. `lost` is set as soon as it is known to be dead, `reason` says why.

    `is_http`: headers matter. `needs_auth`: the server wants a login. `status`: the HTTP status of
    its last refusal.
    """

    transport: str
    dispatcher: Dispatcher[Any]
    is_http: bool = False
    pid: int | None = None
    stderr: Sequence[str] = ()
    noise: Callable[[], int] = lambda: 0
    lost: anyio.Event = field(default_factory=anyio.Event)
    reason: str = ""
    needs_auth: bool = False
    status: int | None = None

    def fail(self, reason: str, *, needs_auth: bool = False) -> None:
        """Declare it dead. The first reason stays."""
        if not self.lost.is_set():
            self.reason = reason
            self.needs_auth = needs_auth
            self.lost.set()
