"""All servers as one MCP server.

Theory of operation. Whichever way a message came, its transport makes it a `Client` (who asks, and
how to reach them meanwhile), a method and params, and takes back a result or an exception. Nothing
that a server behind us says is parsed, so nothing that we do not know is lost, and results and
errors arrive as they were sent.

    a request → who asks → what that visit is offered (visit.py) → which server has it
              → the runner or the connection → its raw result, with what the client's era requires

While a request runs its client is told of progress and log messages, and asked what the server
wants to know (client.py): in the old era through its back channel, in the new one by handing out
the question (parked.py). A server of the new era does that by itself, and its questions and state
pass through untouched. What changes behind us is told to those whom it concerns (changes.py).

The transports: streamable.py for streamable HTTP, and sdk.py for connections that stay.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import anyio.abc
import anyio.lowlevel
from mcp.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, SERVER_INFO_META_KEY
from mcp_types.methods import CACHEABLE_METHODS, SPEC_CLIENT_METHODS, validate_client_request
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from mcp_bridge import exact
from mcp_bridge.bridge import Bridge
from mcp_bridge.errors import BridgeError, RequestError, SourceError, SourceRefused
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_client.session import client_info
from mcp_bridge.mcp_server.begun import BegunTasks, TaskPlace, begun_by, with_shown_task
from mcp_bridge.mcp_server.changes import Changes
from mcp_bridge.mcp_server.client import (
    LEVELS,
    Asking,
    CallOutbox,
    Client,
    Declaring,
)
from mcp_bridge.mcp_server.messages import Result, Written
from mcp_bridge.mcp_server.parked import Parked
from mcp_bridge.mcp_server.sdk import sdk_server
from mcp_bridge.mcp_server.session import Session
from mcp_bridge.mcp_server.shapes import (
    LISTS,
    for_old_era,
    introduction,
    page_of,
    position,
    unknown_tool,
    with_shown_links,
    with_shown_uri,
)
from mcp_bridge.mcp_server.subscriptions import Subscriptions
from mcp_bridge.mcp_server.visit import Offers, Place, Visit
from mcp_bridge.tools.runner import ToolCall
from mcp_bridge.tools.source import Answerer, CallContext, ToolSource, text_result
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

OLD_NOT_FOUND = -32002
STARTING_SECONDS = 10.0
"""How long, after the door has opened, requests wait for servers that still start: many clients
list tools once, and never again."""

HELLO = ("initialize", "server/discover")
HELLO_SECONDS = 2.0
"""How long they wait: some clients give up soon."""

NOT_TO_BE_KEPT: Json = {"ttlMs": 0, "cacheScope": "private"}
"""Lists change whenever a server comes, goes or changes its mind, and only clients that listen hear
of it: for the others, any time to live is a time in which they call what is gone."""

STOPPING_SECONDS = 0.5
LEVEL_SECONDS = 5.0
"""How long a client waits for servers to hear of a new log level."""

CACHED_FORMS = 256
LONGEST_FORM = 2000
"""Bytes of a call without its arguments; of longer ones nothing is kept."""

Send = Callable[[CallContext], Awaitable[Json]]
Answer = Callable[[Client, Json], Awaitable[Json]]


class Facade:
    """What every MCP client talks to, whichever way it came. To be started."""

    def __init__(self, bridge: Bridge, tasks: anyio.abc.TaskGroup) -> None:
        self._bridge = bridge
        self._tasks = tasks
        self._ready = anyio.Event()
        self._open: set[Client] = set()
        self._ended: anyio.Event | None = None
        self._levels: WeakKeyDictionary[Session, str] = WeakKeyDictionary()
        self._begun = BegunTasks()
        self.offers = Offers(bridge)
        self.changes = Changes(bridge, self.offers, tasks)
        self.subscriptions = Subscriptions(self.changes, self.offers, tasks)
        self.parked = Parked(tasks)
        self._about = client_info()
        self.server: Server[Any] = sdk_server(self._about, self)
        self._answers: dict[str, Answer] = {
            "ping": self._pong,
            "initialize": self._initialize,
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

    async def answer(self, client: Client, method: str, params: Json) -> Result:
        """The result of a request.

        Raises:
            MCPError: it is refused, or a server has refused it.
            ValidationError: its params have not the form that its protocol version demands.
        """
        try:
            check(client.protocol_version, method, params)
            with client.scope:
                self._open.add(client)
                try:
                    if not self._ready.is_set() and method != "ping":
                        await self._until_ready(method)
                    return await self._result(client, method, params)
                finally:
                    self._open.discard(client)
                    if self._ended is not None:
                        self._ended.set()
        except BridgeError as exc:
            raise in_mcp_words(exc) from exc
        raise client.why_stopped

    async def _until_ready(self, method: str) -> None:
        with anyio.move_on_after(HELLO_SECONDS if method in HELLO else None):
            await self._ready.wait()

    async def stop(self) -> None:
        """Answer every request now: subscriptions with their result, the others with an error."""
        self.subscriptions.close()
        with anyio.move_on_after(STOPPING_SECONDS):
            await anyio.lowlevel.checkpoint()
            for client in tuple(self._open):
                client.scope.cancel()
            await self.idle()

    async def idle(self) -> None:
        """Return when no request is under way."""
        while self._open:
            self._ended = anyio.Event()
            await self._ended.wait()

    async def _result(self, client: Client, method: str, params: Json) -> Result:
        if method in LISTS:
            return self._page(client, method, params.get("cursor"))
        answer = self._answers.get(method)
        if answer is not None:
            return self._dressed(client, method, await answer(client, params))
        return self._dressed(client, method, await self._elsewhere(client, method, params))

    def _dressed(self, client: Client, method: str, result: Json) -> Json:
        """A result with what the client's era requires, and without what it does not know."""
        if not client.modern:
            return for_old_era(result)
        hints: Json = {}
        if method in CACHEABLE_METHODS and result.get("resultType") != "input_required":
            hints = NOT_TO_BE_KEPT
        meta = result.get("_meta")
        stamp: Json = {SERVER_INFO_META_KEY: self._about}
        return {
            "resultType": "complete",
            **hints,
            **result,
            "_meta": {**stamp, **meta} if isinstance(meta, dict) else stamp,
        }

    def notified(self, visit: Visit, session: Session, method: str) -> None:
        """What a client of the old era wants us to know.

        Raises:
            MCPError: there is nothing here for it any more.
        """
        try:
            if method == "notifications/initialized":
                self.subscriptions.greet(visit, session)
            elif method == "notifications/roots/list_changed":
                for connection in self.offers.of(visit).connections:
                    self._tasks.start_soon(connection.notify, method, {})
        except BridgeError as exc:
            raise in_mcp_words(exc) from exc

    # Hello.

    async def _initialize(self, client: Client, params: Json) -> Json:
        client.session.capabilities = params["capabilities"]
        asked = params["protocolVersion"]
        known = asked in HANDSHAKE_PROTOCOL_VERSIONS
        client.session.protocol_version = asked if known else LATEST_HANDSHAKE_VERSION
        return {
            "protocolVersion": client.session.protocol_version,
            "serverInfo": self._about,
            **introduction(self.offers.of(client.visit)),
        }

    async def _discover(self, client: Client, params: Json) -> Json:
        return {
            "supportedVersions": list(MODERN_PROTOCOL_VERSIONS),
            **introduction(self.offers.of(client.visit)),
        }

    async def _pong(self, client: Client, params: Json) -> Json:
        return {}

    # What is offered.

    def _page(self, client: Client, method: str, cursor: object) -> Written:
        """One page of a list, made and written once for all who are offered the same."""
        offer, start = self.offers.of(client.visit), position(cursor)
        key = (method, client.modern, start)
        page = offer.pages.get(key)
        if page is None:
            page = Written(self._dressed(client, method, page_of(client, offer, method, start)))
            if start in offer.starts(method):  # cursors that are made up would fill the memory
                offer.pages[key] = page
        return page

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
        result = self._with_task(client, entry.source, result)
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
        place = self._begun.find(client.visit, params.get("taskId"))
        if place is not None:
            sent = {**params, "taskId": place.own}
            result = await self._request(client, method, sent, place.connection)
            return with_shown_task(result, place.own, params["taskId"])
        offer = self.offers.of(client.visit)
        only = offer.connections[0] if len(offer.connections) == 1 else None
        if only is None or only.name not in offer.whole or method.startswith("tasks/"):
            raise MCPError(METHOD_NOT_FOUND, f"Method not found: {method}", method)
        return await self._request(client, method, params, only)

    def _with_task(self, client: Client, source: ToolSource, result: Json) -> Json:
        """The result of a call, whose task is found again if it has become one."""
        own = begun_by(result)
        if own is None or not isinstance(source, Connection):
            return result
        shown = self._begun.begin(client.visit, TaskPlace(source, own))
        client.session.begin(source.name, own, shown)
        return with_shown_task(result, own, shown)

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
        answerers = self._bridge.rules.answerers

        async def answered_by(caller: Answerer) -> Json:
            answerer = answerers.for_call(None, caller)
            return await send(context_of(client, params, outbox, answerer))

        if not client.modern:
            async with outbox:
                return await answered_by(Asking(client))
        declared = Declaring(client)
        if self._asks_in_between(source, client, answerers.for_call(None, declared)):
            return await self.parked.start(client, subject, outbox, answered_by)
        async with outbox:
            return await send(context_of(client, params, outbox, declared, hands_back=True))

    def _asks_in_between(self, source: ToolSource, client: Client, answerer: Answerer) -> bool:
        """Whether questions come while the call runs, and not as its result: a server of the old
        era asks so, and the bridge answers so what the client of the new one does not."""
        if not isinstance(source, Connection) or not (able := answerer.capabilities()):
            return False
        if source.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return True
        by_bridge = self._bridge.settings.sampling.answer == "bridge"
        return by_bridge or not able.keys() <= client.capabilities.keys()

    # Log messages.

    async def _set_level(self, client: Client, params: Json) -> Json:
        """Servers are told the least important level that any client wants; we filter for each."""
        before = self._least_level()
        client.session.log_level = self._levels[client.session] = params["level"]
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


