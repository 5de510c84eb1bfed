"""An MCP server in this process that answers with exactly the JSON that a test puts into it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp_types import PaginatedRequestParams, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.routing import Route

from mcp_bridge.types import Json
from tests.mcp_server.running import PATIENCE, House, house, serving

Context = ServerRequestContext[Any, Any]
Made = Json | Callable[[Context, Json], Awaitable[Json]]
EVENTS: dict[str, ServerEvent] = {
    "tools": ToolsListChanged(),
    "prompts": PromptsListChanged(),
    "resources": ResourcesListChanged(),
}
KEYS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


def tool(name: str, **more: Any) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def text(words: str) -> Json:
    return {"content": [{"type": "text", "text": words}]}


@dataclass
class Box:
    """What the server has. `answers` maps tool names, prompt names, URIs and methods to results."""

    tools: list[Json] = field(default_factory=list)
    prompts: list[Json] = field(default_factory=list)
    resources: list[Json] = field(default_factory=list)
    templates: list[Json] = field(default_factory=list)
    answers: dict[str, Made] = field(default_factory=dict)
    instructions: str | None = None
    capabilities: Json = field(default_factory=dict)
    seen: list[tuple[str, Json]] = field(default_factory=list)
    clients: set[Connection] = field(default_factory=set)
    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    restart: Callable[[], None] = lambda: None
    """Forget every session and break every connection, as a restart does."""

    _news: anyio.Event = field(default_factory=anyio.Event)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true that requests make true."""
        with anyio.fail_after(PATIENCE):
            while not true():
                await self._news.wait()

    def note(self, method: str, params: Json) -> None:
        self.seen.append((method, params))
        event, self._news = self._news, anyio.Event()
        event.set()

    def asked(self, method: str) -> list[Json]:
        return [params for seen, params in self.seen if seen == method]

    async def changed(self, kind: str) -> None:
        """Announce that a list has changed."""
        await self.bus.publish(EVENTS[kind])
        for client in self.clients:
            await client.notify(f"notifications/{kind}/list_changed", None)

    async def updated(self, uri: str) -> None:
        await self.bus.publish(ResourceUpdated(uri))
        await self.announce("notifications/resources/updated", {"uri": uri})

    async def announce(self, method: str, params: Json) -> None:
        for client in self.clients:
            await client.notify(method, params)

    async def result(self, context: Context, params: Json) -> Json | None:
        lists = {
            "tools/list": self.tools,
            "prompts/list": self.prompts,
            "resources/list": self.resources,
            "resources/templates/list": self.templates,
        }
        if context.method in lists:
            return {KEYS[context.method]: lists[context.method]}
        name = str(params.get("name") or params.get("uri"))
        made = self.answers.get(name) or self.answers.get(context.method)
        if made is None and context.method in ("resources/subscribe", "resources/unsubscribe"):
            return {}
        return await made(context, params) if callable(made) else made

    async def serve(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        if ctx.request_id is None:
            if ctx.method == "notifications/initialized":
                self.clients.add(ctx.session._connection)
            self.note(ctx.method, dict(ctx.params or {}))
            return await call_next(ctx)
        if ctx.method in ("initialize", "server/discover"):
            answer = await call_next(ctx)
            assert isinstance(answer, dict)
            return {**answer, "capabilities": {**answer["capabilities"], **self.capabilities}}
        params = dict(ctx.params or {})
        self.note(ctx.method, params)
        result = await self.result(ctx, params)
        if result is None:
            return await call_next(ctx)
        if modern:
            return {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result}
        return result

    def server(self) -> Server[Any]:
        async def never(context: Context, params: Any) -> Json:
            raise AssertionError

        server: Server[Any] = Server(
            "box",
            version="1",
            instructions=self.instructions,
            on_subscriptions_listen=ListenHandler(self.bus),
        )
        for method in ("tools/list", "prompts/list", "resources/list"):
            server.add_request_handler(method, PaginatedRequestParams, never)
        for method in ("resources/subscribe", "logging/setLevel", "completion/complete"):
            server.add_request_handler(method, RequestParams, never)
        server.middleware.append(self.serve)
        return server


@asynccontextmanager
async def running(box: Box) -> AsyncGenerator[str]:
    """The URL of the server."""
    manager = StreamableHTTPSessionManager(box.server())
    app = Starlette(routes=[Route("/mcp", StreamableHTTPASGIApp(manager))])
    async with manager.run(), serving(app) as site:

        def restart() -> None:
            manager._server_instances.clear()
            site.cut()

        box.restart = restart
        yield f"{site.url}/mcp"


@asynccontextmanager
async def boxes(era: str = "auto", /, settings: Any = None, **found: Box) -> AsyncGenerator[House]:
    """A house whose servers are these boxes, in this order."""
    async with AsyncExitStack() as stack:
        servers: dict[str, Json] = {}
        for name, box in found.items():
            url = await stack.enter_async_context(running(box))
            servers[name] = {"url": url, "transport": "http", "protocol": era}
        yield await stack.enter_async_context(house(servers, **(settings or {})))
