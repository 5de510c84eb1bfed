"""The MCP servers as a worker sees them that has none: what the keeper says, and calls through it.

The keeper tells the lists and the state of its connections whenever they change; a `Mirrored` shows
them as if they were its own. Calls, timeouts and repeats are the keeper's business; what a server
asks or says meanwhile comes back here, to the caller.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import anyio
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import (
    BridgeError,
    OutcomeUnknown,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.mcp_client.connection import (
    PROMPTS,
    RESOURCES,
    TOOLS,
    Connection,
    OnChange,
    State,
    not_repeated,
)
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost
from mcp_bridge.mcp_client.listing import Listing
from mcp_bridge.tools.source import CallContext, Tool
from mcp_bridge.types import Json
from mcp_bridge.workers.calls import error_of, written
from mcp_bridge.workers.link import Link

KEEPER_SECONDS = 10.0
"""How long a call waits for a keeper that starts again."""

LATE_SECONDS = 2.0
"""The keeper ends a call in time; after this long it is not believed to do so."""

DESCRIPTION = frozenset({"capabilities", "server_info", "instructions", "protocol_version"})
RESTARTING = "the worker that is connected to it is being restarted"


class Keeper:
    """The keeper as the other workers know it: its servers, and the calls that are under way."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.heard = anyio.Event()
        """Set once it has told its servers for the first time."""

        self._servers: dict[str, Json] = {}
        self._shown: set[Mirrored] = set()
        self._numbers = count(1)
        self._calls: dict[int, CallContext] = {}

    @contextmanager
    def showing(self, mirrored: "Mirrored") -> Iterator[None]:
        """Keep it up to date."""
        self._shown.add(mirrored)
        try:
            if known := self._servers.get(mirrored.name):
                mirrored.show(known)
            yield
        finally:
            self._shown.discard(mirrored)

    def greet(self, servers: Json) -> None:
        """It is there (again), and these are its servers."""
        self._servers = {}
        for mirrored in self._shown:
            mirrored.expect_new_keeper()
        for name, known in servers.items():
            self._show(name, known)
        self.heard.set()

    def lost(self) -> None:
        for mirrored in tuple(self._shown):
            mirrored.lose()

    def notice(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """Take what it tells, in the order of the wire."""
        told = dict(params or {})
        match method:
            case "server":
                self._show(told["name"], told["known"])
            case "gone":
                self._servers.pop(told["name"], None)
            case "progress" if context := self._calls.get(told["call"]):
                if context.on_progress is not None:
                    context.on_progress(told["progress"], told["total"], told["message"])
            case "log" if context := self._calls.get(told["call"]):
                if context.on_log is not None:
                    context.on_log(told["params"])
        return True

    def _show(self, name: str, known: Json) -> None:
        self._servers[name] = self._servers.get(name, {}) | known
        for mirrored in tuple(self._shown):
            if mirrored.name == name:
                mirrored.show(known)

    async def answer(
        self,
        context: DispatchContext[TransportContext],
        method: str,
        params: Mapping[str, Any] | None,
    ) -> Json:
        """Answer what a server asks during a call."""
        asked = dict(params or {})
        call = self._calls.get(asked["call"])
        if call is None or call.answerer is None:
            raise MCPError(INTERNAL_ERROR, "the call that this belongs to has ended")
        try:
            return await call.answerer.answer(asked["source"], asked["method"], asked["params"])
        except SourceRefused as exc:
            raise MCPError(exc.rpc_code, exc.message, exc.data) from exc
        except BridgeError as exc:
            raise MCPError(INTERNAL_ERROR, exc.message) from exc

    async def ask(self, server: str, method: str, params: Json, context: CallContext) -> Json:
        """Have the keeper ask one of its servers.

        Raises:
            SourceError: as the keeper's connection says; OutcomeUnknown when the keeper ended.
        """
        left = context.deadline - time.monotonic()
        peer = await self.link.peer(min(KEEPER_SECONDS, left)) if self.link else None
        if peer is None:
            raise SourceUnavailable(server, f"{server} is not connected: {RESTARTING}")
        number = next(self._numbers)
        self._calls[number] = context
        try:
            with anyio.move_on_after(left + LATE_SECONDS if left < math.inf else None):
                return await peer.send_raw_request(
                    method, {**params, "server": server, **written(number, context)}
                )
        except ConnectionLost as exc:
            broke = f"the connection to {server} broke before the answer came ({RESTARTING})"
            words = f"{broke}; whether the call took effect is unknown"
            raise OutcomeUnknown(server, words) from exc
        except MCPError as exc:
            raise error_of(server, exc) from exc
        finally:
            del self._calls[number]
        raise SourceTimeout(server, f"{server} was not heard of in time; the call was cancelled")


class Mirrored(Connection):
    """An MCP server whose connection the keeper has.

    What only the keeper's own doors do (tell a server something, hear what it announces, have it
    connect again) does nothing here.
    """

    def __init__(
        self, name: str, settings: McpServer, *, on_change: OnChange | None, keeper: Keeper
    ) -> None:
        super().__init__(name, settings, on_change=on_change)
        self._keeper = keeper
        self._stands = False
        """What is known from a keeper that has ended stands until the new one has connected."""

    async def run(self) -> None:
        """Show what the keeper tells, until cancelled."""
        if self._reason_to_stay_off():
            self._settled.set()
            return
        try:
            with self._keeper.showing(self):
                await anyio.sleep_forever()
        finally:
            self._stopped = True
            self._settled.set()
            self._tell()

    def show(self, known: Json) -> None:
        """What the keeper has told about the server: some of its fields, or all."""
        self._stands = self._stands and not known["listed"]
        state, error = State(known["state"]), known["error"]
        if state is State.DISABLED:
            state = State.STARTING  # the keeper has not read yet that it is enabled
        if not self._stands:
            self._show_lists(known)
        else:
            state = state if state is State.NEEDS_AUTH else State.DEGRADED
            error = error or RESTARTING
        self._become(state, error)
        if state is not State.STARTING:
            self._settled.set()

    def _show_lists(self, known: Json) -> None:
        self._listed_at = time.time() if known["listed"] else None
        for name in DESCRIPTION & known.keys():
            setattr(self, name, known[name])
        if "tools" in known:
            tools = tuple(Tool(self.name, tool["name"], tool) for tool in known["tools"])
            self._listing = Listing(tools)
            self._by_name = {tool.name: tool for tool in tools}
            self._on_change(TOOLS)
        if PROMPTS in known:
            self.prompts = tuple(known["prompts"])
            self._on_change(PROMPTS)
        for name in ("resources", "resource_templates"):
            if name in known:
                setattr(self, name, tuple(known[name]))
                self._on_change(RESOURCES)

    def expect_new_keeper(self) -> None:
        self._stands = self._listed_at is not None

    def lose(self) -> None:
        """The keeper is gone: what it has told stands until it is back."""
        if self.state is State.CONNECTED:
            self._become(State.DEGRADED, RESTARTING)

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        tool = self._by_name.get(name)
        repeatable, read_only = (tool.repeatable, tool.read_only) if tool else (False, False)
        params: Json = {"name": name, "arguments": arguments}
        return await self._ask("call", params, context, repeatable, read_only)

    async def request(self, method: str, params: Json, context: CallContext) -> Json:
        sent = {"method": method, "params": params}
        return await self._ask("request", sent, context, repeatable=True, read_only=True)

    async def _ask(
        self, method: str, params: Json, context: CallContext, repeatable: bool, read_only: bool
    ) -> Json:
        """Ask; a second time when the keeper ended meanwhile and that is safe (L22)."""
        self.take()
        try:
            try:
                return await self._keeper.ask(self.name, method, params, context)
            except OutcomeUnknown:
                if not repeatable:
                    raise
            try:
                return await self._keeper.ask(self.name, method, params, context)
            except SourceUnavailable as exc:
                if read_only:
                    raise
                raise not_repeated(exc) from exc
        finally:
            self.let_go()
