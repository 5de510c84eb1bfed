"""Streamable HTTP in both eras, as the facade's own transport.

Theory of operation. What comes in is one HTTP request; everything that it needs happens in the task
that it came in, from the headers to the last byte of the answer. The SDK has several tasks, streams
and models for each request, which was most of what a tool call cost.

    POST of the new era      a request alone: its headers are checked against its body, and closing
                             the connection cancels it (modern.py)
    POST of the old era      belongs to a session (sessions.py), begins one (`initialize`), or is a
                             request without one. A notification or an answer to a question of ours
                             is accepted with 202. 2025-03-26 has batches, too (answers.py)
    GET                      what a session hears between its requests
    DELETE                   its end

The answer to a request is an Exchange (exchange.py), which chooses JSON or events. What is wrong
before anybody can be asked is a Refusal with its HTTP status; everything later is a JSON-RPC error.
"""

import logging
from collections.abc import Mapping

import anyio
import anyio.abc
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS, MCP_PROTOCOL_VERSION_HEADER
from mcp_types import (
    DEFAULT_NEGOTIATED_VERSION,
    INVALID_REQUEST,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
)
from mcp_types.methods import SPEC_CLIENT_NOTIFICATION_METHODS, validate_client_notification
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from mcp_bridge.mcp_server.answers import Batch, answer_of, client_of
from mcp_bridge.mcp_server.events import Rhythm
from mcp_bridge.mcp_server.exchange import Exchange
from mcp_bridge.mcp_server.facade import Facade
from mcp_bridge.mcp_server.http import Fields, Refusal, accepts, is_json, read_body, respond
from mcp_bridge.mcp_server.modern import check_arguments, check_envelope, check_version
from mcp_bridge.mcp_server.reading import Refused, message_of, parts_of, value_of
from mcp_bridge.mcp_server.session import Session, nowhere
from mcp_bridge.mcp_server.sessions import HttpSession, Sessions
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.types import frozen

logger = logging.getLogger(__name__)

SESSION_ID = "mcp-session-id"
NO_STATUSES: Mapping[int, int] = {}
"""In the old era each answer to a request is 200, errors too."""


@frozen
class Incoming:
    """One HTTP request."""

    visit: Visit
    fields: Fields
    scope: Scope
    receive: Receive
    send: Send


