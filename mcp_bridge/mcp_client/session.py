"""An MCP session on raw JSON: era negotiation, requests with a clock, and what servers ask back.

Two eras. The old one shakes hands (`initialize`) and lets the server send requests; the new one
(2026-07-28) puts an envelope on each request and answers `input_required` when it needs something.
Whoever uses a Session need not know which it is.
"""

import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any, Literal

import anyio
import anyio.abc
from mcp.shared.dispatcher import CallOptions, DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.transport_context import TransportContext
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    INTERNAL_ERROR,
    LOG_LEVEL_META_KEY,
    METHOD_NOT_FOUND,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from mcp_bridge.clock import Clocks
from mcp_bridge.errors import (
    BridgeError,
    OutcomeUnknown,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.mcp_client.channel import Channel, NeedsAuth, ProbeKilled, WrongTransport
from mcp_bridge.mcp_client.exchange import CURRENT, ENDLESS, Exchange, Patience
from mcp_bridge.mcp_client.jsonrpc import ConnectionLost, ForeignContent, StandIn
from mcp_bridge.tools.source import Answerer, CallContext
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

Era = Literal["auto", "legacy", "2026-07-28"]
OnNotification = Callable[[str, Json], None]

MAX_PAGES = 1000
MAX_INPUT_ROUNDS = 10
ASKED = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""What a server may ask for, and the capability that answering it takes."""

NOT_CANCELLED = frozenset({"initialize", "server/discover"})
"""With these a session begins; the protocol has no `notifications/cancelled` for the first."""

WRONG_TRANSPORT_STATUS = frozenset({400, 404, 405, 406, 415, 422, 501})
LOG_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "notice": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "alert": logging.CRITICAL,
    "emergency": logging.CRITICAL,
}


class Declined(SourceRefused):
    """The server asked for something that this caller cannot give."""


def client_info() -> Json:
    """How the bridge introduces itself."""
    return {"name": "mcp-bridge", "version": own_version()}


@cache  # it is read from a file, which leaves circles of objects
def own_version() -> str:
    try:
        return version("mcp-bridge")
    except PackageNotFoundError:
        return "0"


class Session:
    """One session with one server, over any dispatcher."""

    def __init__(
        self,
        name: str,
        channel: Channel,
        *,
        answers: Json,
        default_answerer: Answerer | None,
        on_notification: OnNotification,
    ) -> None:
        self._name = name
        self._answers = answers
        self._default_answerer = default_answerer
        self._on_notification = on_notification
        self._clocks = Clocks()
        self._tokens = count(1)
        self._listens = count(1)
        self._info = client_info()
        self._parameter_headers: dict[str, Mapping[tuple[str, ...], str]] = {}
        self.channel = channel
        self.exchanges: dict[int, Exchange] = {}
        self.modern = False
        self.protocol_version: str | None = None
        self.capabilities: Json = {}
        self.server_info: Json = {}
        self.instructions: str | None = None
        self.log_level: str | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator["Session"]:
        """Serve the server's messages while the session is used."""
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._run)
                try:
                    yield self
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            self._clocks.stop()

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        await self.channel.dispatcher.run(
            self._asked, self._told, self._noticed, task_status=task_status
        )
        self.channel.fail("the server closed the connection")

    # Which protocol.

    async def negotiate(self, era: Era, patience: Patience, probe: Patience) -> None:
        """Agree with the server on a protocol version.

        Raises:
            SourceError: it does not speak MCP, or no version that we do.
        """
        if era == "legacy" or (era == "auto" and not await self._probe(probe)):
            await self._shake_hands(patience, may_be_modern=era == "auto")
        elif era != "auto":
            self._adopt(await self._discover(LATEST_MODERN_VERSION, patience))

    async def _probe(self, patience: Patience) -> bool:
        """Whether the server speaks the new protocol. Anything but a proof of it means no."""
        try:
            found = await self._discover(LATEST_MODERN_VERSION, patience)
        except SourceRefused as exc:
            if exc.rpc_code != UNSUPPORTED_PROTOCOL_VERSION:
                return False
            return await self._probe_again(exc, patience)
        except SourceTimeout:
            return False
        except OutcomeUnknown as exc:
            if self.channel.is_http:
                return False  # a proxy or an old server may drop what it does not know
            raise ProbeKilled(self._name, exc.message) from exc
        return self._adopt_if_modern(found)

    async def _probe_again(self, refusal: SourceRefused, patience: Patience) -> bool:
        supported = _supported(refusal.data)
        mutual = [v for v in MODERN_PROTOCOL_VERSIONS if v in supported]
        if mutual:
            return self._adopt_if_modern(await self._discover(mutual[-1], patience))
        if supported and not any(v in HANDSHAKE_PROTOCOL_VERSIONS for v in supported):
            raise refusal  # it speaks newer protocols only
        return False

    async def _discover(self, protocol: str, patience: Patience) -> Json:
        self.modern, self.protocol_version = True, protocol
        try:
            return await self.request("server/discover", {}, None, patience)
        finally:
            self.modern, self.protocol_version = False, None

    def _adopt_if_modern(self, found: Json) -> bool:
        if not any(v in MODERN_PROTOCOL_VERSIONS for v in _strings(found.get("supportedVersions"))):
            return False
        self._adopt(found)
        return True

    def _adopt(self, found: Json) -> None:
        supported = _strings(found.get("supportedVersions"))
        mutual = [v for v in MODERN_PROTOCOL_VERSIONS if v in supported]
        if not mutual:
            raise SourceUnavailable(self._name, f"speaks only the protocols {supported}")
        self.modern, self.protocol_version = True, mutual[-1]
        meta = _object(found.get("_meta"))
        self.server_info = _object(meta.get(SERVER_INFO_META_KEY))
        self._describe(found)

    def _describe(self, found: Json) -> None:
        self.capabilities = _object(found.get("capabilities"))
        instructions = found.get("instructions")
        self.instructions = instructions if isinstance(instructions, str) else None

    async def _shake_hands(self, patience: Patience, *, may_be_modern: bool) -> None:
        params = {
            "protocolVersion": LATEST_HANDSHAKE_VERSION,
            "capabilities": self._answers,
            "clientInfo": self._info,
        }
        try:
            found = await self.request("initialize", params, None, patience)
        except SourceRefused as exc:
            if may_be_modern and exc.rpc_code == UNSUPPORTED_PROTOCOL_VERSION:
                # It started slowly, answered our probe too late, and is now in the new era.
                if await self._probe_again(exc, patience):
                    return
            elif self._speaks_otherwise(exc):
                raise WrongTransport(self._name, exc.message) from exc
            raise
        self._accept(found.get("protocolVersion"))
        self.server_info = _object(found.get("serverInfo"))
        self._describe(found)
        await self.notify("notifications/initialized")

    def _speaks_otherwise(self, refusal: SourceRefused) -> bool:
        if not self.channel.is_http:
            return False
        foreign = isinstance(refusal.__cause__, ForeignContent)
        return foreign or self.channel.status in WRONG_TRANSPORT_STATUS

    def _accept(self, offered: object) -> None:
        if not isinstance(offered, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d.*", offered):
            raise SourceUnavailable(
                self._name, f"answered initialize with protocol version {offered!r}"
            )
        if offered not in HANDSHAKE_PROTOCOL_VERSIONS:
            logger.warning("%s: unknown protocol version %s, going on", self._name, offered)
        self.protocol_version = offered

    # Requests.

    async def notify(self, method: str, params: Json | None = None) -> None:
        """Send a notification."""
        opts: CallOptions = {}
        if self.protocol_version is not None:
            opts["headers"] = {MCP_PROTOCOL_VERSION_HEADER: self.protocol_version}
        await self.channel.dispatcher.notify(method, params, opts)

    async def request(
        self, method: str, params: Json, context: CallContext | None, patience: Patience
    ) -> Json:
        """Send one request and return its raw result.

        Raises:
            SourceError: see the classes; it says whether the request may have taken effect.
        """
        number = next(self._tokens)
        exchange = Exchange(context, patience, self._clocks)
        params, opts = self._stamped(method, params, context, number)
        before = CURRENT.set(exchange)
        self.exchanges[number] = exchange
        try:
            with exchange:
                return await self.channel.dispatcher.send_raw_request(method, params, opts)
            raise self._unanswered(method, exchange)
        except MCPError as exc:
            raise self._translated(exc, exchange) from exc
        finally:
            exchange.finish()
            del self.exchanges[number]
            CURRENT.reset(before)

    def _unanswered(self, method: str, exchange: Exchange) -> MCPError | SourceError:
        """Why the clock of an exchange has ended it."""
        if exchange.broken is not None:
            return ConnectionLost(exchange.broken)
        in_time = exchange.time_it_had
        if not exchange.sent and not self.channel.is_http:
            return SourceUnavailable(
                self._name, f"{self._name} has not read its input {in_time}; nothing was sent"
            )
        return SourceTimeout(
            self._name, f"{self._name} did not answer {method} {in_time}; it was cancelled"
        )

    def _stamped(
        self, method: str, params: Json, context: CallContext | None, number: int
    ) -> tuple[Json, CallOptions]:
        """The params with their envelope, and what the transport is told."""
        opts: CallOptions = {}
        meta: Json = _object(params["_meta"]) if "_meta" in params else {}
        if context is not None:
            meta = {**meta, **context.meta, "progressToken": number}
        if self.modern:
            meta = meta | self._envelope(context)
        if method in NOT_CANCELLED:
            opts["cancel_on_abandon"] = False
        if self.channel.is_http:
            opts["headers"] = self._headers(method, params)
        return ({**params, "_meta": meta} if meta else params), opts

    def _headers(self, method: str, params: Json) -> dict[str, str]:
        if self.modern:
            return self._modern_headers(method, params)
        version = self.protocol_version
        return {} if version is None else {MCP_PROTOCOL_VERSION_HEADER: version}

    def _envelope(self, context: CallContext | None) -> Json:
        envelope: Json = {
            PROTOCOL_VERSION_META_KEY: self.protocol_version,
            CLIENT_INFO_META_KEY: self._info,
            CLIENT_CAPABILITIES_META_KEY: self._declared(context),
        }
        if context is not None and (context.on_log or self.log_level):
            wanted = context.meta.get(LOG_LEVEL_META_KEY)
            envelope[LOG_LEVEL_META_KEY] = wanted or self.log_level or "info"
        return envelope

    def _declared(self, context: CallContext | None) -> Json:
        """What can be answered while this request runs; for our own lists, what anybody can."""
        if context is None:
            return self._answers
        answerer = context.answerer or self._default_answerer
        return answerer.capabilities() if answerer else {}

    def _modern_headers(self, method: str, params: Json) -> dict[str, str]:
        version = self.protocol_version or LATEST_MODERN_VERSION
        headers = {MCP_PROTOCOL_VERSION_HEADER: version, MCP_METHOD_HEADER: method}
        key = NAME_BEARING_METHODS.get(method)
        name = params.get(key) if key else None
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
            if method == "tools/call" and name in self._parameter_headers:
                arguments = _object(params.get("arguments"))
                headers |= mcp_param_headers(self._parameter_headers[name], arguments)
        return headers

    def learn_parameter_headers(self, definitions: list[Json]) -> dict[str, str]:
        """Note which arguments go into headers. Returns the tools that must not be used."""
        if not self.modern:
            return {}
        refused: dict[str, str] = {}
        self._parameter_headers = {}
        for definition in definitions:
            name, schema = definition["name"], definition.get("inputSchema")
            if (problem := find_invalid_x_mcp_header(schema)) is not None:
                refused[name] = f"invalid x-mcp-header: {problem}"
            elif headers := x_mcp_header_map(schema):
                self._parameter_headers[name] = headers
        return refused

    def _translated(self, exc: MCPError, exchange: Exchange) -> SourceError:
        """A protocol-level error in our words, with what it says about the outcome."""
        if exchange.status in (401, 403):
            return NeedsAuth(self._name, _login_words(self._name, exchange.status))
        if isinstance(exc, ConnectionLost):
            words = exc.error.message
            if not exchange.sent:
                return SourceUnavailable(self._name, f"{self._name} is not reachable: {words}")
            broke = f"the connection to {self._name} broke before the answer came ({words})"
            if exchange.context is not None:  # a question of our own has no effect
                broke += "; whether the call took effect is unknown"
            return OutcomeUnknown(self._name, broke)
        message = exc.error.message
        if isinstance(exc, StandIn):
            message = f"{message} (HTTP {exchange.status})"
        return SourceRefused(self._name, message, rpc_code=exc.error.code, data=exc.error.data)

    # Requests that may ask back, and lists.

    async def ask(
        self, method: str, params: Json, context: CallContext, patience: Patience
    ) -> Json:
        """Send a request, and give the server what it asks for on the way (`input_required`).

        Raises:
            Declined: it asked for something that the caller cannot give.
            SourceError: as `request`.
        """
        if context.extra:
            params = {**context.extra, **params}
        result = await self.request(method, params, context, patience)
        for _ in range(MAX_INPUT_ROUNDS):
            if context.hands_back or result.get("resultType") != "input_required":
                return result
            extra = await self._inputs(result, context, patience)
            result = await self.request(method, params | extra, context, patience)
        if result.get("resultType") != "input_required":
            return result
        raise Declined(
            self._name,
            f"{self._name} asked for more input {MAX_INPUT_ROUNDS} times and was stopped",
            rpc_code=INTERNAL_ERROR,
        )

    async def _inputs(self, result: Json, context: CallContext, patience: Patience) -> Json:
        """The fields that the retry carries: one answer for each question, and the state."""
        extra: Json = {}
        if "requestState" in result:
            extra["requestState"] = result["requestState"]
        questions = _object(result.get("inputRequests"))
        if not questions:
            await anyio.sleep(0.1)  # "not yet": the server polls us through the state
            return extra
        answers: Json = {}
        try:
            with anyio.fail_after(min(patience.maximum, context.deadline - time.monotonic())):
                for key, question in questions.items():
                    question = _object(question)
                    asked = str(question.get("method"))
                    params = _object(question.get("params"))
                    answers[key] = await self._answer(asked, params, context)
        except MCPError as exc:
            raise Declined(
                self._name, exc.error.message, rpc_code=exc.error.code, data=exc.error.data
            ) from exc
        except TimeoutError as exc:
            raise SourceTimeout(self._name, f"what {self._name} asked for came too late") from exc
        return extra | {"inputResponses": answers}

    async def pages(self, method: str, key: str, patience: Patience) -> list[Any]:
        """All items of a paginated list (S8)."""
        items: list[Any] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            params = {"cursor": cursor} if cursor else {}
            page = await self.request(method, params, None, patience)
            found = page.get(key)
            if not isinstance(found, list):
                raise SourceRefused(
                    self._name,
                    f"answered {method} without a list of {key}",
                    rpc_code=INTERNAL_ERROR,
                )
            items += found
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor:
                return items
            if cursor in seen:
                logger.warning("%s: %s repeats a cursor; stopped there", self._name, method)
                return items
            seen.add(cursor)
        logger.warning("%s: %s has over %d pages; stopped there", self._name, method, MAX_PAGES)
        return items

    async def listen(self, wanted: Json) -> None:
        """Hold a `subscriptions/listen` open until the server ends it (new era only).

        Raises:
            SourceError: it was refused, or broke.
        """
        exchange = Exchange(None, ENDLESS, self._clocks)
        params, opts = self._stamped(
            "subscriptions/listen", {"notifications": wanted}, None, next(self._tokens)
        )
        opts["request_id"] = f"listen-{next(self._listens)}"
        before = CURRENT.set(exchange)
        try:
            with exchange:
                await self.channel.dispatcher.send_raw_request("subscriptions/listen", params, opts)
            if exchange.broken is not None:
                raise ConnectionLost(exchange.broken)
        except MCPError as exc:
            raise self._translated(exc, exchange) from exc
        finally:
            CURRENT.reset(before)

    # What the server sends.

    def _noticed(self, method: str, params: Mapping[str, Any] | None) -> bool:
        """Take a notification in the order of the wire, so before the answer that it precedes."""
        content = dict(params or {})
        if method == "notifications/progress":
            self._progress(content)
            return True
        if method == "notifications/message":
            self._logged(content)
        self._on_notification(method, content)
        return True

    def _progress(self, params: Json) -> None:
        token = params.get("progressToken")
        if isinstance(token, str) and token.isdigit():
            token = int(token)
        exchange = self.exchanges.get(token) if isinstance(token, int) else None
        progress = params.get("progress")
        if exchange is None or not isinstance(progress, int | float):
            return
        exchange.rearm()
        if exchange.context is not None and exchange.context.on_progress is not None:
            total, message = params.get("total"), params.get("message")
            exchange.context.on_progress(
                progress,
                total if isinstance(total, int | float) else None,
                message if isinstance(message, str) else None,
            )

    async def _told(
        self,
        context: DispatchContext[TransportContext],
        method: str,
        params: Mapping[str, Any] | None,
    ) -> None:
        """What `_noticed` could not take: it is in the log already."""

    def _logged(self, content: Json) -> None:
        """A log message: to the call that caused it, or to our log."""
        asker = self._asker()
        if asker is not None and asker.on_log is not None:
            asker.on_log(content)
        else:
            level = LOG_LEVELS.get(str(content.get("level")), logging.INFO)
            logger.log(level, "%s: %s", self._name, str(content.get("data"))[:2000])

    def _asker(self) -> CallContext | None:
        """Whose call made the server speak. On one shared pipe only a single call tells."""
        current = CURRENT.get()
        if current is not None and current.context is not None:
            return current.context
        exchange = self._only()
        return exchange.context if exchange else None

    def _only(self) -> Exchange | None:
        calls = [e for e in self.exchanges.values() if e.context is not None]
        return calls[0] if len(calls) == 1 else None

    async def _asked(
        self,
        context: DispatchContext[TransportContext],
        method: str,
        params: Mapping[str, Any] | None,
    ) -> Json:
        """Answer a request of the server, at once when nobody can (T5)."""
        if method == "ping":
            return {}
        current = CURRENT.get()
        exchange = current if current is not None and current.context else self._only()
        if exchange is None:
            return await self._answer(method, dict(params or {}), None)
        with exchange.answering():
            return await self._answer(method, dict(params or {}), exchange.context)
        raise MCPError(INTERNAL_ERROR, "the call that this belongs to has ended")

    async def _answer(self, method: str, params: Json, context: CallContext | None) -> Json:
        capability = ASKED.get(method)
        if capability is None:
            raise MCPError(METHOD_NOT_FOUND, f"the bridge has no method {method!r}")
        answerer = (context.answerer if context else None) or self._default_answerer
        if answerer is None or capability not in answerer.capabilities():
            raise MCPError(
                METHOD_NOT_FOUND,
                f"{self._name} asked for {method}, which the caller cannot answer",
            )
        try:
            return await answerer.answer(self._name, method, params)
        except SourceRefused as exc:
            raise MCPError(exc.rpc_code, exc.message, exc.data) from exc
        except BridgeError as exc:
            raise MCPError(INTERNAL_ERROR, exc.message) from exc


def _login_words(name: str, status: int) -> str:
    words = "asks for a login" if status == 401 else "does not allow this"
    return f"{name} {words} (HTTP {status}); check its headers in mcp_servers.{name}"


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _strings(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _supported(data: Any) -> list[str]:
    return _strings(_object(data).get("supported"))
