"""Streamable HTTP in both eras, as the facade's own transport.

Theory of operation. What comes in is one HTTP request; everything that it needs happens in the task
that it came in, from the headers to the last byte of the answer. The SDK has several tasks, streams
and models for each request, which was most of what a tool call cost.

    POST of the new era      a request alone: its headers are checked against its body, and closing
                             the connection cancels it (modern.py)
    POST of the old era      belongs to a session (sessions.py), begins one (`initialize`), or is a
                             request without one. A notification or an answer to a question of ours
                             is accepted with 202
    GET                      what a session hears between its requests
    DELETE                   its end

The answer to a request is an Exchange (exchange.py), which chooses JSON or events. What is wrong
before anybody can be asked is a Refusal with its HTTP status; everything later is a JSON-RPC error.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

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

from mcp_bridge.mcp_server.client import Client
from mcp_bridge.mcp_server.exchange import LEFT, Exchange
from mcp_bridge.mcp_server.facade import Facade
from mcp_bridge.mcp_server.http import Fields, Refusal, accepts, is_json, read_body, respond
from mcp_bridge.mcp_server.messages import answer_to, error_of, refusal_of
from mcp_bridge.mcp_server.modern import check_arguments, check_envelope, check_version
from mcp_bridge.mcp_server.reading import Refused, message_of, value_of
from mcp_bridge.mcp_server.session import Session, nowhere
from mcp_bridge.mcp_server.sessions import HttpSession, Sessions
from mcp_bridge.mcp_server.visit import Visit

logger = logging.getLogger(__name__)

SESSION_ID = "mcp-session-id"
NO_STATUSES: Mapping[int, int] = {}
"""In the old era each answer to a request is 200, errors too."""


@dataclass(frozen=True, slots=True)
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
        match await self._message(incoming):
            case JSONRPCRequest() as request:
                check_envelope(request, incoming.fields)
                if request.method == "tools/call":
                    offer = self._facade.offers.of(incoming.visit)
                    check_arguments(request, offer, incoming.scope)
                await self._answer_alone(incoming, version, request, ERROR_CODE_HTTP_STATUS)
            case JSONRPCNotification():
                # This version has none that needs anything done: closing the connection cancels.
                check_version(version)
                await respond(incoming.send, 202, b"")
            case _:
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
        with session.used():
            await session.hear(incoming.receive, incoming.send)

    async def _in_session(self, incoming: Incoming, session: HttpSession) -> None:
        with session.used():
            match await self._message(incoming):
                case JSONRPCRequest() as request:
                    await self._answer_in_session(incoming, session, request)
                    return
                case JSONRPCNotification() as notification:
                    self._notified(incoming.visit, session, notification)
                case JSONRPCResponse() | JSONRPCError() as response:
                    session.questions.settle(response)
            await respond(incoming.send, 202, b"", session.headers)

    async def _without_session(self, incoming: Incoming, version: str) -> None:
        match await self._message(incoming):
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
            with session.used():
                opened = await self._answer_in_session(incoming, session, request)
        finally:
            if not opened:
                self.sessions.end(session)

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

    # Requests of both.

    async def _answer_in_session(
        self, incoming: Incoming, session: HttpSession, request: JSONRPCRequest
    ) -> bool:
        exchange = Exchange(
            incoming.receive, incoming.send, self._tasks, session.questions, session.headers
        )
        version = session.protocol_version or LATEST_HANDSHAKE_VERSION
        client = client_of(incoming.visit, session, exchange, version, request)
        with session.running(client, request.id):
            return await self._answer(client, exchange, request, NO_STATUSES)

    async def _answer_alone(
        self, incoming: Incoming, version: str, request: JSONRPCRequest, statuses: Mapping[int, int]
    ) -> None:
        """Answer a request without a session. It ends when its client leaves: nobody else can be
        given its result."""
        session = Session(nowhere)
        exchange = Exchange(incoming.receive, incoming.send, self._tasks)
        client = client_of(incoming.visit, session, exchange, version, request)
        exchange.when_left = lambda: client.stop(LEFT)
        try:
            await self._answer(client, exchange, request, statuses)
        finally:
            session.close()

    async def _answer(
        self,
        client: Client,
        exchange: Exchange,
        request: JSONRPCRequest,
        statuses: Mapping[int, int],
    ) -> bool:
        """Whether it has been answered with a result, and not with an error."""
        try:
            result = await self._facade.answer(client, request.method, request.params or {})
        except Exception as exc:  # boundary: whatever goes wrong is this request's answer
            error = error_of(exc)
            status = statuses.get(error["code"], 200)
            await exchange.finish(refusal_of(request.id, error), status)
            return False
        finally:
            exchange.close()
        await exchange.finish(answer_to(request.id, result))
        return True

    # What comes in.

    async def _message(self, incoming: Incoming) -> JSONRPCMessage:
        """The message in the body of a POST.

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
            return message_of(value_of(body))
        except Refused as exc:
            error, number = exc.answer.error, exc.answer.id
            raise Refusal(400, error.code, error.message, request_id=number) from exc


def client_of(
    visit: Visit, session: Session, exchange: Exchange, version: str, request: JSONRPCRequest
) -> Client:
    return Client(visit, session, exchange, version, request.id, request.params or {})


def needed(session: HttpSession | None) -> HttpSession:
    if session is None:
        raise Refusal(400, INVALID_REQUEST, "Bad Request: Missing session ID")
    return session


def not_acceptable(kinds: str) -> Refusal:
    return Refusal(406, INVALID_REQUEST, f"Not Acceptable: Client must accept {kinds}")


def not_allowed(allowed: str) -> Refusal:
    headers = ((b"allow", allowed.encode()),)
    return Refusal(405, INVALID_REQUEST, "Method Not Allowed", headers=headers)
