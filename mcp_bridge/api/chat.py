"""`POST /v1/chat/completions`, and `/v1/completions` when tools are asked for.

A raw ASGI endpoint: it reads the body itself under a limit, and it watches for the client leaving
while it answers, for leaving stops the work (DESIGN 3.11), streamed or whole.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

from starlette.types import Receive, Scope, Send

from mcp_bridge.agent.context import NOTHING_WANTED, Library, with_reader
from mcp_bridge.agent.conversation import Ask
from mcp_bridge.agent.events import Asked, Delta, Event, Finished, Started, ToolStarted
from mcp_bridge.agent.sampling import DEPTH_HEADER, depth_of
from mcp_bridge.agent.waiting import answered
from mcp_bridge.api.body import check_announced, check_chat, parse_object, read_body
from mcp_bridge.api.functions import FUNCTIONS, speaks_functions
from mcp_bridge.api.headers import Headers
from mcp_bridge.api.leaving import Watch
from mcp_bridge.api.selection import Choice, choose, is_side_request
from mcp_bridge.api.strangers import server_of
from mcp_bridge.api.stream import CHAT, Shape, StreamWriter, WholeWriter, Writer
from mcp_bridge.bridge import Bridge, Rules, Shared, Using
from mcp_bridge.clock import Clock
from mcp_bridge.errors import BridgeError, RequestError
from mcp_bridge.policy.access import NOTHING
from mcp_bridge.policy.origin import check_origin
from mcp_bridge.policy.words import of_name, toolsets_for
from mcp_bridge.tools.catalog import EMPTY_VIEW, View
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Caller, Json, frozen

logger = logging.getLogger(__name__)

RELAYED = frozenset(
    {"traceparent", "tracestate", "baggage", "openai-beta", "http-referer", DEPTH_HEADER}
)
RELAYED_PREFIXES = ("x-openwebui-", "x-title")
TRACE = ("traceparent", "tracestate", "baggage")


@frozen
class Arrival:
    """A request that was let in: who asks, what came with it, and the rules that it began with."""

    caller: Caller
    headers: Headers
    toolset: str | None
    request_id: str
    rules: Rules

    @classmethod
    def of(cls, scope: Scope, bridge: Bridge) -> "Arrival":
        headers = Headers(scope["headers"])
        rules = bridge.rules
        check_origin(headers.get("origin"), rules.settings)
        caller = rules.doorkeeper.admit(headers, "chat")
        toolset = scope.get("path_params", {}).get("toolset")
        if toolset is not None:
            of_name(toolset, toolsets_for(caller, rules.settings))  # 404 when there is none
        request_id = scope.get("state", {}).get("request_id", "")
        return cls(caller, headers, toolset, request_id, rules)


class ChatEndpoint:
    """Serves chat completions through the loop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bridge: Bridge = scope["app"].state.bridge
        arrival = Arrival.of(scope, bridge)
        settings = arrival.rules.settings
        limit = settings.limits.max_request_bytes
        check_announced(arrival.headers, limit)
        raw = await read_body(receive, limit)
        body = parse_object(raw)
        check_chat(body)
        choice = choose(body, arrival.caller, arrival.headers, arrival.toolset, settings)
        if bridge.shared is not None:
            worker = waits_elsewhere(bridge.shared, arrival, choice)
            if worker is not None:
                await bridge.shared.hand_over(worker, raw, scope, receive, send)
                return
        shape: Shape = CHAT
        if speaks_functions(body):
            choice, shape = choice.narrowed(NOTHING), FUNCTIONS
        await answer(bridge, arrival, choice, shape, receive, send)


def waits_elsewhere(shared: Shared, arrival: Arrival, choice: Choice) -> int | None:
    """The other worker at which a tool call waits for the answer that this may be."""
    key = answered(arrival.caller, choice.body["messages"])
    return shared.place_of(key) if key is not None else None


async def answer(
    bridge: Bridge, arrival: Arrival, choice: Choice, shape: Shape, receive: Receive, send: Send
) -> None:
    """Run the loop for a checked request and write what it says."""
    rules = arrival.rules
    await rules.inference.check_model(choice.body["model"])
    streamed = choice.body.get("stream") is True
    interval = rules.settings.limits.keep_alive
    writer: Writer = (
        StreamWriter(send, shape, interval=interval) if streamed else WholeWriter(send, shape)
    )
    conversation = Answering(bridge, arrival, choice, writer, elicits=shape is CHAT)
    error = await until_the_client_leaves(receive, conversation)
    if error is None:
        return
    try:
        if not writer.started:
            raise error
        await writer.fail(error)
    finally:
        del error  # or this frame and the error hold each other, and the request


