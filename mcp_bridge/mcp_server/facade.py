"""All servers as one MCP server.

Theory of operation. The SDK's `Server` does the protocol: transports, sessions, ids, cancellation,
both eras. What it would do with typed models we do with raw JSON instead, in its one middleware:
nothing that a server behind us says is parsed, so nothing that we do not know is lost, and results
and errors arrive as they were sent.

    a request → who asks (VISIT) → what that visit is offered (visit.py) → which server has it
              → the runner or the connection → its raw result, with what the client's era requires

While a request runs its client is told of progress and log messages, and asked what the server
wants to know (client.py): in the old era through its back channel, in the new one by handing out
the question (parked.py). A server of the new era does that by itself, and its questions and state
pass through untouched. What changes behind us is told to those whom it concerns (changes.py).
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import anyio.abc
import anyio.lowlevel
from mcp.server import Server
from mcp.server.connection import Connection as ClientConnection
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    SERVER_INFO_META_KEY,
)
from mcp_types.methods import CACHEABLE_METHODS, SPEC_CLIENT_METHODS, validate_client_request
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_bridge.agent.sampling import Answerers
from mcp_bridge.bridge import Bridge
from mcp_bridge.errors import BridgeError, RequestError, SourceError, SourceRefused
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_client.session import client_info
from mcp_bridge.mcp_server.changes import Changes
from mcp_bridge.mcp_server.client import (
    LEVELS,
    Asking,
    CallOutbox,
    Client,
    Context,
    Declaring,
)
from mcp_bridge.mcp_server.parked import Parked
from mcp_bridge.mcp_server.shapes import (
    LISTS,
    for_old_era,
    introduction,
    page_of,
    unknown_tool,
    with_shown_links,
    with_shown_uri,
)
from mcp_bridge.mcp_server.subscriptions import Subscriptions
from mcp_bridge.mcp_server.visit import VISIT, Offers, Place, Visit
from mcp_bridge.tools.runner import ToolCall
from mcp_bridge.tools.source import Answerer, CallContext, ToolSource, text_result
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

OLD_NOT_FOUND = -32002
MOST_TASKS = 10_000
STARTING_SECONDS = 10.0
"""How long, after the door has opened, requests wait for servers that still start: many clients
list tools once, and never again."""

HELLO = ("initialize", "server/discover")
HELLO_SECONDS = 2.0
"""How long they wait: some clients give up soon."""

STOPPING_SECONDS = 0.5
LEVEL_SECONDS = 5.0
"""How long a client waits for servers to hear of a new log level."""

Send = Callable[[CallContext], Awaitable[Json]]
Answer = Callable[[Client, Json], Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class TaskOwner:
    """Whose task it is (in the protocol's sense), and which server works on it."""

    visit: Visit
    connection: Connection


class Facade:
    """What every MCP client talks to, whichever way it came. To be started."""

    def __init__(self, bridge: Bridge, tasks: anyio.abc.TaskGroup) -> None:
        self._bridge = bridge
        self._tasks = tasks
        self._ready = anyio.Event()
        self._open: set[anyio.CancelScope] = set()
        self._ended = anyio.Event()
        self._levels: WeakKeyDictionary[ClientConnection, str] = WeakKeyDictionary()
        self._task_owners: OrderedDict[str, TaskOwner] = OrderedDict()
        self.offers = Offers(bridge)
        self.changes = Changes(bridge, self.offers, tasks)
        self.subscriptions = Subscriptions(self.changes, self.offers, tasks)
        self.parked = Parked(tasks)
        info = client_info()
        self.server: Server[Any] = Server(
            info["name"], version=info["version"], get_tool_input_schema=self._input_schema
        )
        self.server.middleware.append(self._serve)
        self._answers: dict[str, Answer] = {
            "server/discover": self._discover,
            "subscriptions/listen": self.subscriptions.listen,
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._read_resource,
            "resources/subscribe": self.subscriptions.subscribe,
            "resources/unsubscribe": self.subscriptions.unsubscribe,
            "completion/complete": self._complete,
            "logging/setLevel": self._set_level,
        }

    async def start(self) -> None:
        """Begin to follow the bridge, in a task of its own."""
        await self._tasks.start(self.changes.run)
        self._tasks.start_soon(self._wait_for_servers)

    async def _wait_for_servers(self) -> None:
        await self._bridge.settled(STARTING_SECONDS)
        self._ready.set()

    # The road of every message.

    async def _serve(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.request_id is None:
            await call_next(ctx)
            await self._notified(ctx)
            return None
        if ctx.method == "ping":
            return await call_next(ctx)
        with anyio.move_on_after(HELLO_SECONDS if ctx.method in HELLO else None):
            await self._ready.wait()
        if ctx.method == "initialize":
            return await self._initialize(ctx, call_next)
        with in_mcp_words():
            client = Client(ctx)
            params = checked(ctx)
            return self._dressed(client, ctx.method, await self._in_time(ctx, client, params))

    async def _in_time(self, context: Context, client: Client, params: Json) -> Json:
        """The answer, unless the door closes first."""
        with anyio.CancelScope() as scope:
            self._open.add(scope)
            try:
                return await self._answer(context, client, params)
            finally:
                self._open.discard(scope)
                event, self._ended = self._ended, anyio.Event()
                event.set()
        raise MCPError(CONNECTION_CLOSED, "the bridge is stopping")

    async def stop(self) -> None:
        """Answer every request now: subscriptions with their result, the others with an error."""
        self.subscriptions.close()
        with anyio.move_on_after(STOPPING_SECONDS):
            await anyio.lowlevel.checkpoint()
            for scope in tuple(self._open):
                scope.cancel()
            await self.idle()

    async def idle(self) -> None:
        """Return when no request is under way."""
        while self._open:
            await self._ended.wait()

    async def _answer(self, context: Context, client: Client, params: Json) -> Json:
        if context.method in LISTS:
            offer = self.offers.of(client.visit)
            return page_of(client, offer, context.method, params.get("cursor"))
        answer = self._answers.get(context.method)
        if answer is not None:
            return await answer(client, params)
        return await self._elsewhere(client, context.method, params)

    def _dressed(self, client: Client, method: str, result: Json) -> Json:
        """A result with what the client's era requires, and without what it does not know."""
        if not client.modern:
            return for_old_era(result)
        hints = {"ttlMs": 0, "cacheScope": "private"} if method in CACHEABLE_METHODS else {}
        if result.get("resultType") == "input_required":
            hints = {}
        meta = result.get("_meta")
        stamp = {SERVER_INFO_META_KEY: self.server.server_info_stamp}
        return {
            "resultType": "complete",
            **hints,
            **result,
            "_meta": {**stamp, **meta} if isinstance(meta, dict) else stamp,
        }

    # Hello.

    async def _initialize(self, context: Context, call_next: CallNext) -> Json:
        answer = await call_next(context)
        if not isinstance(answer, dict):  # the SDK answers it with plain JSON
            raise MCPError(INTERNAL_ERROR, "the handshake failed")
        with in_mcp_words():
            client = Client(context)
            client.connection.state["capabilities"] = (context.params or {}).get("capabilities")
            return {**answer, **introduction(self.offers.of(client.visit))}

    async def _discover(self, client: Client, params: Json) -> Json:
        return {
            "supportedVersions": list(MODERN_PROTOCOL_VERSIONS),
            **introduction(self.offers.of(client.visit)),
        }

    async def _notified(self, context: Context) -> None:
        client = Client(context)
        match context.method:
            case "notifications/initialized":
                with in_mcp_words():
                    self.subscriptions.greet(client)
            case "notifications/roots/list_changed":
                for connection in self.offers.of(client.visit).connections:
                    self._tasks.start_soon(connection.notify, context.method, {})

    # What is offered.

    def _input_schema(self, name: str) -> Json | None:
        """A tool's schema, whose `x-mcp-header` arguments the SDK compares with the headers."""
        entry = self.offers.of(VISIT.get()).tool(name)
        return entry.tool.input_schema if entry else None

    # What is asked of a server.

    async def _call_tool(self, client: Client, params: Json) -> Json:
        offer = self.offers.of(client.visit)
        name: str = params["name"]
        entry = offer.tool(name)
        if entry is None:
            raise MCPError(INVALID_PARAMS, unknown_tool(name, offer))

        async def send(context: CallContext) -> Json:
            arguments = params.get("arguments") or {}
            number = str(client.request_id)
            call = ToolCall(client.visit.caller, entry, arguments, number, "mcp", context)
            return await self._bridge.runner.run(call)

        try:
            result = await self._forward(client, params, f"call {name}", entry.source, send)
        except SourceRefused:
            raise
        except SourceError as exc:
            return text_result(exc.message, is_error=True)
        self._remember_task(client, entry.source, result)
        return with_shown_links(result, entry.source.name, offer)

    async def _get_prompt(self, client: Client, params: Json) -> Json:
        name: str = params["name"]
        place = self.offers.of(client.visit).prompts.get(name)
        if place is None:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: {name}")
        sent = {**params, "name": place.own}
        return await self._request(client, "prompts/get", sent, place.connection)

    async def _read_resource(self, client: Client, params: Json) -> Json:
        """Read it where it is; a URI that nobody lists is looked for in server after server."""
        uri: str = params["uri"]
        places = self.offers.of(client.visit).places(uri)
        code = INVALID_PARAMS if client.modern else OLD_NOT_FOUND
        refusal: SourceError = SourceRefused(
            "", f"Unknown resource: {uri}", rpc_code=code, data={"uri": uri}
        )
        for place in places:
            try:
                sent = {**params, "uri": place.own}
                result = await self._request(client, "resources/read", sent, place.connection)
                return with_shown_uri(result, place.own, uri)
            except SourceError as exc:
                refusal = exc
        raise refusal

    async def _complete(self, client: Client, params: Json) -> Json:
        offer = self.offers.of(client.visit)
        ref: Json = params["ref"]
        place: Place | None
        if ref.get("type") == "ref/prompt":
            key, place = "name", offer.prompts.get(str(ref.get("name")))
        else:
            key, place = "uri", next(iter(offer.places(str(ref.get("uri")))), None)
        if place is None:
            raise MCPError(INVALID_PARAMS, f"Unknown {key}: {ref.get(key)}")
        if place.connection.capabilities.get("completions") is None:
            return {"completion": {"values": [], "total": 0, "hasMore": False}}
        sent = {**params, "ref": {**ref, key: place.own}}
        return await self._request(client, "completion/complete", sent, place.connection)

    async def _elsewhere(self, client: Client, method: str, params: Json) -> Json:
        """What the bridge knows nothing of: to the server whose task it is, or the only one."""
        task = params.get("taskId")
        owner = self._task_owners.get(task) if isinstance(task, str) else None
        if owner is not None and owner.visit == client.visit:
            return await self._request(client, method, params, owner.connection)
        offer = self.offers.of(client.visit)
        only = offer.connections[0] if len(offer.connections) == 1 else None
        if only is None or only.name not in offer.whole or method.startswith("tasks/"):
            raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method}", method)
        return await self._request(client, method, params, only)

    def _remember_task(self, client: Client, source: ToolSource, result: Json) -> None:
        task = result.get("task")
        number = task.get("taskId") if isinstance(task, dict) else result.get("taskId")
        if isinstance(number, str) and isinstance(source, Connection):
            self._task_owners[number] = TaskOwner(client.visit, source)
            while len(self._task_owners) > MOST_TASKS:
                self._task_owners.popitem(last=False)

    # How it is asked.

    async def _request(
        self, client: Client, method: str, params: Json, connection: Connection
    ) -> Json:
        sent = {key: value for key, value in params.items() if key != "_meta"}

        async def send(context: CallContext) -> Json:
            return await connection.request(method, sent, context)

        subject = f"{method} {params.get('name') or params.get('uri')}"
        return await self._forward(client, params, subject, connection, send)

    async def _forward(
        self, client: Client, params: Json, subject: str, source: ToolSource, send: Send
    ) -> Json:
        """Send it, while the client hears of progress and is asked what the server asks."""
        if client.modern:
            resumed = await self.parked.resume(client, subject, params)
            if resumed is not None:
                return resumed
        outbox = CallOutbox(client, self._tasks)
        answerers = Answerers(self._bridge.inference, self._bridge.settings.sampling)

        async def answered_by(caller: Answerer) -> Json:
            answerer = answerers.for_call(None, caller)
            return await send(context_of(client, params, outbox, answerer))

        if not client.modern:
            async with outbox.opened():
                return await answered_by(Asking(client))
        declared = Declaring(client)
        if self._asks_in_between(source, client, answerers.for_call(None, declared)):
            return await self.parked.start(client, subject, outbox, answered_by)
        async with outbox.opened():
            context = context_of(client, params, outbox, declared)
            return await send(replace(context, hands_back=True))

    def _asks_in_between(self, source: ToolSource, client: Client, answerer: Answerer) -> bool:
        """Whether questions come while the call runs, and not as its result: a server of the old
        era asks so, and the bridge answers so what the client of the new one does not."""
        if not isinstance(source, Connection) or not answerer.capabilities():
            return False
        if source.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return True
        by_bridge = self._bridge.settings.sampling.answer == "bridge"
        return by_bridge or not answerer.capabilities().keys() <= client.capabilities.keys()

    # Log messages.

    async def _set_level(self, client: Client, params: Json) -> Json:
        """Servers are told the least important level that any client wants; we filter for each."""
        before = self._least_level()
        client.connection.state["log_level"] = params["level"]
        self._levels[client.connection] = params["level"]
        level = self._least_level()
        if level != before:
            with anyio.move_on_after(LEVEL_SECONDS):
                async with anyio.create_task_group() as tasks:
                    for connection in self._bridge.connections.values():
                        if "logging" in connection.capabilities:
                            tasks.start_soon(set_level, connection, level)
        return {}

    def _least_level(self) -> str | None:
        return min(self._levels.values(), key=LEVELS.index, default=None)


async def set_level(connection: Connection, level: str | None) -> None:
    try:
        await connection.request("logging/setLevel", {"level": level}, CallContext())
    except SourceError as exc:
        logger.info("%s: its log level stays: %s", connection.name, exc.message)


@contextmanager
def in_mcp_words() -> Iterator[None]:
    """The one place where our errors become MCP errors."""
    try:
        yield
    except SourceRefused as exc:
        raise MCPError(exc.rpc_code, exc.message, exc.data) from exc
    except RequestError as exc:
        raise MCPError(INVALID_PARAMS, exc.message) from exc
    except BridgeError as exc:
        raise MCPError(INTERNAL_ERROR, exc.message, {"code": exc.code}) from exc


def checked(context: Context) -> Json:
    """The params of a request, which have the form that its protocol version demands.

    Raises:
        MCPError: the version has no such method.
        ValidationError: they have not; the SDK answers it.
    """
    if context.method in SPEC_CLIENT_METHODS:
        try:
            validate_client_request(context.method, context.protocol_version, context.params)
        except KeyError:
            raise MCPError(METHOD_NOT_FOUND, "Method not found", context.method) from None
    return dict(context.params or {})


def context_of(client: Client, params: Json, outbox: CallOutbox, answerer: Answerer) -> CallContext:
    return CallContext(
        caller=client.visit.caller,
        on_progress=outbox.progress,
        on_log=outbox.log if client.log_level else None,
        answerer=answerer,
        meta=client.meta,
        extra={k: v for k, v in params.items() if k not in ("name", "arguments", "_meta")},
    )
