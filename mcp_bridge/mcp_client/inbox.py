"""What a server sends of its own accord, whatever carries it: requests and notifications.

A request is answered in a task of its own, in the context in which its message was taken: on HTTP
that is the call whose answer it came with. Notifications are offered first, in the order of the
wire, to who must not wait; the others are handled in tasks, too.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
from mcp.shared.dispatcher import (
    CallOptions,
    DispatchContext,
    OnNotify,
    OnNotifyIntercept,
    OnRequest,
    Outbound,
    run_notify_intercept,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import MessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, RequestId

from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_client.jsonrpc import Id, as_id, key_of
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

EARLY_MESSAGES = 100
"""Messages kept from a server that talks before it is listened to."""


@dataclass(slots=True)
class Inbound:
    """What surrounds a message from the server (the SDK's `DispatchContext`)."""

    peer: Outbound
    request_id: RequestId | None
    transport: TransportContext = field(
        default_factory=lambda: TransportContext(kind="peer", can_send_request=True)
    )
    message_metadata: MessageMetadata = None
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)
    can_send_request: bool = True

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> Json:
        return await self.peer.send_raw_request(method, params, opts)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        await self.peer.notify(method, params, opts)

    async def progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        """Progress of our answers is not reported: nothing we answer asks for it."""


@dataclass(frozen=True, slots=True)
class _Handlers:
    on_request: OnRequest
    on_notify: OnNotify
    intercept: OnNotifyIntercept | None
    tasks: anyio.abc.TaskGroup


class Inbox:
    """Takes a server's messages, and hands them on while it is run."""

    def __init__(self, name: str, peer: Outbound, reply: Callable[[Json], Awaitable[None]]) -> None:
        """`reply` sends our answer to a request; it does not raise when it cannot."""
        self._name = name
        self._peer = peer
        self._reply = reply
        self._serving: dict[Id, anyio.CancelScope] = {}
        self._handlers: _Handlers | None = None
        self._early: list[Json] = []
        self.noise = 0
        """Messages that were none and have been skipped."""

    def take(self, message: Json) -> None:
        """Take a message with a `method`. Never raises, never blocks."""
        if self._handlers is not None:
            self._handle(self._handlers, message)
        elif len(self._early) < EARLY_MESSAGES:
            self._early.append(message)

    def skip(self, text: bytes | str) -> None:
        """Count what is no message, and show its beginning."""
        if not text.strip():
            return
        self.noise += 1
        if self.noise > 1 and not logger.isEnabledFor(logging.DEBUG):
            return
        shown = text[:200].decode(errors="replace") if isinstance(text, bytes) else text[:200]
        level = logging.WARNING if self.noise == 1 else logging.DEBUG
        logger.log(level, "%s: skipped what is no MCP message: %s", self._name, shown.strip())

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        intercept: OnNotifyIntercept | None,
        closed: anyio.Event,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        """Hand on what comes, until the connection is closed."""
        async with anyio.create_task_group() as tasks:
            self._handlers = _Handlers(on_request, on_notify, intercept, tasks)
            early, self._early = self._early, []
            for message in early:
                self._handle(self._handlers, message)
            task_status.started()
            try:
                await closed.wait()
            finally:
                self._handlers = None
                tasks.cancel_scope.cancel()

    def _handle(self, handlers: _Handlers, message: Json) -> None:
        method: str = message["method"]
        params = message.get("params")
        params = params if isinstance(params, dict) else None
        request_id = message.get("id")
        if isinstance(request_id, int | str):
            handlers.tasks.start_soon(self._serve, handlers, request_id, method, params)
            return
        if method == "notifications/cancelled":
            self._cancelled(as_id((params or {}).get("requestId")))
        elif not run_notify_intercept(handlers.intercept, method, params):
            handlers.tasks.start_soon(self._told, handlers, method, params)

    def _cancelled(self, request_id: Id | None) -> None:
        scope = self._serving.get(request_id) if request_id is not None else None
        if scope is not None:
            scope.cancel()

    async def _told(self, handlers: _Handlers, method: str, params: Json | None) -> None:
        try:
            await handlers.on_notify(Inbound(self._peer, None), method, params)
        except Exception:  # boundary: one bad notification must not end the connection
            logger.exception("%s: handling %s failed", self._name, method)

    async def _serve(
        self, handlers: _Handlers, request_id: RequestId, method: str, params: Json | None
    ) -> None:
        key = key_of(request_id)
        context: DispatchContext[TransportContext] = Inbound(self._peer, request_id)
        with anyio.CancelScope() as scope:
            self._serving[key] = scope
            try:
                answer = await self._answer(handlers.on_request, context, method, params)
            finally:
                self._serving.pop(key, None)
            try:
                await self._reply({"jsonrpc": "2.0", "id": request_id, **answer})
            except RequestError:  # nested too deeply: the server waits for an answer all the same
                error = {"code": INTERNAL_ERROR, "message": "the answer cannot be written as JSON"}
                await self._reply({"jsonrpc": "2.0", "id": request_id, "error": error})

    async def _answer(
        self,
        on_request: OnRequest,
        context: DispatchContext[TransportContext],
        method: str,
        params: Json | None,
    ) -> Json:
        try:
            return {"result": await on_request(context, method, params)}
        except MCPError as exc:
            return {"error": exc.error.model_dump(exclude_none=True)}
        except Exception:  # boundary: the server gets an error, and the connection goes on
            logger.exception("%s: answering %s failed", self._name, method)
            return {"error": {"code": INTERNAL_ERROR, "message": "internal error"}}
