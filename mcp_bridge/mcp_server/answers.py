"""From a request to the bytes of its answer; and the same for several that came together."""

from contextlib import ExitStack
from dataclasses import dataclass, field

import anyio.abc
from mcp_types import INVALID_REQUEST, JSONRPCMessage, JSONRPCRequest

from mcp_bridge import exact
from mcp_bridge.mcp_server.client import Client
from mcp_bridge.mcp_server.exchange import Exchange
from mcp_bridge.mcp_server.facade import Facade
from mcp_bridge.mcp_server.messages import answer_to, error_of, refusal_of
from mcp_bridge.mcp_server.reading import Refused, message_of
from mcp_bridge.mcp_server.session import Session, nowhere
from mcp_bridge.mcp_server.sessions import HttpSession
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.types import frozen


@frozen
class Answer:
    """What a request is answered with; `error` is the code of one."""

    text: bytes
    error: int | None = None


async def answer_of(facade: Facade, client: Client, request: JSONRPCRequest) -> Answer:
    """The answer to a request, whatever comes of it."""
    try:
        result = await facade.answer(client, request.method, request.params or {})
        return Answer(answer_to(request.id, result))
    except Exception as exc:  # boundary: whatever goes wrong is this request's answer
        error = error_of(exc)
        return Answer(refusal_of(request.id, error), error["code"])


def client_of(
    visit: Visit, session: Session, exchange: Exchange, version: str, request: JSONRPCRequest
) -> Client:
    return Client(visit, session, exchange, version, request.id, request.params or {})


@dataclass(slots=True)
class Batch:
    """Several messages in one POST, and the answers to those that are requests."""

    facade: Facade
    visit: Visit
    session: HttpSession | None
    exchange: Exchange
    version: str
    answers: list[bytes] = field(default_factory=list)
    _clients: list[Client] = field(default_factory=list)

    def take(self, value: object, tasks: anyio.abc.TaskGroup) -> JSONRPCMessage | None:
        """Have a request answered; what is none is returned."""
        try:
            message = message_of(value)
            if not isinstance(message, JSONRPCRequest):
                return message
            if message.method == "initialize":
                raise Refused(
                    INVALID_REQUEST, "initialize stands alone, not in a batch", message.id
                )
            tasks.start_soon(self._answer, message)
        except Refused as refused:
            answer = refused.answer.model_dump(by_alias=True, exclude_unset=True)
            self.answers.append(exact.encode(answer))
        return None

    async def _answer(self, request: JSONRPCRequest) -> None:
        alone = Session(nowhere)
        client = client_of(self.visit, self.session or alone, self.exchange, self.version, request)
        with ExitStack() as stack:
            stack.callback(alone.close)
            if self.session is not None:
                self.session.begun(client, request.id)
                stack.callback(self.session.over, client)
            else:
                self._clients.append(client)
            answer = await answer_of(self.facade, client, request)
        self.answers.append(answer.text)

    def leave(self) -> None:
        """Nobody waits for the answers any more; those in a session go on, as single ones do."""
        for client in self._clients:
            client.leave()

    def text(self) -> bytes:
        return b"[%b]" % b",".join(self.answers)
