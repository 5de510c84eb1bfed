"""MCP servers over streamable HTTP: a dispatcher in which a request is one POST.

Theory of operation. A request is written once and POSTed in the task of its caller, who also reads
the answer: no stream, no task and no clock between them, for the Exchange has a clock.

    POST → JSON           the answer
         → events         what the server says meanwhile goes to the inbox, until the answer comes;
                          a stream that ended before is taken up again where it was
         → refused        the error in the body, or one that is made of the status

What goes wrong concerns that request alone. Only what says that the session or our login is gone
fails the channel. When the channel is left, the exchanges that are open are broken off.

The old era has a session: its id comes with the answer to `initialize` and is in the headers of all
that follows. A GET holds a stream open for what belongs to no call, and a DELETE ends the session
when we leave. Of a call that is left the server is told. A server that gives its events ids may end
any stream when it likes, and have us ask again (`Last-Event-ID`, SEP-1699).

The new era has none of this: what it wants in headers comes with each request, and to close a POST
is to cancel it.

An answer belongs to the POST that it came with, so an id that nobody knows is forgiven. An id of
another request of ours is not: it would give one caller what is meant for another.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
from mcp.shared.dispatcher import CallOptions, Dispatcher, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, RequestId
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from mcp_bridge.config.settings import McpServer
from mcp_bridge.exact import decode, encode
from mcp_bridge.mcp_client.channel import Channel
from mcp_bridge.mcp_client.events import Event, EventReader
from mcp_bridge.mcp_client.exchange import CURRENT, ENDLESS, Exchange
from mcp_bridge.mcp_client.http import Client, Reply, Unsent, opened, place
from mcp_bridge.mcp_client.inbox import Inbox
from mcp_bridge.mcp_client.jsonrpc import (
    ConnectionLost,
    ForeignContent,
    Id,
    StandIn,
    as_id,
    key_of,
    outcome,
)
from mcp_bridge.sse import BOM
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

SESSION = "mcp-session-id"
LAST_EVENT_ID = "last-event-id"
POSTED = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
LISTENING = {"accept": "text/event-stream", "cache-control": "no-store"}

LEAVE_SECONDS = 2.0
HEAR_OUT_SECONDS = 1.0
CANCEL_SECONDS = 1.0
REOPEN_SECONDS = 1.0
"""Before a stream is opened again, when the server does not say."""

MAX_REOPEN_SECONDS = 60.0
SHORT_STREAM_SECONDS = 5.0
SHORT_STREAMS = 2
"""So many streams that end at once are accident; more of them are slowed down (T2)."""

MAX_FAILURES = 2
"""So often in a row a stream is refused before we give it up."""


class Refused(Exception):
    """The server opens no event stream."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


@dataclass(slots=True)
class Call:
    """A request in flight, as it is on the wire."""

    id: RequestId
    key: Id
    exchange: Exchange
    modern: bool


class Pace:
    """How long to wait before a stream that has ended is opened again."""

    def __init__(self) -> None:
        self._short = 0

    def seconds(self, retry: float | None, *, useful: bool) -> float:
        """`retry` is what the server asks for; `useful` that the stream has not ended at once."""
        self._short = 0 if useful else self._short + 1
        wanted = REOPEN_SECONDS if retry is None else retry
        if self._short <= SHORT_STREAMS or (retry is not None and retry >= REOPEN_SECONDS):
            return wanted
        return min(MAX_REOPEN_SECONDS, 2.0 ** (self._short - SHORT_STREAMS))