async def until_the_client_leaves(receive: Receive, work: "Answering") -> BridgeError | None:
    """Do the work and stop it when the client disconnects. Returns the error that ended it."""
    clock = Clock()
    watch = Watch(receive, clock, work.writer)
    try:
        with clock:
            await work.run()
    except BridgeError as exc:
        return exc.without_frames()
    finally:
        await watch.end()
    return None


@frozen
class Answering:
    """One conversation and where it goes. `elicits`: its client can be asked in the chat."""

    bridge: Bridge
    arrival: Arrival
    choice: Choice
    writer: Writer
    elicits: bool

    async def run(self) -> None:
        if not self._takes_tools():
            await self._converse(EMPTY_VIEW)
        elif not self.choice.strangers:
            await self._converse(self._view())
        else:
            async with AsyncExitStack() as stack:
                view = self._view()
                stack.enter_context(Using(view))  # while the guests still connect
                for stranger in self.choice.strangers:
                    visit = self.bridge.visiting(*server_of(stranger), view)
                    view = await stack.enter_async_context(visit)
                await self._converse(view)

    async def _converse(self, view: View) -> None:
        if view.entries and (self.choice.body.get("n") or 1) > 1:
            raise RequestError(
                "n: several choices cannot share tool calls; ask with n = 1, or without the "
                'bridge\'s tools ("tool_choice": "none", or "mcp": false)',
                param="n",
            )
        with Using(view):
            async with aclosing(self._events(await self._ask(view))) as events:
                async for event in events:
                    # Not `match`, which would take a tenth of what a chunk costs.
                    if isinstance(event, Delta):
                        await self.writer.chunks(event.chunks)
                    elif isinstance(event, Started):
                        await self.writer.start(event.headers)
                    elif isinstance(event, ToolStarted):
                        await self.writer.busy()
                    elif isinstance(event, Finished | Asked):
                        if self.bridge.shared is not None:  # the next request may go there
                            await self.bridge.shared.delivered()
                        await self.writer.finish(event)

    def _events(self, ask: Ask) -> AsyncGenerator[Event]:
        if not ask.elicits:
            return self.arrival.rules.agent.run(ask)
        ttl = self.arrival.rules.settings.tools.memory_ttl
        return self.bridge.waiting.run(ask, self.arrival.rules.agent.run, ttl)

    def _takes_tools(self) -> bool:
        """Whether tools are added: they must not be offered to those who cannot use them."""
        if self.choice.body.get("tool_choice") == "none":
            return False
        # Also when they name tools: a UI repeats a chat's model, path and headers for its titles.
        return not self._is_on_the_side()

    def _is_on_the_side(self) -> bool:
        """Whether a UI asks for itself, and the bridge is to add nothing then (L25)."""
        side = self.arrival.rules.settings.tools.side_requests
        return side and is_side_request(self.choice.body, self.arrival.headers)

    def _view(self) -> View:
        """The tools of the configured servers that the request gets."""
        view = self.bridge.catalog.view(self.choice.selections, self.choice.prefix)
        reads = self.arrival.rules.settings.tools.read_resource
        return with_reader(view, self._library()) if reads else view

    async def _ask(self, view: View) -> Ask:
        headers, bridge = self.arrival.headers, self.bridge
        ask = Ask(
            body=self.choice.body,
            caller=self.arrival.caller,
            view=view,
            headers=relayed(headers, self.arrival.request_id),
            progress=self.choice.progress,
            meta={name: headers[name] for name in TRACE if name in headers},
            depth=depth_of(headers),
            elicits=self.arrival.rules.settings.tools.elicitation
            and bool(view.entries)
            and self.elicits
            and not self.choice.strangers  # their connections end with the request
            and not bridge.waiting.full,
        )
        opening = await self._opening(ask)
        return replace(ask, opening=opening) if opening else ask

    async def _opening(self, ask: Ask) -> list[Json]:
        """The messages of the prompt and the resources that the request wants."""
        if self.choice.wanted == NOTHING_WANTED or self._is_on_the_side():
            return []
        answerer = self.arrival.rules.answerers.for_call(ask.model, depth=ask.depth)
        context = CallContext(caller=ask.caller, answerer=answerer, meta=ask.meta)
        vision = self.arrival.rules.inference.sees_images(ask.model)
        return await self._library().opening(self.choice.wanted, context, vision=vision)

    def _library(self) -> Library:
        return Library(self.bridge.connections.values(), self.choice.selections)


def relayed(headers: Headers, request_id: str) -> dict[str, str]:
    """The client's headers that the inference server gets. Never credentials."""
    kept = {
        name: value
        for name, value in headers.items()
        if name in RELAYED or name.startswith(RELAYED_PREFIXES)
    }
    return {**kept, "x-request-id": request_id} if request_id else kept