def in_mcp_words(error: BridgeError) -> MCPError:
    """The one place where our errors become MCP errors."""
    match error:
        case SourceRefused():
            return MCPError(error.rpc_code, error.message, error.data)
        case RequestError():
            return MCPError(INVALID_PARAMS, error.message)
        case _:
            return MCPError(INTERNAL_ERROR, error.message, {"code": error.code})


def check(version: str, method: str, params: Json) -> None:
    """Whether a request has the form that its protocol version demands.

    Raises:
        MCPError: the version has no such method.
        ValidationError: it has not.
    """
    if method == "tools/call" and isinstance(params.get("arguments"), dict):
        form = exact.encode({**params, "arguments": None})
        if len(form) <= LONGEST_FORM and form.find(b'"progressToken"') < 0:
            check_form(version, form)
            return
    check_whole(version, method, params)


@lru_cache(CACHED_FORMS)
def check_form(version: str, form: bytes) -> None:
    """The same for a call without its arguments, which may be any object: what clients say beside
    them they nearly always have said before. What is refused is looked at again each time."""
    check_whole(version, "tools/call", exact.loads(form))


def check_whole(version: str, method: str, params: Json) -> None:
    if method in SPEC_CLIENT_METHODS:
        try:
            validate_client_request(method, version, params)
        except KeyError:
            raise MCPError(METHOD_NOT_FOUND, "Method not found", method) from None


def context_of(
    client: Client,
    params: Json,
    outbox: CallOutbox,
    answerer: Answerer,
    *,
    hands_back: bool = False,
) -> CallContext:
    return CallContext(
        caller=client.visit.caller,
        on_progress=outbox.progress,
        on_log=outbox.log if client.log_level else None,
        answerer=answerer,
        meta=client.meta,
        extra={k: v for k, v in params.items() if k not in ("name", "arguments", "_meta")},
        hands_back=hands_back,
    )