class Streamable(Dispatcher[TransportContext]):
    """The dispatcher of one channel."""

    def __init__(self, name: str, client: Client, tasks: anyio.abc.TaskGroup) -> None:
        self._name = name
        self._client = client
        self._tasks = tasks
        self._inbox = Inbox(name, self, self._tell)
        self._posted = client.headers(POSTED)
        self._listening = client.headers(LISTENING)
        self._session_id: str | None = None
        self._version: str | None = None
        self._last_id = 0
        self._open: set[Exchange] = set()
        self._one_is_over = anyio.Event()
        self._closed = anyio.Event()
        self._reason = ""
        self.channel = Channel("http", self, is_http=True, noise=lambda: self._inbox.noise)

    # What we ask the server.

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> Json:
        """POST a request and return its result. Its time is kept by who asks.

        Raises:
            MCPError: the server answered with an error, or with what is no answer.
            ConnectionLost: the connection ended first.
        """
        if self._closed.is_set():
            raise ConnectionLost(self._reason)
        options: CallOptions = opts or {}
        headers = self._headers(method, options.get("headers") or {})
        call = self._call(options)
        message: Json = {"jsonrpc": "2.0", "id": call.id, "method": method}
        if params:
            message["params"] = params
        self._open.add(call.exchange)
        try:
            answer = await self._asked(call, method, headers, encode(message))
        except asyncio.CancelledError:
            self._abandon(call, options)
            raise
        finally:
            self._open.discard(call.exchange)
            self._one_is_over.set()
        if isinstance(answer, MCPError):
            raise answer
        return answer

    def _call(self, options: CallOptions) -> Call:
        request_id = options.get("request_id")
        if request_id is None:
            self._last_id += 1
            request_id = self._last_id
        exchange = CURRENT.get() or Exchange(None, ENDLESS)
        modern = self._version in MODERN_PROTOCOL_VERSIONS
        return Call(request_id, key_of(request_id), exchange, modern)

    def _headers(self, method: str, more: Mapping[str, str]) -> dict[str, str]:
        """The headers of a POST. The version of the last one serves for what has none."""
        if method == "initialize":
            self._version = None
        else:
            self._version = more.get(MCP_PROTOCOL_VERSION_HEADER, self._version)
        headers = self._in_session(self._posted)
        for name, value in more.items():
            headers[name.lower()] = value
        return headers

    def _in_session(self, headers: dict[str, str]) -> dict[str, str]:
        headers = headers.copy()
        if self._session_id is not None:
            headers[SESSION] = self._session_id
        if self._version is not None:
            headers[MCP_PROTOCOL_VERSION_HEADER] = self._version
        return headers

    async def _asked(
        self, call: Call, method: str, headers: dict[str, str], body: bytes
    ) -> Json | MCPError:
        reply = await self._post(call.exchange, headers, body)
        try:
            if reply.status >= 300:
                raise await self._refusal(call, reply, in_session=SESSION in headers)
            if method == "initialize":
                self._session_id = reply.headers.get(SESSION)
            if reply.is_json:
                return self._in_json(call, await reply.read())
            if reply.is_events:
                return await self._in_events(call, reply)
            kind = reply.kind or f"none (HTTP {reply.status})"
            return ForeignContent(INVALID_REQUEST, f"Unexpected content type: {kind}")
        finally:
            await reply.aclose()

    async def _post(self, exchange: Exchange, headers: dict[str, str], body: bytes) -> Reply:
        exchange.sent = True
        has_deadline = exchange.deadline < math.inf
        try:
            return await self._client.open(
                "POST", self._client.url, headers, body, has_deadline=has_deadline
            )
        except Unsent:
            exchange.sent = False
            raise

    def _abandon(self, call: Call, options: CallOptions) -> None:
        """Have the server told to stop. Who leaves a call does not wait for that."""
        wanted = options.get("cancel_on_abandon", True)
        if wanted and not call.modern and not self._closed.is_set():
            self._tasks.start_soon(self._cancel, call)

    async def _cancel(self, call: Call) -> None:
        params = {"requestId": call.id, "reason": "nobody waits for the answer any more"}
        with anyio.move_on_after(CANCEL_SECONDS):
            await self.notify("notifications/cancelled", params)

    # What it answers.

    def _in_json(self, call: Call, body: bytes) -> Json | MCPError:
        """The answer in a JSON body, which may be a batch."""
        try:
            content = decode(body.removeprefix(BOM))
        except ValueError:
            problem = "is not valid JSON" if body.strip() else "is empty"
            return MCPError(PARSE_ERROR, f"the answer {problem}")
        answer = self._taken(content, call)
        if answer is not None:
            return answer
        return MCPError(PARSE_ERROR, "answered with JSON that is no MCP message for this request")

    async def _in_events(self, call: Call, reply: Reply) -> Json | MCPError:
        """The answer on a stream, or on those that go on where it ended."""
        reader, pace, failures = EventReader(), Pace(), 0
        answer = await self._awaited(call, reply, reader)
        while answer is None:
            if not _resumable(call, reader):
                raise ConnectionLost("the event stream ended without an answer")
            if failures == MAX_FAILURES:
                raise ConnectionLost("the event stream ended and cannot be taken up again")
            await anyio.sleep(pace.seconds(reader.retry, useful=reader.heard))
            reader = reader.again()
            try:
                reply = await self._stream(reader.last_id)
            except (Refused, ConnectionLost) as exc:
                failures += 1
                logger.debug("%s: an event stream is not taken up again: %s", self._name, exc)
            else:
                failures = 0
                answer = await self._awaited(call, reply, reader)
        return answer

    async def _awaited(
        self, call: Call, reply: Reply, reader: EventReader
    ) -> Json | MCPError | None:
        """The answer on a stream; None when it has ended before, and may be taken up again."""
        try:
            while (events := await _more(reply, reader)) is not None:
                for answer in [self._told(event, call) for event in events]:
                    if answer is not None:
                        reply.linger()
                        return answer
        except ConnectionLost:
            if not _resumable(call, reader):
                raise
        finally:
            await reply.aclose()
        return None

    def _told(self, event: Event, call: Call | None = None) -> Json | MCPError | None:
        """Hand on what an event says. What answers this call is returned instead."""
        if event.name != b"message" or not event.data:
            return None
        try:
            return self._taken(decode(event.data), call)
        except ValueError:
            self._inbox.skip(event.data)
            return None

    def _taken(self, content: object, call: Call | None) -> Json | MCPError | None:
        """Hand on a message or a batch. What answers this call is returned instead."""
        answer: Json | MCPError | None = None
        for message in content if isinstance(content, list) else [content]:
            if not isinstance(message, dict):
                continue
            if isinstance(message.get("method"), str):
                self._inbox.take(message)
            elif answer is None and call is not None and self._answers(message, call):
                answer = outcome(message)
        return answer

    def _answers(self, message: Json, call: Call) -> bool:
        if "result" not in message and "error" not in message:
            return False
        key = as_id(message.get("id"))
        if key == call.key or not self._is_ours(key):
            return True
        logger.debug("%s: an answer to another request (id %r) was ignored", self._name, key)
        return False

    def _is_ours(self, key: Id | None) -> bool:
        return isinstance(key, int) and 0 < key <= self._last_id

    # What it refuses.

    async def _refusal(self, call: Call, reply: Reply, *, in_session: bool) -> MCPError:
        """What an answer with such a status means for the request."""
        if reply.status < 400:
            return MCPError(INVALID_REQUEST, _not_followed(reply))
        body = await reply.beginning()
        if self._noted(reply.status, body, call.key, in_session=in_session):
            call.exchange.sent = False
            return Unsent("it has forgotten the session")
        call.exchange.status = reply.status
        if (error := _error_in(body)) is not None:
            return error
        if reply.status >= 500 and not reply.is_json:
            return ConnectionLost(f"HTTP {reply.status} from {place(reply.url)}")
        if reply.status == 404:
            return StandIn(METHOD_NOT_FOUND, "Not Found")
        return StandIn(INTERNAL_ERROR, "Server returned an error response")

    def _noted(self, status: int, body: bytes, key: Id | None, *, in_session: bool) -> bool:
        """Note what a refusal says of the login and of the session; whether that is gone."""
        self.channel.status = status
        if status == 401:
            self.channel.fail("the server asks for a login (HTTP 401)", needs_auth=True)
        gone = in_session and _has_forgotten(status, body, key)
        if gone:
            self._session_id = None
            self.channel.fail("the server has forgotten the session")
        return gone

    # What needs no answer.

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Send a notification; one that cannot be delivered is dropped."""
        message: Json = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        options: CallOptions = opts or {}
        await self._tell(message, options.get("headers"))
        if method == "notifications/initialized" and self._session_id is not None:
            self._tasks.start_soon(self._stand)

    async def _tell(self, message: Json, more: Mapping[str, str] | None = None) -> None:
        if self._closed.is_set():
            return
        headers = self._headers(str(message.get("method")), more or {})
        try:
            reply = await self._client.open("POST", self._client.url, headers, encode(message))
        except ConnectionLost as exc:
            logger.debug("%s: a message was not delivered: %s", self._name, exc)
            return
        if reply.status >= 400:
            body = await reply.beginning()
            self._noted(reply.status, body, None, in_session=SESSION in headers)
            logger.debug("%s: a message was refused (HTTP %d)", self._name, reply.status)
        reply.linger()

    # The standing stream.

    async def _stand(self) -> None:
        """Hold a stream open on which the server says what belongs to no call."""
        reader, pace, failures, was_open = EventReader(), Pace(), 0, False
        while True:
            began = time.monotonic()
            reader = reader.again()
            try:
                reply = await self._stream(reader.last_id)
            except Refused as exc:
                failures += 1
                if was_open:  # nobody would hear of changes
                    await self._heard_out()
                    self.channel.fail(f"the event stream cannot be opened again ({exc})")
                if was_open or exc.status == 405 or failures == MAX_FAILURES:
                    return
            except ConnectionLost as exc:
                # The head of a stream may come with its first event only, and what stands in
                # between may close what is silent; some servers do so with all that is no POST.
                waited = time.monotonic() - began > SHORT_STREAM_SECONDS
                if isinstance(exc, Unsent) or (was_open and not waited):
                    await self._heard_out()
                    self.channel.fail(exc.error.message)
                    return
                failures = 0 if waited else failures + 1
                if failures == MAX_FAILURES:
                    return
            else:
                was_open = True
                await self._heard(reply, reader)
            useful = reader.heard or time.monotonic() - began > SHORT_STREAM_SECONDS
            await anyio.sleep(pace.seconds(reader.retry, useful=useful))

    async def _heard_out(self) -> None:
        """Let requests in flight learn how they end: each has a connection of its own.

        A server that has been started anew refuses them, and then they may be sent again; if they
        were broken off here, nobody would know whether they took effect.
        """
        with anyio.move_on_after(HEAR_OUT_SECONDS):
            while self._open:
                self._one_is_over = anyio.Event()
                await self._one_is_over.wait()

    async def _heard(self, reply: Reply, reader: EventReader) -> None:
        """Hand on what a stream says, until it ends or breaks."""
        try:
            while (events := await _more(reply, reader)) is not None:
                for event in events:
                    self._told(event)
        except ConnectionLost as exc:
            logger.debug("%s: the event stream broke: %s", self._name, exc)
        finally:
            await reply.aclose()

    async def _stream(self, last_id: str) -> Reply:
        """Open an event stream, which goes on after that event.

        Raises:
            Refused: the server has none.
            ConnectionLost: it is out of reach.
        """
        headers = self._in_session(self._listening)
        if last_id:
            headers[LAST_EVENT_ID] = last_id
        reply = await self._client.open("GET", self._client.url, headers)
        if reply.status == 200 and reply.is_events:
            return reply
        reply.linger()
        raise Refused(reply.status)

    # Its life.

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve the server's messages until the channel is left."""
        await self._inbox.run(on_request, on_notify, on_notify_intercept, self._closed, task_status)

    async def leave(self) -> None:
        """Break off what is open, and end the session.

        Also one that we give up: most servers keep it, with all it holds, until they are told.
        """
        self._reason = self.channel.reason or "the bridge has left"
        self._closed.set()
        for exchange in tuple(self._open):
            exchange.break_off(self._reason)
        if self._session_id is None:
            return
        with anyio.move_on_after(LEAVE_SECONDS, shield=True):
            try:
                headers = self._in_session(self._client.headers({}))
                reply = await self._client.open("DELETE", self._client.url, headers)
            except ConnectionLost as exc:
                logger.debug("%s: the session was not ended: %s", self._name, exc)
            else:
                await reply.aclose()
                logger.debug("%s: session ended (HTTP %d)", self._name, reply.status)


