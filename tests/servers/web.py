"""MCP servers over HTTP on loopback, in this process: the SDK's own, as people run them."""

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import anyio
import uvicorn
from anyio.abc import TaskGroup, TaskStatus
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send


class Choice(BaseModel):
    colour: str


async def choose() -> Elicit[Choice]:
    return Elicit("Which colour?", Choice)


@dataclass
class Log:
    """What the tools of a server have seen."""

    executed: list[str] = field(default_factory=list)
    began: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)


def web_server(log: Log) -> MCPServer:
    """A server with tools that echo, grow, ask, report progress, and hang."""
    server = MCPServer("web", instructions="Be a web server.", version="1", log_level="ERROR")

    @server.tool()
    def echo(text: str) -> str:
        log.executed.append("echo")
        return text

    @server.tool()
    def big(size: int) -> str:
        return "x" * size

    @server.tool()
    async def steps(count: int, ctx: Context) -> str:
        for step in range(count):
            await ctx.report_progress(step + 1, count, f"step {step + 1}")
        return "done"

    @server.tool()
    async def hang() -> str:
        log.executed.append("hang")
        log.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            log.cancelled.set()
        return "never"

    @server.tool()
    async def grow(name: str, ctx: Context) -> str:
        server.add_tool(echo, name=name)
        await ctx.session.send_tool_list_changed()
        await ctx.notify_tools_changed()
        return "grown"

    @server.tool()
    async def ask(choice: Annotated[Choice, Resolve(choose)]) -> str:
        return choice.colour

    @server.tool()
    async def touch(ctx: Context) -> str:
        await ctx.notify_resource_updated("notes://today")
        return "touched"

    @server.prompt()
    def greet(who: str) -> str:
        return f"Say hello to {who}"

    @server.resource("notes://today")
    def today() -> str:
        return "nothing"

    return server


class Site(uvicorn.Server):
    """A running HTTP server, which is quick to start and to stop."""

    def __init__(self, config: uvicorn.Config, port: int) -> None:
        super().__init__(config)
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.ready = anyio.Event()
        self.leave = anyio.Event()

    def cut(self) -> None:
        """Break every open connection, as a crash does."""
        for connection in list(self.server_state.connections):
            transport: Any = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def main_loop(self) -> None:
        self.ready.set()
        await self.leave.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self.cut()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(app: ASGIApp, port: int = 0) -> AsyncGenerator[Site]:
    """Serve an ASGI application on a free port of loopback, or on this one."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none")
    site = Site(config, listener.getsockname()[1])
    stopped = anyio.Event()

    async def serve() -> None:
        try:
            await site.serve([listener])
        finally:
            stopped.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        with anyio.fail_after(10):
            await site.ready.wait()
        try:
            yield site
        finally:
            site.leave.set()
            with anyio.move_on_after(10, shield=True):  # a test that fails must not leave it open
                await stopped.wait()
    listener.close()


class Restartable:
    """A web server that can be stopped and started on the same port."""

    def __init__(self, app: Callable[[], ASGIApp], tasks: TaskGroup) -> None:
        self._app = app
        self._tasks = tasks
        self._stop = anyio.Event()
        self._stopped = anyio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        self.port = await self._tasks.start(self._serve)

    async def stop(self) -> None:
        self._stop.set()
        with anyio.fail_after(10):
            await self._stopped.wait()

    async def _serve(self, *, task_status: TaskStatus[int]) -> None:
        async with serving(self._app(), self.port) as site:
            task_status.started(site.port)
            await self._stop.wait()
        self._stopped.set()


@asynccontextmanager
async def restartable(app: Callable[[], ASGIApp]) -> AsyncGenerator[Restartable]:
    """A running web server; each start makes a new application, which knows nothing."""
    async with anyio.create_task_group() as tasks:
        server = Restartable(app, tasks)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


class Gate:
    """Middleware that refuses requests: `status` None lets them through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.status: int | None = None
        self.body = b"<html>Bad gateway</html>"
        self.methods: tuple[str, ...] = ("POST", "GET")
        self.headers: list[dict[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
            if self.status is not None and scope["method"] in self.methods:
                headers = [(b"content-type", b"text/html")]
                await send(
                    {"type": "http.response.start", "status": self.status, "headers": headers}
                )
                await send({"type": "http.response.body", "body": self.body})
                return
        await self._app(scope, receive, send)
