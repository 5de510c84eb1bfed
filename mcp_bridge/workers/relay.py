"""The keeper's side of calls: what the other workers ask of its MCP servers.

A call takes its turn in the keeper's own runner, so servers that take one call at a time do so for
all workers together. It is recorded where it came from, not here.
"""

import math
import time
from collections.abc import Callable

from mcp.shared.exceptions import MCPError

from mcp_bridge.bridge import Bridge, Records
from mcp_bridge.errors import BridgeError, SourceRefused, SourceUnavailable
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_client.peer import Peer
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.tools.catalog import Entry
from mcp_bridge.tools.runner import CallRecord, ToolCall
from mcp_bridge.tools.source import CallContext, Tool
from mcp_bridge.types import Json
from mcp_bridge.workers.calls import as_rpc, caller_of
from mcp_bridge.workers.pipe import Pipe

DOOR = "worker"
"""The door of calls that come from another worker."""

MOST_UNTAKEN = 1024 * 1024
"""Bytes that may wait for a worker that does not read; more progress than that is left out."""


def without_relayed(records: Records) -> Records:
    """The same, but calls of other workers are recorded there."""

    def call(ended: CallRecord) -> None:
        if ended.call.door != DOOR:
            records.call(ended)

    return Records(call, records.conversation)


# The keeper


class Relay:
    """What one other worker asks of the servers."""

    def __init__(self, bridge: Bridge, pipe: Pipe, peer: Peer) -> None:
        self._bridge = bridge
        self._pipe = pipe
        self._peer = peer

    async def answer(self, method: str, params: Json) -> Json:
        """The raw result of the server.

        Raises:
            MCPError: an error, as `error_of` reads it.
        """
        REQUEST_ID.set(params["request_id"])
        try:
            connection = self._connection(params["server"])
            context = self._context(params)
            if method == "request":
                return await connection.request(params["method"], params["params"], context)
            return await self._call(connection, params, context)
        except BridgeError as exc:
            raise as_rpc(exc) from exc

    def _connection(self, server: str) -> Connection:
        connection = self._bridge.connections.get(server)
        if connection is None:
            raise SourceUnavailable(server, f"{server} is not configured any more")
        return connection

    async def _call(self, connection: Connection, params: Json, context: CallContext) -> Json:
        name: str = params["name"]
        found = next((tool for tool in connection.tools if tool.name == name), None)
        tool = found or Tool(connection.name, name, {"name": name})  # its list has just changed
        entry = Entry(name, tool, connection)
        call = ToolCall(context.caller, entry, params["arguments"], "", DOOR, context)
        return await self._bridge.runner.run(call)

    def _context(self, params: Json) -> CallContext:
        number: int = params["call"]

        def progress(done: float, total: float | None, message: str | None) -> None:
            self._tell(
                "progress",
                {"call": number, "progress": done, "total": total, "message": message},
            )

        def log(message: Json) -> None:
            self._tell("log", {"call": number, "params": message})

        declared, seconds = params["capabilities"], params["seconds"]
        return CallContext(
            caller=caller_of(params["caller"]),
            timeout=params["timeout"],
            deadline=math.inf if seconds is None else time.monotonic() + seconds,
            on_progress=progress if params["progress"] else None,
            on_log=log if params["logs"] else None,
            answerer=Elsewhere(self._peer, number, declared) if declared is not None else None,
            meta=params["meta"],
            extra=params["extra"],
            hands_back=params["hands_back"],
        )

    def _tell(self, method: str, params: Json) -> None:
        if self._pipe.waiting < MOST_UNTAKEN:
            self._pipe.tell(method, params)


class Elsewhere:
    """Answers what a server asks by asking the worker whose call it works on (an `Answerer`)."""

    def __init__(self, peer: Peer, number: int, declared: Json) -> None:
        self._peer = peer
        self._number = number
        self._declared = declared

    def capabilities(self) -> Json:
        return self._declared

    async def answer(self, source: str, method: str, params: Json) -> Json:
        asked = {"call": self._number, "source": source, "method": method, "params": params}
        try:
            return await self._peer.send_raw_request("answer", asked)
        except MCPError as exc:
            code, message, data = exc.error.code, exc.error.message, exc.error.data
            raise SourceRefused(source, message, rpc_code=code, data=data) from exc


# What the others are shown

SHOWN = (
    *("tools", "prompts", "resources", "resource_templates"),
    *("capabilities", "server_info", "instructions", "protocol_version"),
)


def known_of(connection: Connection) -> Json:
    """What is shown of a connection. Lists mean nothing before it is `listed`."""
    status = connection.status()
    return {
        **{name: getattr(connection, name) for name in SHOWN},
        "state": str(connection.state),
        "error": status["error"],
        "listed": status["listed_at"] is not None,
    }


def as_json(known: Json) -> Json:
    if "tools" in known:
        known = {**known, "tools": [tool.definition for tool in known["tools"]]}
    return known


class Shown:
    """What one other worker has been told about the servers, and what is new for it."""

    def __init__(self, bridge: Bridge, tell: Callable[[str, Json], None]) -> None:
        self._bridge = bridge
        self._tell = tell
        self._known: dict[str, Json] = {}

    def all(self) -> Json:
        """Everything, for a worker that knows nothing yet."""
        connections = self._bridge.connections.items()
        self._known = {name: known_of(connection) for name, connection in connections}
        return {name: as_json(known) for name, known in self._known.items()}

    def changed(self) -> None:
        """Tell what is not as it was."""
        connections = self._bridge.connections
        for name in self._known.keys() - connections.keys():
            del self._known[name]
            self._tell("gone", {"name": name})
        for name, connection in connections.items():
            before, now = self._known.get(name, {}), known_of(connection)
            if new := news(before, now):
                self._known[name] = now
                self._tell("server", {"name": name, "known": as_json(new)})


def news(before: Json, now: Json) -> Json:
    """What differs, with its state; everything, once it is listed (again)."""
    if now["listed"] and not before.get("listed"):
        return now
    new = {key: value for key, value in now.items() if key not in before or before[key] != value}
    return {**new, **{key: now[key] for key in ("state", "error", "listed")}} if new else {}
