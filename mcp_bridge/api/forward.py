"""Everything else under `/v1`: forwarded untouched, streamed both ways (issue 2, section 6).

The bytes are the client's and the inference server's; only credentials are exchanged. A body is
read before it is sent only when several inference servers make it necessary to know the model.
"""

from collections.abc import AsyncGenerator

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from mcp_bridge.api.body import check_announced, read_body
from mcp_bridge.api.chat import Arrival
from mcp_bridge.api.headers import Headers
from mcp_bridge.api.leaving import until_disconnected
from mcp_bridge.bridge import Bridge
from mcp_bridge.clock import Clock
from mcp_bridge.errors import BridgeError
from mcp_bridge.inference.client import Inference
from mcp_bridge.inference.forwarding import model_in
from mcp_bridge.tasks import Tasks


class ForwardEndpoint:
    """Passes a request on to the inference server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bridge: Bridge = scope["app"].state.bridge
        arrival = Arrival.of(scope, bridge)
        limit = bridge.settings.limits.max_request_bytes
        if is_json(arrival.headers):  # files may be as large as the server takes
            check_announced(arrival.headers, limit)
        body: Incoming | bytes = Incoming(receive)
        model = None
        if len(bridge.settings.inference_server) > 1 and is_json(arrival.headers):
            body = await read_body(receive, limit)
            model = model_in(body)
        path = path_below(scope)
        forwarding = Forwarding(bridge.inference, scope, path, arrival.headers, model)
        await forwarding.run(body, receive, send)


class Incoming:
    """A request body as it comes in. `ended` is set when it is whole."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = anyio.Event()

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
        self.ended.set()


class Forwarding:
    """One request on its way through; `path` is what follows `/v1/`."""

    def __init__(
        self, inference: Inference, scope: Scope, path: str, headers: Headers, model: str | None
    ) -> None:
        self._inference = inference
        self._scope = scope
        self._path = path
        self._headers = headers
        self._model = model
        self._started = False

    async def run(self, body: Incoming | bytes, receive: Receive, send: Send) -> None:
        """Send it and pass the answer on; stop when the client leaves.

        Raises:
            InferenceError: the inference server cannot be reached.
        """
        clock = Clock()
        watch = Tasks([self._watch(body, receive, clock)])
        try:
            with clock:
                await self._pass_on(body, send)
        except ClientDisconnect:
            pass
        except BridgeError as exc:
            if self._started:
                raise ConnectionResetError(exc.message) from None  # half an answer is no answer
            raise exc.without_frames() from None
        finally:
            await watch.end()

    async def _watch(self, body: Incoming | bytes, receive: Receive, work: Clock) -> None:
        if isinstance(body, Incoming):
            await body.ended.wait()
        await until_disconnected(receive)
        work.cancel()

    async def _pass_on(self, body: Incoming | bytes, send: Send) -> None:
        scope = self._scope
        async with self._inference.forward(
            scope["method"],
            self._path,
            query=scope["query_string"].decode("latin-1"),
            headers=self._headers.pairs,
            body=aiter(body) if isinstance(body, Incoming) else body,
            model=self._model,
        ) as answer:
            raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in answer.headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            self._started = True
            async for piece in answer:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def path_below(scope: Scope) -> str:
    """What follows `/v1/`, escaped as the client escaped it."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    steps = 4 if "toolset" in scope["path_params"] else 2  # /t/{toolset}/v1/… or /v1/…
    return raw.partition(b"?")[0].split(b"/", steps)[steps].decode("latin-1")


def is_json(headers: Headers) -> bool:
    return "json" in headers.get("content-type", "").lower()
