"""Bridge: everything that one configuration owns, and how it changes to another.

`open_bridge` enters a task group in which every MCP connection has its own owner task.
`Bridge.apply` moves a running bridge to new settings: connections whose settings are equal keep
running; one that changed is started before the old one is dropped; requests in flight keep the
snapshot they began with, and an old connection is stopped when the last of them is over.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from starlette.types import Receive, Scope, Send

from mcp_bridge.agent.calls import CallRunner, Caps
from mcp_bridge.agent.loop import Agent
from mcp_bridge.agent.memory import TurnCopy, TurnMemory
from mcp_bridge.agent.record import ConversationRecord, log_conversation
from mcp_bridge.agent.sampling import Answerers
from mcp_bridge.agent.waiting import Key, Waiting
from mcp_bridge.config.changes import Changes, diff
from mcp_bridge.config.settings import McpServer, Settings
from mcp_bridge.errors import RequestError
from mcp_bridge.inference.client import Inference
from mcp_bridge.mcp_client.connection import Connection, State
from mcp_bridge.policy.addresses import check_address
from mcp_bridge.policy.doorkeeper import Doorkeeper
from mcp_bridge.tools.catalog import Catalog, View
from mcp_bridge.tools.runner import CallRecord, ToolRunner, log_record
from mcp_bridge.tools.stored import ResultCopy, StoredResults

logger = logging.getLogger(__name__)

SWAP_SECONDS = 15.0
"""How long the old connection of a changed server stays in use while the new one starts."""

DRAIN_SECONDS = 120.0
"""How long calls that are in flight on a connection that was dropped may take to end."""

Listener = Callable[[str], None]
"""Told what has changed: tools, prompts, resources, state or settings."""


@dataclass(frozen=True, slots=True)
class Records:
    """Who is told about each tool call and each conversation that has ended."""

    call: Callable[[CallRecord], None] = log_record
    conversation: Callable[[ConversationRecord], None] = log_conversation


LOGGED = Records()


class Shared(Protocol):
    """What a bridge has in common with others that serve the same address (`workers/`)."""

    def connection(self, name: str, settings: McpServer, on_change: Listener) -> Connection:
        """How a configured MCP server is reached from here."""
        ...

    def recorded(self, records: Records) -> Records:
        """Who is told of what, when each call is to be recorded once for all."""
        ...

    def keep_turn(self, copy: TurnCopy) -> None:
        """Have the others keep a turn, too."""
        ...

    def keep_result(self, copy: ResultCopy) -> None:
        """Have the others keep a cut result, too."""
        ...

    def wait_here(self, key: Key, waits: bool) -> None:
        """Tell the others that a conversation waits for its user here, or no more."""
        ...

    async def delivered(self) -> None:
        """Return when the others have what was kept here so far, or have had time enough."""
        ...

    def place_of(self, key: Key) -> int | None:
        """The other one at which a conversation waits for its user."""
        ...

    async def hand_over(
        self, worker: int, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Have a request whose body has been read answered there."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from the settings alone. A request keeps the one that it began with."""

    settings: Settings
    inference: Inference
    doorkeeper: Doorkeeper
    agent: Agent
    answerers: Answerers
    stored: StoredResults
    memory: TurnMemory