class Streamable:
    """Serves streamable HTTP."""

    def __init__(
        self, facade: Facade, tasks: anyio.abc.TaskGroup, max_bytes: int, idle_seconds: float
    ) -> None:
        self._facade = facade
        self._tasks = tasks
        self._max_bytes = max_bytes
        self.sessions = Sessions(idle_seconds)
        self.rhythm = Rhythm()

    async def serve(self, incoming: Incoming) -> None:
        """Answer one HTTP request."""
        version = incoming.fields.get(MCP_PROTOCOL_VERSION_HEADER)
        try:
            if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
                await self._modern(incoming, version)
            else:
                await self._legacy(incoming, version or DEFAULT_NEGOTIATED_VERSION)
        except Refusal as refusal:
            await respond(incoming.send, refusal.status, refusal.body, refusal.headers)

    # The new era.

    async def _modern(self, incoming: Incoming, version: str) -> None:
        if incoming.scope["method"] != "POST":
            raise not_allowed("POST")
        message = message_in(await self._value(incoming))
        if isinstance(message, JSONRPCRequest):
            check_envelope(message, incoming.fields)
            if message.method == "tools/call":
                offer = self._facade.offers.of(incoming.visit)
                check_arguments(message, offer, incoming.scope)
            await self._answer_alone(incoming, version, message, ERROR_CODE_HTTP_STATUS)
        elif isinstance(message, JSONRPCNotification):
            # This version has none that needs anything done: closing the connection cancels.
            check_version(version)
            await respond(incoming.send, 202, b"")
        else:
            raise Refusal(400, INVALID_REQUEST, "there is no request that this answers")

    # The old era.

    async def _legacy(self, incoming: Incoming, version: str) -> None:
        method, number = incoming.scope["method"], incoming.fields.get(SESSION_ID)
        session = self.sessions.find(number, incoming.visit) if number is not None else None
        match method:
            case "POST" if session is not None:
                await self._in_session(incoming, session)
            case "POST":
                await self._without_session(incoming, version)
            case "GET":
                await self._hear(incoming, session)
            case "DELETE":
                self.sessions.end(needed(session))
                await respond(incoming.send, 200, b"")
            case _:
                raise not_allowed("GET, POST, DELETE")

    async def _hear(self, incoming: Incoming, session: HttpSession | None) -> None:
        if not accepts(incoming.fields)[1]:
            raise not_acceptable("text/event-stream")
        session = needed(session)
        with session:
            await session.hear(incoming.receive, incoming.send, self.rhythm)

    async def _in_session(self, incoming: Incoming, session: HttpSession) -> None:
        with session:
            value = await self._value(incoming)
            if isinstance(value, list):
                await self._answer_batch(incoming, session, session.protocol_version, value)
                return
            match message_in(value):
                case JSONRPCRequest() as request:
                    await self._answer_in_session(incoming, session, request)
                    return
                case other:
                    self._take(incoming.visit, session, other)
            await respond(incoming.send, 202, b"", session.headers)

    async def _without_session(self, incoming: Incoming, version: str) -> None:
        value = await self._value(incoming)
        if isinstance(value, list):
            await self._answer_batch(incoming, None, version, value)
            return
        match message_in(value):
            case JSONRPCRequest(method="initialize") as request:
                await self._open_session(incoming, request)
            case JSONRPCRequest() as request:
                await self._answer_alone(incoming, version, request, NO_STATUSES)
            case _:
                await respond(incoming.send, 202, b"")  # there is nothing that it belongs to

    async def _open_session(self, incoming: Incoming, request: JSONRPCRequest) -> None:
        session = self.sessions.open(incoming.visit)
        opened = False
        try:
            with session:
                opened = await self._answer_in_session(incoming, session, request)
        finally:
            if not opened:
                self.sessions.end(session)

    def _take(self, visit: Visit, session: HttpSession, message: JSONRPCMessage) -> None:
        """A notification, or the answer to a question."""
        match message:
            case JSONRPCNotification():
                self._notified(visit, session, message)
            case JSONRPCResponse() | JSONRPCError():
                session.questions.settle(message)

    def _notified(self, visit: Visit, session: HttpSession, message: JSONRPCNotification) -> None:
        method = message.method
        if method == "notifications/cancelled":
            session.cancel((message.params or {}).get("requestId"))
        try:
            if method in SPEC_CLIENT_NOTIFICATION_METHODS:
                validate_client_notification(method, session.protocol_version, message.params)
            self._facade.notified(visit, session, method)
        except (KeyError, ValidationError, MCPError) as exc:
            logger.debug("%s is not heard: %s", method, exc)

    async def _answer_in_session(
        self, incoming: Incoming, session: HttpSession, request: JSONRPCRequest
    ) -> bool:
        """Whether the answer is a result, and not an error."""
        exchange = self._exchange(incoming, session)
        version = session.protocol_version or LATEST_HANDSHAKE_VERSION
        client = client_of(incoming.visit, session, exchange, version, request)
        session.begun(client, request.id)
        try:
            answer = await answer_of(self._facade, client, request)
            await exchange.finish(answer.text)
        finally:
            session.over(client)
            exchange.close()
        return answer.error is None

    async def _answer_batch(
        self, incoming: Incoming, session: HttpSession | None, version: str, values: list[object]
    ) -> None:
        """Answer several requests at once, in whatever order they end, as one list."""
        try:
            parts = parts_of(values, version)
        except Refused as refused:
            raise refusal_for(refused) from refused
        with self._exchange(incoming, session) as exchange:
            batch = Batch(self._facade, incoming.visit, session, exchange, version)
            exchange.when_left = batch.leave
            async with anyio.create_task_group() as tasks:
                for value in parts:
                    other = batch.take(value, tasks)
                    if other is not None and session is not None:
                        self._take(incoming.visit, session, other)
            if batch.answers:
                await exchange.finish(batch.text())
                return
        await respond(incoming.send, 202, b"", session.headers if session else ())

    # A request of either era that belongs to no session.

    async def _answer_alone(
        self, incoming: Incoming, version: str, request: JSONRPCRequest, statuses: Mapping[int, int]
    ) -> None:
        """Answer it. It ends when its client leaves: nobody else can be given its result."""
        session = Session(nowhere)
        exchange = self._exchange(incoming, None)
        client = client_of(incoming.visit, session, exchange, version, request)
        exchange.when_left = client.leave
        try:
            answer = await answer_of(self._facade, client, request)
            await exchange.finish(answer.text, statuses.get(answer.error or 0, 200))
        finally:
            exchange.close()
            session.close()

    def _exchange(self, incoming: Incoming, session: HttpSession | None) -> Exchange:
        questions, headers = (session.questions, session.headers) if session else (None, ())
        return Exchange(
            incoming.receive,
            incoming.send,
            self._tasks,
            self.rhythm,
            questions,
            headers,
        )

    # What comes in.

    async def _value(self, incoming: Incoming) -> object:
        """The JSON in the body of a POST.

        Raises:
            Refusal: there is none that can be read, or its answer could not be.
        """
        fields = incoming.fields
        if not is_json(fields):
            what = "Unsupported Media Type: Content-Type must be application/json"
            raise Refusal(415, INVALID_REQUEST, what)
        if accepts(fields) != (True, True):
            raise not_acceptable("both application/json and text/event-stream")
        body = await read_body(incoming.receive, fields, self._max_bytes)
        if body is None:
            what = f"the body is larger than {self._max_bytes} bytes (limits.max_request_bytes)"
            raise Refusal(413, INVALID_REQUEST, what)
        try:
            return value_of(body)
        except Refused as refused:
            raise refusal_for(refused) from refused


def message_in(value: object) -> JSONRPCMessage:
    """Raises:
    Refusal: it is no message.
    """
    try:
        return message_of(value)
    except Refused as refused:
        raise refusal_for(refused) from refused


def refusal_for(refused: Refused) -> Refusal:
    error = refused.answer.error
    return Refusal(400, error.code, error.message, request_id=refused.answer.id)


def needed(session: HttpSession | None) -> HttpSession:
    if session is None:
        raise Refusal(400, INVALID_REQUEST, "Bad Request: Missing session ID")
    return session


def not_acceptable(kinds: str) -> Refusal:
    return Refusal(406, INVALID_REQUEST, f"Not Acceptable: Client must accept {kinds}")


def not_allowed(allowed: str) -> Refusal:
    headers = ((b"allow", allowed.encode()),)
    return Refusal(405, INVALID_REQUEST, "Method Not Allowed", headers=headers)