@asynccontextmanager
async def open_streamable(name: str, settings: McpServer) -> AsyncGenerator[Channel]:
    """Talk streamable HTTP; on leaving, tell the server that the session has ended.

    Raises:
        SourceUnavailable: the settings hold what HTTP cannot use.
    """
    async with opened(name, settings) as client, anyio.create_task_group() as tasks:
        dispatcher = Streamable(name, client, tasks)
        try:
            yield dispatcher.channel
        finally:
            tasks.cancel_scope.cancel()
            await dispatcher.leave()


async def _more(reply: Reply, reader: EventReader) -> list[Event] | None:
    """The events that arrive next on a stream; None at its end."""
    piece = await reply.piece()
    return reader.feed(piece) if piece else reader.close() or None


def _resumable(call: Call, reader: EventReader) -> bool:
    """Whether a stream can be taken up again. In the new era, to close it is to cancel it."""
    return bool(reader.last_id) and not call.modern


def _has_forgotten(status: int, body: bytes, key: Id | None) -> bool:
    """Whether a server was restarted: 404 by the specification, 400 by old SDKs.

    Some say so of a method that they do not have (a notification has no id that they could give
    back), and with our own id it is what the session says of the request: it may be about sessions
    of another kind.
    """
    if status not in (400, 404):
        return False
    error = _error_in(body)
    if error is not None and error.error.code == METHOD_NOT_FOUND:
        return False
    is_the_requests = key is not None and as_id(_object_in(body).get("id")) == key
    return status == 404 or (b"session" in body.lower() and not is_the_requests)


def _error_in(body: bytes) -> MCPError | None:
    """The JSON-RPC error that a refusal holds, whatever its id."""
    content = _object_in(body)
    found = outcome(content) if content.get("error") is not None else None
    return found if isinstance(found, MCPError) else None


def _object_in(body: bytes) -> Json:
    try:
        content = decode(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _not_followed(reply: Reply) -> str:
    target = reply.location
    if target is None:
        return f"Server returned HTTP {reply.status}"
    if reply.url.scheme == "https" and target.scheme == "http":
        return (
            f"Redirect to {place(target)} not followed, for it would give up TLS: the proxy in "
            "front of the server should tell it that the request came over HTTPS; or try the url "
            f"{place(target.with_scheme('https'))}"
        )
    return f"Redirect to {place(target)} not followed: if it is the right server, use that url"
