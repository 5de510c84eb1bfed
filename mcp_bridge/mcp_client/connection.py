"""One MCP server behind us, kept alive by one task.

Theory of operation. `run` is the owner task: it alone enters and leaves the transport (anyio's
cancel scopes must be left by the task that entered them), and it goes round and round:

    attempt: open the transport → agree on a protocol → list → connected → serve → lost → back off

Everybody else only sends requests through the session that the owner has published in `_session`.
The channel's `lost` event is set by whoever notices a death first: the end of a pipe or a stream,
an answer that says the session is gone, a caller whose request could not be delivered. The owner
waits for it, leaves the transport, and begins again. While it repairs, the last good lists stay
(state `degraded`, S14), and a call waits a few seconds for the repair instead of failing.

A call that failed is sent again once, and only when that is safe (L22): when it was never sent, or
when its tool says that it may be repeated. Otherwise, and when it could not be repeated, the caller
is told that nobody knows whether it took effect.

A first connect that finds out which transport and which protocol era work remembers both.
"""

import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import anyio
from mcp_types import HEADER_MISMATCH, METHOD_NOT_FOUND, PARSE_ERROR

from mcp_bridge.backoff import backoff
from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import (
    BridgeError,
    OutcomeUnknown,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.mcp_client.channel import Channel, NeedsAuth, ProbeKilled, WrongTransport
from mcp_bridge.mcp_client.exchange import Patience
from mcp_bridge.mcp_client.listing import Listing, chosen, difference, objects, read_tools
from mcp_bridge.mcp_client.session import Declined, Era, Session
from mcp_bridge.mcp_client.transports import candidates, open_channel
from mcp_bridge.tools.source import Answerer, CallContext, Tool, text_result
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

STARTUP_SECONDS = 30.0
SLOW_STARTUP_SECONDS = 120.0
SLOW_COMMANDS = frozenset(
    ("npx", "uvx", "docker", "podman", "bunx", "pnpm", "yarn", "deno", "uv", "pipx")
)
"""Commands that may download before they start (S9)."""

PROBE_SECONDS = 5.0
REPAIR_SECONDS = 5.0
"""How long a call waits for a connection that is being repaired."""

STABLE_SECONDS = 30.0
"""A connection that lived this long starts again at once, with a fresh backoff."""

ANSWERS: Json = {
    "sampling": {"tools": {}},
    "elicitation": {"form": {}, "url": {}},
    "roots": {"listChanged": True},
}
"""What we say to a server of the old era that we can answer. Who asks is known call by call: what
that caller cannot answer is refused at once (T5)."""

LOGIN_SECONDS = 60.0
CALM_SECONDS = 1.0
"""After a failure, calls do not ask for another attempt sooner than this."""

DEBOUNCE_SECONDS = 0.1
LISTEN_ACK_SECONDS = 2.0
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second attempt; they double with each, up to the longest."""

TOOLS, PROMPTS, RESOURCES = "tools", "prompts", "resources"
CHANGED = {
    "notifications/tools/list_changed": TOOLS,
    "notifications/prompts/list_changed": PROMPTS,
    "notifications/resources/list_changed": RESOURCES,
}
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
ANNOUNCED = (
    "notifications/tools/",
    "notifications/prompts/",
    "notifications/resources/",
    "notifications/message",
    "notifications/elicitation/",
    "notifications/tasks/",
)
"""What listeners hear: the rest belongs to single requests, or to this file."""


OnChange = Callable[[str], None]
OnNotification = Callable[[str, Json], None]


class State(StrEnum):
    """How a connection is."""

    STARTING = "starting"
    CONNECTED = "connected"
    DEGRADED = "degraded"
    """It is being repaired; its last lists still stand."""

    NEEDS_AUTH = "needs_auth"
    FAILED = "failed"
    DISABLED = "disabled"


@dataclass(slots=True)
class Attempts:
    """How the owner gets on with connecting."""

    number: int = 0
    """Attempts since the last life that was long enough."""

    under_way: bool = False
    failures: int = 0
    """Those that failed, ever: who waits for an attempt sees by it that the attempt has ended."""

    failed_at: float = -math.inf
    timeouts: int = 0
    """How many in a row were too slow."""

    next_at: float | None = None


@dataclass(slots=True)
class Found:
    """What has worked, and is tried first next time."""

    era: Era
    transport: str | None = None


@dataclass(slots=True)
class Wishes:
    """What callers want to be told by the server, to be renewed after a reconnect."""

    uris: dict[str, None] = field(default_factory=dict)
    """Resources, in the order of their subscriptions."""

    log_level: str | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)
    acknowledged: anyio.Event = field(default_factory=anyio.Event)


class Connection:
    """One MCP server behind us: a `ToolSource` that connects, repairs and explains itself."""

    def __init__(
        self,
        name: str,
        settings: McpServer,
        *,
        on_change: OnChange | None = None,
        default_answerer: Answerer | None = None,
        answers: Json | None = None,
    ) -> None:
        self.name = name
        self.parallel = settings.parallel
        self.settings = settings
        self._own_patience = patience_of(settings.timeout, settings)
        self._patiences: dict[str | None, Patience] = {
            name: patience_of(tool.timeout, settings)
            for name, tool in settings.tools.items()
            if tool.timeout
        }
        self._on_change = on_change or (lambda kind: None)
        self._default_answerer = default_answerer
        self._answers = ANSWERS if answers is None else answers
        self._listeners: list[OnNotification] = []
        self.state = State.DISABLED if self._reason_to_stay_off() else State.STARTING
        self._error = self._reason_to_stay_off()
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._change = anyio.Event()
        self._settled = anyio.Event()
        self._nudge = anyio.Event()
        self._stopped = False
        self._users = 0
        self._idle: anyio.Event | None = None
        self._attempts = Attempts()
        self._since = time.time()
        self._listed_at: float | None = None
        self._found = Found(settings.protocol)
        self._stale: set[str] = set()
        self._stale_now = anyio.Event()
        self._wishes = Wishes()
        self._listing = Listing()
        self._by_name: dict[str, Tool] = {}
        self.prompts: tuple[Json, ...] = ()
        self.resources: tuple[Json, ...] = ()
        self.resource_templates: tuple[Json, ...] = ()
        self.capabilities: Json = {}
        self.server_info: Json = {}
        self.instructions: str | None = None
        self.protocol_version: str | None = None

    @property
    def tools(self) -> tuple[Tool, ...]:
        return self._listing.tools

    def _reason_to_stay_off(self) -> str | None:
        if self.settings.problem:
            return self.settings.problem
        return "disabled in the configuration" if self.settings.disabled else None

    # What callers do.

    async def settled(self) -> None:
        """Return when the first attempt to connect has ended, either way."""
        await self._settled.wait()

    async def idle(self) -> None:
        """Return when nobody uses it, and no request of a caller is in flight."""
        while self._users:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    def take(self) -> None:
        """Until it is let go it is not idle: there is a request, or one may come."""
        self._users += 1

    def let_go(self) -> None:
        """The other half of `take`."""
        self._users -= 1
        if not self._users and self._idle is not None:
            self._idle.set()
            self._idle = None

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        """Call a tool and return the raw MCP `CallToolResult`.

        Raises:
            SourceUnavailable: not connected, or the call could not be sent.
            SourceTimeout: no answer in time; the call was cancelled.
            OutcomeUnknown: the connection broke during the call.
            SourceRefused: the server answered with a JSON-RPC error.
        """
        params: Json = {"name": name, "arguments": arguments}
        try:
            return await self._send("tools/call", params, context, self._patience(context, name))
        except Declined as exc:
            return text_result(f"{name} cannot be run here: {exc.message}", is_error=True)
        except SourceRefused as exc:
            if exc.rpc_code != PARSE_ERROR:
                raise
            return text_result(f"{self.name} gave no usable answer: {exc.message}", is_error=True)

    async def request(self, method: str, params: Json, context: CallContext) -> Json:
        """Send any other MCP request (`prompts/get`, `resources/read`, …); returns its raw result.

        Requests that the new protocol era has no longer (`ping`, `logging/setLevel`,
        `resources/subscribe`) work on both eras.

        Raises:
            SourceError: as `call`.
        """
        patience = self._patience(context)
        session = self._alive() or await self._repaired(context, patience)
        if (
            session.modern
            and (answer := self._translated_request(session, method, params)) is not None
        ):
            return answer
        result = await self._send(method, params, context, patience)
        self._watch(method, params)
        return result

    async def notify(self, method: str, params: Json) -> None:
        """Tell the server something, if it is there to hear it (`notifications/…`)."""
        if (session := self._alive()) is not None:
            await session.notify(method, params)

    def reconnect(self) -> None:
        """Try again now instead of waiting for the backoff. A working connection is left alone."""
        self._nudge.set()

    def subscribe_notifications(self, listener: OnNotification) -> Callable[[], None]:
        """Hear what the server announces, as (method, params). Returns how to stop hearing it."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def status(self) -> Json:
        """What an operator wants to know, in JSON."""
        channel = self._channel
        retry = self._attempts.next_at
        return {
            "name": self.name,
            "state": str(self.state),
            "error": self._error,
            "transport": channel.transport if channel else self._found.transport,
            "protocol": self.protocol_version,
            "server": self.server_info,
            "attempt": self._attempts.number,
            "next_retry_seconds": max(0.0, round(retry - time.monotonic(), 1)) if retry else None,
            "tools": len(self.tools),
            "prompts": len(self.prompts),
            "resources": len(self.resources) + len(self.resource_templates),
            "skipped_tools": [{"name": n, "reason": r} for n, r in self._listing.skipped],
            "listed_at": self._listed_at,
            "since": self._since,
            "pid": channel.pid if channel and not channel.lost.is_set() else None,
            "noise_lines": channel.noise() if channel else 0,
            "stderr": list(channel.stderr) if channel else [],
        }

    # How a request finds its session.

    def _patience(self, context: CallContext, tool: str | None = None) -> Patience:
        if context.timeout:
            return patience_of(context.timeout, self.settings)
        return self._patiences.get(tool, self._own_patience)

    async def _send(
        self, method: str, params: Json, context: CallContext, patience: Patience
    ) -> Json:
        self.take()
        try:
            session = self._alive() or await self._repaired(context, patience)
            try:
                return await session.ask(method, params, context, patience)
            except SourceError as exc:
                if not await self._may_be_sent_again(exc, session, method, params, patience):
                    raise
                in_doubt = isinstance(exc, OutcomeUnknown) and self._changes_things(method, params)
            try:
                session = self._alive() or await self._repaired(context, patience)
                return await session.ask(method, params, context, patience)
            except SourceUnavailable as exc:
                if not in_doubt:
                    raise
                raise not_repeated(exc) from exc
        finally:
            self.let_go()

    def _changes_things(self, method: str, params: Json) -> bool:
        """Whether it matters that a request was sent, though nobody answered."""
        tool = self._by_name.get(params["name"]) if method == "tools/call" else None
        return tool is not None and not tool.read_only

    async def _may_be_sent_again(
        self, exc: SourceError, session: Session, method: str, params: Json, patience: Patience
    ) -> bool:
        """Whether a request that has failed may be sent again; sees to it that this helps."""
        match exc:
            case NeedsAuth():
                return False
            case SourceRefused():
                if exc.rpc_code != HEADER_MISMATCH or method != "tools/call":
                    return False
                await self._list_tools(session, patience)  # it wants other headers than it listed
                return True
            case SourceUnavailable():
                self._distrust(session)
                return True
            case OutcomeUnknown():
                self._distrust(session)
                tool = self._by_name.get(params["name"]) if method == "tools/call" else None
                return method != "tools/call" or (tool is not None and tool.repeatable)
            case SourceTimeout() if session.channel.transport == "sse":
                self._distrust(session)  # its stream may have died without a sign
        return False

    def _distrust(self, session: Session) -> None:
        """A request could not be delivered or lost its answer: begin again, unless others live."""
        if not session.exchanges:
            session.channel.fail("a request did not get through")

    def _alive(self) -> Session | None:
        session = self._session
        return session if session is not None and not session.channel.lost.is_set() else None

    async def _repaired(self, context: CallContext, patience: Patience) -> Session:
        """The session, after waiting a moment for the repair."""
        session: Session | None = None
        seen = self._attempts.failures
        if self.state is not State.DISABLED and not self._stopped and self._ask_for_attempt():
            left = context.deadline - time.monotonic()
            with anyio.move_on_after(min(REPAIR_SECONDS, patience.timeout, left)):
                while (session := self._alive()) is None and self._attempts.failures == seen:
                    if self._stopped:
                        break
                    await self._change.wait()
        if session is not None:
            return session
        raise SourceUnavailable(self.name, self._why_not())

    def _ask_for_attempt(self) -> bool:
        """Whether waiting makes sense: an attempt is under way, or may begin now."""
        if self._attempts.under_way:
            return True
        just_failed = time.monotonic() - self._attempts.failed_at < CALM_SECONDS
        if just_failed or self.state is State.NEEDS_AUTH:
            return False
        self.reconnect()
        return True

    def _why_not(self) -> str:
        if self._stopped:
            return f"{self.name} was stopped"
        reason = self._error or "it is still starting; try again in a moment"
        return f"{self.name} is not connected: {reason}"

    # The owner task.

    async def run(self) -> None:
        """Connect, serve, reconnect, until cancelled. The only place that enters the transport."""
        if self.state is State.DISABLED:
            self._settled.set()
            return
        try:
            while True:
                began = time.monotonic()
                await self._live()
                await self._back_off(stable=time.monotonic() - began > STABLE_SECONDS)
        finally:
            self._stopped = True
            self._session = None
            self._settled.set()
            self._tell()

    async def _live(self) -> None:
        """One attempt, and, when it succeeds, the life that follows."""
        self._attempts.number += 1
        self._attempts.next_at = None
        self._attempts.under_way = True
        self._channel = None
        self._nudge = anyio.Event()
        try:
            await self._try_transports()
        except SourceError as exc:
            self._failed(exc)
        except Exception as exc:  # boundary: whatever one server causes must not reach the others
            logger.exception("%s: the connection failed in an unexpected way", self.name)
            self._failed(exc)
        else:
            self._lost()
        finally:
            self._attempts.under_way = False

    async def _try_transports(self) -> None:
        found = self._found.transport
        transports = (found,) if found else candidates(self.settings)
        failures: list[str] = []
        for transport in transports:
            try:
                await self._try_eras(transport)
            except WrongTransport as exc:
                failures.append(f"{transport}: {exc.message}")
            else:
                return
        self._found.transport = None
        raise SourceUnavailable(self.name, "; ".join(failures))

    async def _try_eras(self, transport: str) -> None:
        try:
            await self._connect_and_serve(transport)
        except ProbeKilled:
            logger.info("%s: ended when probed; using the older protocol", self.name)
            self._found.era = "legacy"
            try:
                await self._connect_and_serve(transport)
            except SourceError:
                if self._listed_at is None:
                    self._found.era = self.settings.protocol
                raise

    async def _connect_and_serve(self, transport: str) -> None:
        seconds = self._startup_seconds(transport)
        with (
            _one_error(self.name),
            anyio.CancelScope(deadline=anyio.current_time() + seconds) as scope,
        ):
            try:
                async with open_channel(transport, self.name, self.settings) as channel:
                    self._channel = channel
                    await self._converse(channel, scope, seconds)
            except BaseException:
                if scope.cancel_called:  # on time: leaving may take seconds more (S14)
                    self._failed(self._too_slow(seconds))
                raise
        if scope.cancelled_caught:
            self._attempts.timeouts += 1
            raise self._too_slow(seconds)

    async def _converse(self, channel: Channel, scope: anyio.CancelScope, seconds: float) -> None:
        session = Session(
            self.name,
            channel,
            answers=self._answers,
            default_answerer=self._default_answerer,
            on_notification=self._noticed,
        )
        async with session.opened():
            whole = Patience(seconds, seconds)
            probe = min(PROBE_SECONDS, seconds / 3)
            await session.negotiate(self._found.era, whole, Patience(probe, probe))
            self._wishes.acknowledged = anyio.Event()
            async with anyio.create_task_group() as tasks:
                try:
                    if session.modern:
                        tasks.start_soon(self._listen, session)
                        with anyio.move_on_after(LISTEN_ACK_SECONDS):
                            await self._wishes.acknowledged.wait()
                    await self._list_everything(session, whole)
                    scope.deadline = math.inf
                    self._connected(session)
                    tasks.start_soon(self._keep_lists_fresh, session)
                    await channel.lost.wait()
                finally:
                    self._session = None
                    tasks.cancel_scope.cancel()

    def _startup_seconds(self, transport: str) -> float:
        seconds = self.settings.startup_timeout
        if seconds is None:
            program = os.path.basename(self.settings.command or "").removesuffix(".cmd")
            slow = self.settings.image is not None or program in SLOW_COMMANDS
            seconds = SLOW_STARTUP_SECONDS if slow and transport == "stdio" else STARTUP_SECONDS
        # A slow start that is cut off begins from nothing: give the next one more time (S9).
        return seconds * float(min(2**self._attempts.timeouts, 4))

    def _too_slow(self, seconds: float) -> SourceTimeout:
        words = f"did not connect and list its tools within {seconds:g} s"
        last = self._channel.stderr[-1] if self._channel and self._channel.stderr else None
        return SourceTimeout(self.name, f"{words}; its last words: {last}" if last else words)

    # How it is.

    def _connected(self, session: Session) -> None:
        self._attempts.timeouts = 0
        self._found.transport = session.channel.transport
        if self._found.era == "auto":
            self._found.era = "2026-07-28" if session.modern else "legacy"
        self.capabilities = session.capabilities
        self.server_info = session.server_info
        self.instructions = session.instructions
        self.protocol_version = session.protocol_version
        self._session = session
        self._attempts.under_way = False
        logger.info(
            "%s: connected (%s, %s), %d tools",
            self.name,
            session.channel.transport,
            session.protocol_version,
            len(self.tools),
        )
        self._become(State.CONNECTED, None)
        self._settled.set()

    def _lost(self) -> None:
        channel = self._channel
        reason = channel.reason if channel else "the connection ended"
        logger.warning("%s: connection lost: %s", self.name, reason)
        if channel is not None and channel.needs_auth:
            self._become(State.NEEDS_AUTH, reason)
        else:
            self._become(State.DEGRADED, reason)

    def _failed(self, exc: Exception) -> None:
        error = in_words(exc)
        level = logging.WARNING if error != self._error else logging.DEBUG
        logger.log(level, "%s: not connected: %s", self.name, error)
        self._attempts.under_way = False
        self._attempts.failures += 1
        self._attempts.failed_at = time.monotonic()
        needs_auth = isinstance(exc, NeedsAuth) or bool(self._channel and self._channel.needs_auth)
        if needs_auth:
            state = State.NEEDS_AUTH
        else:
            state = State.FAILED if self._listed_at is None else State.DEGRADED
            self._forget_guesses(exc)
        self._become(state, error)
        self._settled.set()

    def _forget_guesses(self, exc: Exception) -> None:
        """A server that answers, but otherwise than remembered, may have become another one."""
        if isinstance(exc, SourceRefused | SourceTimeout):
            self._found.era = self.settings.protocol
            self._found.transport = None

    def _become(self, state: State, error: str | None) -> None:
        changed = state is not self.state or error != self._error
        if state is not self.state:
            self._since = time.time()
        self.state, self._error = state, error
        self._tell()
        if changed:
            self._on_change("state")

    def _tell(self) -> None:
        """Wake everybody who waits for a change."""
        event, self._change = self._change, anyio.Event()
        event.set()

    async def _back_off(self, *, stable: bool) -> None:
        if stable:
            self._attempts.number = 0
            return
        number = self._attempts.number
        seconds = LOGIN_SECONDS if self.state is State.NEEDS_AUTH else wait_before(number)
        self._attempts.next_at = time.monotonic() + seconds
        with anyio.move_on_after(seconds):
            await self._nudge.wait()
        self._attempts.next_at = None

    # What it has.

    async def _list_everything(self, session: Session, patience: Patience) -> None:
        self._stale.clear()
        await self._list_tools(session, patience)
        await self._list_prompts(session, patience)
        await self._list_resources(session, patience)
        await self._watch_again(session, patience)

    async def _list_tools(self, session: Session, patience: Patience) -> None:
        """A server whose tools cannot be listed is not connected (S6)."""
        try:
            items = await session.pages("tools/list", "tools", patience)
        except SourceRefused as exc:
            if exc.rpc_code != METHOD_NOT_FOUND or "tools" in session.capabilities:
                raise
            items = []  # a server of prompts or resources only
        listing = read_tools(self.name, items)
        refused = session.learn_parameter_headers([tool.definition for tool in listing.tools])
        usable = tuple(tool for tool in listing.tools if tool.name not in refused)
        listing = Listing(usable, (*listing.skipped, *refused.items()))
        listing, unmatched = chosen(listing, self.settings.include, self.settings.exclude)
        self._take_tools(listing, unmatched)

    def _take_tools(self, listing: Listing, unmatched: list[str]) -> None:
        before, self._listing = self._listing, listing
        first, self._listed_at = self._listed_at is None, time.time()
        if listing.skipped != before.skipped:
            for name, reason in listing.skipped:
                logger.warning("%s: tool %s is left out: %s", self.name, name, reason)
        for pattern in unmatched if first else ():
            logger.warning('%s: "include" pattern %s matches no tool', self.name, pattern)
        self._by_name = {tool.name: tool for tool in listing.tools}
        if listing.tools != before.tools:
            if not first:
                change = difference(before.tools, listing.tools) or "order"
                logger.info("%s: tools: %s", self.name, change)
            self._on_change(TOOLS)

    async def _list_prompts(self, session: Session, patience: Patience) -> None:
        found: tuple[Json, ...] = ()
        if PROMPTS in session.capabilities:
            kept = await self._optional(session, "prompts/list", "prompts", patience)
            found = self.prompts if kept is None else objects(kept, "name")
        if found != self.prompts:
            self.prompts = found
            self._on_change(PROMPTS)

    async def _list_resources(self, session: Session, patience: Patience) -> None:
        resources: tuple[Json, ...] = ()
        templates: tuple[Json, ...] = ()
        if RESOURCES in session.capabilities:
            kept = await self._optional(session, "resources/list", "resources", patience)
            resources = self.resources if kept is None else objects(kept, "uri")
            kept = await self._optional(
                session, "resources/templates/list", "resourceTemplates", patience
            )
            templates = self.resource_templates if kept is None else objects(kept, "uriTemplate")
        if (resources, templates) != (self.resources, self.resource_templates):
            self.resources, self.resource_templates = resources, templates
            self._on_change(RESOURCES)

    async def _optional(
        self, session: Session, method: str, key: str, patience: Patience
    ) -> list[object] | None:
        """A list that a server may fail at; None keeps what is there."""
        try:
            return await session.pages(method, key, patience)
        except SourceRefused as exc:
            if exc.rpc_code == METHOD_NOT_FOUND:
                return []
            logger.warning("%s: %s failed: %s", self.name, method, exc.message)
        except SourceTimeout as exc:
            logger.warning("%s: %s failed: %s", self.name, method, exc.message)
        return None

    # How it stays fresh.

    def _noticed(self, method: str, params: Json) -> None:
        if method in CHANGED:
            self._outdated(CHANGED[method])
        elif method == ACKNOWLEDGED:
            self._wishes.acknowledged.set()
        if not method.startswith(ANNOUNCED):
            return
        for listener in tuple(self._listeners):
            try:
                listener(method, params)
            except Exception:  # boundary: a listener must not end the connection
                logger.exception("%s: a listener of %s failed", self.name, method)

    def _outdated(self, *kinds: str) -> None:
        self._stale.update(kinds)
        self._stale_now.set()

    async def _keep_lists_fresh(self, session: Session) -> None:
        patience = Patience(self.settings.timeout, self.settings.timeout)
        refreshes: dict[str, Callable[[Session, Patience], Awaitable[None]]] = {
            TOOLS: self._list_tools,
            PROMPTS: self._list_prompts,
            RESOURCES: self._list_resources,
        }
        while True:
            await self._stale_now.wait()
            await anyio.sleep(DEBOUNCE_SECONDS)  # servers announce each tool of a bunch
            self._stale_now = anyio.Event()
            kinds, self._stale = self._stale, set()
            for kind in sorted(kinds):
                await self._refresh(session, kind, refreshes[kind](session, patience))

    async def _refresh(self, session: Session, kind: str, work: Awaitable[None]) -> None:
        try:
            await work
        except SourceRefused as exc:
            logger.warning("%s: the old %s stay: %s", self.name, kind, exc.message)
        except SourceError as exc:
            session.channel.fail(f"listing its {kind} failed: {exc.message}")

    async def _listen(self, session: Session) -> None:
        """Hold a subscription open on a server of the new era, and open it again when it ends."""
        tries = 0
        while True:
            wanted, self._wishes.changed = self._wanted(session), anyio.Event()
            if not wanted:
                self._wishes.acknowledged.set()
                await self._wishes.changed.wait()
                continue
            began = time.monotonic()
            try:
                await self._listen_once(session, wanted)
            except SourceRefused as exc:
                logger.info("%s: announces no changes: %s", self.name, exc.message)
                self._wishes.acknowledged.set()
                return
            except SourceUnavailable as exc:
                session.channel.fail(exc.message)
                return
            except SourceError as exc:
                logger.debug("%s: the subscription broke: %s", self.name, exc.message)
            if not self._wishes.changed.is_set():
                tries = 0 if time.monotonic() - began > STABLE_SECONDS else tries + 1
                await anyio.sleep(wait_before(tries))
            self._outdated(TOOLS, PROMPTS, RESOURCES)  # what changed meanwhile was not announced

    async def _listen_once(self, session: Session, wanted: Json) -> None:
        """Until the server ends it, or other resources are to be watched."""

        async def stop_for_another() -> None:
            await self._wishes.changed.wait()
            tasks.cancel_scope.cancel()

        with _one_error(self.name):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(stop_for_another)
                await session.listen(wanted)
                tasks.cancel_scope.cancel()

    def _wanted(self, session: Session) -> Json:
        wanted: Json = {
            f"{kind}ListChanged": True
            for kind in (TOOLS, PROMPTS, RESOURCES)
            if isinstance(part := session.capabilities.get(kind), dict) and part.get("listChanged")
        }
        if self._wishes.uris:
            wanted["resourceSubscriptions"] = list(self._wishes.uris)
        return wanted

    def _translated_request(self, session: Session, method: str, params: Json) -> Json | None:
        """The answer to a request that the new era has replaced by something else."""
        match method:
            case "ping":
                return {}
            case "logging/setLevel":
                self._watch(method, params)
                session.log_level = self._wishes.log_level
                return {}
            case "resources/subscribe" | "resources/unsubscribe":
                self._watch(method, params)
                self._wishes.changed.set()
                return {}
            case _:
                return None

    def _watch(self, method: str, params: Json) -> None:
        """Remember subscriptions and the log level, to renew them after a reconnect."""
        if method == "logging/setLevel":
            level = params.get("level")
            self._wishes.log_level = level if isinstance(level, str) else None
        uri = params.get("uri")
        if not isinstance(uri, str):
            return
        if method == "resources/subscribe":
            self._wishes.uris[uri] = None
        elif method == "resources/unsubscribe":
            self._wishes.uris.pop(uri, None)

    async def _watch_again(self, session: Session, patience: Patience) -> None:
        session.log_level = self._wishes.log_level
        if session.modern:
            return
        wanted: list[tuple[str, Json]] = []
        wanted += [("resources/subscribe", {"uri": uri}) for uri in self._wishes.uris]
        if self._wishes.log_level is not None:
            wanted.append(("logging/setLevel", {"level": self._wishes.log_level}))
        for method, params in wanted:
            try:
                await session.request(method, params, None, patience)
            except SourceRefused as exc:
                logger.warning("%s: %s %s failed: %s", self.name, method, params, exc.message)


def wait_before(attempt: int) -> float:
    """Seconds until the next attempt, when so many have failed."""
    return backoff(attempt, first=FIRST_WAIT, longest=LONGEST_WAIT)


def patience_of(timeout: float, settings: McpServer) -> Patience:
    return Patience(timeout, max(timeout, settings.max_timeout))


def not_repeated(exc: SourceUnavailable) -> OutcomeUnknown:
    """What is said of a call that may have taken effect, and could not be sent again."""
    words = f"{exc.message}; whether the call took effect before is unknown"
    return OutcomeUnknown(exc.source, words)


def in_words(exc: BaseException) -> str:
    """Why a connection failed, for a person."""
    match exc:
        case BridgeError():
            return exc.message
        case _:
            return f"{type(exc).__name__}: {exc}"


@contextmanager
def _one_error(name: str) -> Iterator[None]:
    """Task groups wrap what goes wrong in groups; let the one that tells most come out alone."""
    try:
        yield
    except ExceptionGroup as group:
        leaves = list(_leaves(group))
        for leaf in leaves:
            if isinstance(leaf, SourceError):
                raise leaf from None
        raise translated(name, leaves[0]) from None
    except OSError as exc:
        raise translated(name, exc) from exc


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc


def translated(name: str, exc: BaseException) -> BaseException:
    """A failure of the libraries below as a SourceError; what is none of theirs stays as it is."""
    match exc:
        case OSError():
            return SourceUnavailable(name, exc.strerror or type(exc).__name__)
        case _:
            return exc
