"""The MCP client that sent a request: what it can do, and how to reach it while the request runs.

Two eras again. A client of the old era is asked through its back channel while its request runs. A
client of the new era cannot be asked: it gets the question as the result, and comes back with the
answer (parked.py).
"""

import logging
import uuid
from collections import deque
from typing import Protocol, Self

import anyio
import anyio.abc
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    INVALID_PARAMS,
    LOG_LEVEL_META_KEY,
    PROTOCOL_VERSION_META_KEY,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_bridge.clock import Clock
from mcp_bridge.errors import BridgeError, SourceRefused
from mcp_bridge.mcp_client.jsonrpc import Id
from mcp_bridge.mcp_server.session import Send, Session
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
WAITING_NOTES = 1000
"""Notes that may wait for a client that reads slowly; then the oldest are dropped."""

ENVELOPE = frozenset(
    {
        PROTOCOL_VERSION_META_KEY,
        CLIENT_INFO_META_KEY,
        CLIENT_CAPABILITIES_META_KEY,
        "progressToken",
    }
)
"""What a request's `_meta` says to us. The rest of it is for the server behind."""


class Channel(Protocol):
    """The way to a client while one of its requests runs; the SDK's contexts are such ways too."""

    @property
    def can_send_request(self) -> bool:
        """Whether it can be asked."""
        ...

    async def notify(self, method: str, params: Json) -> None:
        """Tell it something that belongs to its request."""
        ...

    async def send_raw_request(self, method: str, params: Json) -> Json:
        """Ask it something that belongs to its request, and wait for the answer.

        Raises:
            MCPError: it answered with an error, or has left.
        """
        ...


class Client:
    """The client that sent a request."""

    def __init__(
        self,
        visit: Visit,
        session: Session,
        channel: Channel,
        protocol_version: str,
        request_id: Id | None,
        params: Json,
    ) -> None:
        meta = params.get("_meta")
        self._meta: Json = meta if isinstance(meta, dict) else {}
        self._channel = channel
        self.visit = visit
        self.session = session
        self.request_id = request_id
        self.protocol_version = protocol_version
        self.modern = protocol_version in MODERN_PROTOCOL_VERSIONS
        self.scope = Clock()
        self._stopped: MCPError | None = None

    def stop(self, reason: MCPError) -> None:
        """Answer its request now, with this error."""
        self._stopped = reason
        self.scope.cancel()

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self.stop(left())

    @property
    def why_stopped(self) -> MCPError:
        """The error that the request ends with once its scope has been cancelled."""
        return self._stopped or MCPError(CONNECTION_CLOSED, "the bridge is stopping")

    @property
    def can_be_asked(self) -> bool:
        """Whether it can be asked while its request runs."""
        return self._channel.can_send_request

    @property
    def capabilities(self) -> Json:
        """What it has declared, as it was sent."""
        if not self.modern:
            return self.session.capabilities
        declared = self._meta.get(CLIENT_CAPABILITIES_META_KEY)
        return declared if isinstance(declared, dict) else {}

    @property
    def log_level(self) -> str | None:
        """The least important log messages that it wants; None: no messages."""
        if not self.modern:
            return self.session.log_level
        wanted = self._meta.get(LOG_LEVEL_META_KEY)
        return wanted if wanted in LEVELS else None

    @property
    def progress_token(self) -> str | int | None:
        token = self._meta.get("progressToken")
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None

    @property
    def meta(self) -> Json:
        """The `_meta` for the server behind."""
        meta = {key: value for key, value in self._meta.items() if key not in ENVELOPE}
        if (level := self.log_level) is not None:
            meta[LOG_LEVEL_META_KEY] = level
        return meta

    async def notify(self, method: str, params: Json) -> None:
        """Send a notification that belongs to the request."""
        await self._channel.notify(method, params)

    async def ask(self, method: str, params: Json) -> Json:
        """Send a request that belongs to the client's own, and wait for the answer.

        Raises:
            SourceRefused: the client answered with an error, or has left.
        """
        try:
            return await self._channel.send_raw_request(method, params)
        except MCPError as exc:
            code, message, data = exc.error.code, exc.error.message, exc.error.data
            raise SourceRefused("the client", message, rpc_code=code, data=data) from exc


def left() -> MCPError:
    return MCPError(CONNECTION_CLOSED, "the client has left")


