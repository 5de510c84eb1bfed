"""A bridge with its MCP door open on loopback, and MCP servers of both eras behind it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import uvicorn
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from starlette.applications import Starlette
from starlette.types import ASGIApp

from mcp_bridge.bridge import Bridge, open_bridge
from mcp_bridge.config.settings import Settings
from mcp_bridge.mcp_server.door import Door, mcp_door
from mcp_bridge.mcp_server.routes import mcp_routes
from mcp_bridge.types import Json
from mcp_bridge.websocket import Closed, connect
from tests.servers.web import Site

PATIENCE = 20
"""Seconds after which a test fails instead of waiting: much more than it ever needs."""


@dataclass
class House:
    """A running bridge with its door."""

    url: str
    bridge: Bridge
    door: Door
    site: Site

    @property
    def mcp(self) -> str:
        return f"{self.url}/mcp"


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncGenerator[Site]:
    """Serve an application on loopback, WebSockets too."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="websockets-sansio")
    site = Site(config, listener.getsockname()[1])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(site.serve, [listener])
        with anyio.fail_after(PATIENCE):
            await site.ready.wait()
        try:
            yield site
        finally:
            site.leave.set()
    listener.close()


@asynccontextmanager
async def house(servers: Mapping[str, Json], **settings: Any) -> AsyncGenerator[House]:
    """A bridge to these servers, all of which have been tried."""
    loaded = Settings.model_validate({"mcp_servers": servers, **settings})
    async with open_bridge(loaded) as bridge:
        assert await bridge.settled(PATIENCE)
        async with mcp_door(bridge) as door:
            app = Starlette(routes=mcp_routes(lambda scope: door))
            async with serving(app) as site:
                yield House(site.url, bridge, door, site)


@asynccontextmanager
async def websocket_client(
    url: str, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Any]:
    """A transport of the SDK's `Client` over our end of a WebSocket."""
    to_client, read = anyio.create_memory_object_stream[Any](0)
    write, from_client = anyio.create_memory_object_stream[SessionMessage](0)
    async with (
        connect(url, headers=headers or {}, max_bytes=None, open_seconds=5) as socket,
        anyio.create_task_group() as tasks,
    ):

        async def reader() -> None:
            async with to_client:
                with suppress(Closed):
                    async for text in socket.messages():
                        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
                        await to_client.send(SessionMessage(message))

        async def writer() -> None:
            async with from_client:
                async for item in from_client:
                    text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await socket.send(text)

        tasks.start_soon(reader)
        tasks.start_soon(writer)
        async with read, write:
            yield read, write
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def http_client(url: str, headers: Mapping[str, str]) -> AsyncGenerator[Any]:
    async with (
        httpx2.AsyncClient(headers=dict(headers), timeout=PATIENCE) as client,
        streamable_http_client(url, http_client=client, max_sse_event_size=None) as streams,
    ):
        yield streams


def transport(
    kind: str, url: str, headers: Mapping[str, str] | None = None, path: str = "/mcp"
) -> Any:
    """How the SDK's `Client` comes in: http, sse or websocket."""
    sent = dict(headers or {})
    match kind:
        case "http":
            return http_client(url + path, sent)
        case "sse":
            return sse_client(f"{url}/mcp-server/sse", headers=sent)
        case _:
            return websocket_client(f"{url.replace('http', 'ws')}/mcp-server/ws", sent)


def client(kind: str, url: str, era: str = "legacy", path: str = "/mcp", **options: Any) -> Client:
    """The SDK's client, not yet entered."""
    mode = "2026-07-28" if era == "modern" else "legacy"
    headers = options.pop("headers", None)
    return Client(transport(kind, url, headers, path), mode=mode, cache=None, **options)