class Bridge:
    """A running bridge. Made by `open_bridge`."""

    def __init__(
        self, settings: Settings, tasks: TaskGroup, records: Records, shared: Shared | None = None
    ) -> None:
        self._tasks = tasks
        self.shared = shared
        self._listeners: list[Listener] = []
        self._scopes: dict[Connection, anyio.CancelScope] = {}
        self._wanted: dict[str, Connection] = {}
        self._current: dict[str, Connection] = {}
        self._catalog: Catalog | None = None
        self._collisions: Mapping[str, tuple[str, ...]] = {}
        self._records = records
        self.runner = ToolRunner(records.call)
        self.waiting = Waiting(tasks, shared.wait_here if shared else None)
        self.rules = self._rules(settings, None)
        for name, server in settings.mcp_servers.items():
            self._wanted[name] = self._current[name] = self._start(name, server)

    # What a request uses. One that awaits in between takes `rules` once.

    @property
    def settings(self) -> Settings:
        return self.rules.settings

    @property
    def inference(self) -> Inference:
        return self.rules.inference

    @property
    def doorkeeper(self) -> Doorkeeper:
        return self.rules.doorkeeper

    @property
    def agent(self) -> Agent:
        return self.rules.agent

    @property
    def connections(self) -> Mapping[str, Connection]:
        """The MCP servers in the order of the configuration, disabled ones too."""
        return MappingProxyType(self._current)

    @property
    def catalog(self) -> Catalog:
        """All tools at this moment, as a snapshot that never changes."""
        if self._catalog is None:
            self._catalog = Catalog(tuple(self._current.values()), self.settings.tools.prefix)
            self._report_collisions(self._catalog.collisions)
        return self._catalog

    def _report_collisions(self, found: Mapping[str, tuple[str, ...]]) -> None:
        for name, owners in found.items():
            if self._collisions.get(name) != owners:
                servers = ", ".join(owners)
                logger.warning("tool name %r is used by several servers: %s", name, servers)
        self._collisions = found

    async def settled(self, seconds: float) -> bool:
        """Wait until every server's first attempt to connect has ended; False when time is up."""
        with anyio.move_on_after(seconds) as scope:
            for connection in tuple(self._current.values()):
                await connection.settled()
        return not scope.cancelled_caught

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` told of changes. Returns how to stop that."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def _changed(self, kind: str) -> None:
        if kind in ("tools", "settings"):
            self._catalog = None
        for listener in tuple(self._listeners):
            try:
                listener(kind)
            except Exception:  # boundary: one listener must not stop the others
                logger.exception("a listener of changes failed")

    @asynccontextmanager
    async def visiting(self, label: str, server: McpServer, view: View) -> AsyncGenerator[View]:
        """`view` with the tools of a server that a request names, for as long as it runs.

        Raises:
            RequestError: 424, the server cannot be used, and why.
        """
        await check_address(server.url or "", "server_url")
        connection = self._owned(Connection(label, server))
        try:
            await connection.settled()
            if connection.state is not State.CONNECTED:
                raise RequestError(
                    f"the MCP server {label!r} cannot be used: {connection.status()['error']}",
                    param="tools",
                    code="mcp_server_unavailable",
                    status=424,
                )
            yield view.joined(connection)
        finally:
            self._drop(connection)

    # Changing.

    def apply(self, settings: Settings) -> Changes:
        """Move to new settings; what is equal keeps running. Returns what has changed."""
        changes = diff(self.settings, settings)
        before, self.rules = self.rules, self._rules(settings, self.rules)
        if before.inference is not self.rules.inference:
            self._tasks.start_soon(before.inference.aclose)
        for name in (*changes.added, *changes.changed):
            self._wanted[name] = self._start(name, settings.mcp_servers[name])
        for name in changes.changed:
            self._tasks.start_soon(self._swap, name, self._wanted[name])
        for name in changes.removed:
            self._drop(self._wanted.pop(name))
            self._drop(self._current[name])
        self._current = {
            name: self._current.get(name, self._wanted[name]) for name in settings.mcp_servers
        }
        self._changed("settings")
        logger.info("configuration applied: %s", changes)
        return changes

    def _rules(self, settings: Settings, before: Rules | None) -> Rules:
        """The rules of these settings; parts whose settings are equal are kept."""
        old = before.settings if before else None
        if before and old and old.inference_server == settings.inference_server:
            inference = before.inference
        else:
            inference = Inference(settings.inference_server)
        if before and old and old.tools == settings.tools:
            stored, memory = before.stored, before.memory
        else:
            page, ttl, shared = (
                settings.tools.max_result_chars,
                settings.tools.memory_ttl,
                self.shared,
            )
            stored = StoredResults(page, ttl, tell=shared.keep_result if shared else None)
            memory = TurnMemory(ttl, tell=shared.keep_turn if shared else None)
        calls = CallRunner(
            self.runner,
            stored,
            cap=settings.tools.max_result_chars,
            caps=caps_of(settings.mcp_servers),
            parallel=settings.limits.max_parallel_calls,
        )
        answerers = Answerers(inference, settings.sampling)
        agent = Agent(
            inference,
            calls,
            answerers,
            stored,
            memory,
            limits=settings.limits,
            restore_history=settings.tools.restore_history,
            record=self._records.conversation,
        )
        doorkeeper = Doorkeeper(settings.security.auth)
        return Rules(settings, inference, doorkeeper, agent, answerers, stored, memory)

    # Connections.

    def _start(self, name: str, server: McpServer) -> Connection:
        """Begin to reach a configured server."""
        if self.shared is not None:
            return self._owned(self.shared.connection(name, server, self._changed))
        return self._owned(Connection(name, server, on_change=self._changed))

    def _owned(self, connection: Connection) -> Connection:
        self._scopes[connection] = anyio.CancelScope()
        self._tasks.start_soon(self._own, connection)
        return connection

    async def _own(self, connection: Connection) -> None:
        """The owner task: it enters and leaves the connection, and ends when it is dropped."""
        with self._scopes[connection]:
            await connection.run()
            await anyio.sleep_forever()  # a disabled server has nothing to run
        del self._scopes[connection]

    async def _swap(self, name: str, fresh: Connection) -> None:
        """Put a changed server's new connection in place of the old one once it is up."""
        with anyio.move_on_after(SWAP_SECONDS):
            await fresh.settled()
        if self._wanted.get(name) is not fresh:
            self._drop(fresh)  # it was changed again meanwhile, or removed
            return
        old, self._current[name] = self._current[name], fresh
        self._drop(old)
        for kind in ("tools", "prompts", "resources", "state"):
            self._changed(kind)

    def stop(self) -> None:
        """Begin to stop all MCP servers; leaving `open_bridge` waits for their end."""
        for scope in self._scopes.values():
            scope.cancel()

    def _drop(self, connection: Connection) -> None:
        if connection in self._scopes:
            self._tasks.start_soon(self._drain, connection)

    async def _drain(self, connection: Connection) -> None:
        with anyio.move_on_after(DRAIN_SECONDS):
            await connection.idle()
        if scope := self._scopes.get(connection):
            scope.cancel()


class Using:
    """Keeps what is behind a view running, also when a reload drops it meanwhile: `with Using(…)`.

    Not a generator, for there is one around each answer.
    """

    def __init__(self, view: View) -> None:
        self._connections = [one for one in view.sources if isinstance(one, Connection)]

    def __enter__(self) -> None:
        for connection in self._connections:
            connection.take()

    def __exit__(self, *failure: object) -> None:
        for connection in self._connections:
            connection.let_go()


def caps_of(servers: Mapping[str, McpServer]) -> Caps:
    """The caps on results that differ from the general one."""
    caps: Caps = {}
    for name, server in servers.items():
        if server.max_result_chars is not None:
            caps[name, None] = server.max_result_chars
        for tool, settings in server.tools.items():
            if settings.max_result_chars is not None:
                caps[name, tool] = settings.max_result_chars
    return caps


@asynccontextmanager
async def open_bridge(
    settings: Settings, records: Records = LOGGED, shared: Shared | None = None
) -> AsyncGenerator[Bridge]:
    """A running bridge. MCP servers connect in the background: nothing waits for them here.

    Leaving stops all children.
    """
    async with anyio.create_task_group() as tasks:
        bridge = Bridge(settings, tasks, records, shared)
        try:
            yield bridge
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await bridge.inference.aclose()