class Outbox:
    """Notifications on their way to a client, in order. Nobody here waits for it to read them."""

    def __init__(self, send: Send | None, tasks: anyio.abc.TaskGroup) -> None:
        self._send = send
        self._tasks = tasks
        self._notes: deque[tuple[str, Json]] = deque(maxlen=WAITING_NOTES)
        self._sending = False
        self._sent: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    def put(self, method: str, params: Json) -> None:
        self._notes.append((method, params))
        self._start()

    def _start(self) -> None:
        if self._notes and self._send is not None and not self._sending:
            self._sending = True
            self._scope = anyio.CancelScope()
            self._tasks.start_soon(self._send_all, self._scope)

    async def _send_all(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                while self._notes and self._send is not None:
                    method, params = self._notes.popleft()
                    try:
                        await self._send(method, params)
                    except MCPError as exc:  # one that cannot be sent holds up no other
                        logger.warning("%s is not told: %s", method, exc.error.message)
        finally:
            self._sending, self._scope = False, None  # an idle client holds no more than it must
            if self._sent is not None:
                self._sent.set()

    async def flush(self) -> None:
        """Return when everything has been sent."""
        while self._sending:
            self._sent = anyio.Event()
            await self._sent.wait()

    def close(self) -> None:
        """Nobody listens any more."""
        self._send = None
        self._notes.clear()
        if self._scope is not None:
            self._scope.cancel()


class CallOutbox(Outbox):
    """What a client is told while its request runs: all of it before the answer."""

    def __init__(self, client: Client, tasks: anyio.abc.TaskGroup) -> None:
        super().__init__(client.notify, tasks)
        self._client = client

    def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Say how far the request is, if the client wants to know."""
        token = self._client.progress_token
        if token is None:
            return
        params: Json = {"progressToken": token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        self.put("notifications/progress", params)

    def log(self, params: Json) -> None:
        """Hand on a log message, if it is important enough."""
        if important(params.get("level"), self._client.log_level):
            self.put("notifications/message", params)

    def pause(self) -> None:
        """The request has ended before the call: nobody listens until it comes back."""
        self._send = None

    def turn_to(self, client: Client) -> None:
        """From now on, tell the client of this request."""
        self._client, self._send = client, client.notify
        self._start()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> None:
        """Everything that was told is sent before the answer, be it a result or an error."""
        try:
            if exc is None or isinstance(exc, MCPError | BridgeError):
                await self.flush()
        finally:
            self.close()


def important(level: object, wanted: str | None) -> bool:
    """Whether a message of this level is for a client that wants `wanted` and above."""
    if wanted is None:
        return False
    return level not in LEVELS or LEVELS.index(str(level)) >= LEVELS.index(wanted)


def why_not(capabilities: Json, method: str, params: Json) -> str | None:
    """Why a client of these capabilities cannot be asked this; None: it can."""
    part = {
        "sampling/createMessage": "sampling",
        "elicitation/create": "elicitation",
        "roots/list": "roots",
    }.get(method)
    declared = capabilities.get(part or "")
    if not isinstance(declared, dict):
        return f"the client does not offer {part or method}"
    if part == "sampling" and (params.get("tools") or params.get("toolChoice")):
        return None if "tools" in declared else "the client does not offer tools in sampling"
    if part == "elicitation":
        mode = str(params.get("mode", "form"))
        modes = {"form", *declared} if "url" not in declared else set(declared)
        return None if mode in modes else f"the client does not offer elicitation by {mode}"
    return None


def refuse_what_it_cannot(source: str, capabilities: Json, method: str, params: Json) -> None:
    """Raises:
    SourceRefused: the client cannot be asked this.
    """
    if (reason := why_not(capabilities, method, params)) is not None:
        raise SourceRefused(source, f"{source} asked: {reason}", rpc_code=INVALID_PARAMS)


class Asking:
    """Answers a server's questions by asking the client of the old era (an `Answerer`)."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def capabilities(self) -> Json:
        return self._client.capabilities if self._client.can_be_asked else {}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        refuse_what_it_cannot(source, self.capabilities(), method, params)
        params = without_token(params)
        if params.get("mode") == "url":  # the new era has no such id, the old one requires it
            params.setdefault("elicitationId", str(uuid.uuid4()))
            self._client.session.elicitations.add(params["elicitationId"])
        return await self._client.ask(method, params)


class Declaring:
    """Tells a server of the new era what the client can do; its questions are handed back."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def capabilities(self) -> Json:
        return self._client.capabilities

    async def answer(self, source: str, method: str, params: Json) -> Json:
        raise SourceRefused(
            source, "the client cannot be asked while its call runs", rpc_code=INVALID_PARAMS
        )


def without_token(params: Json) -> Json:
    """A question without the server's progress token: answers report no progress."""
    return without_meta(params, "progressToken")


def without_meta(params: Json, key: str) -> Json:
    """A copy of params without one key of their `_meta`."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or key not in meta:
        return dict(params)
    kept = {name: value for name, value in meta.items() if name != key}
    rest = {name: value for name, value in params.items() if name != "_meta"}
    return {**rest, "_meta": kept} if kept else rest
