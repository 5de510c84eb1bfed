"""MCP over a WebSocket, both ends of it."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as plain
from websockets.exceptions import ConnectionClosed

from mcp_bridge.config.settings import McpServer
from mcp_bridge.types import Json
from mcp_bridge.websocket import Closed, ServerSocket, connect
from tests.mcp_client.running import running, text
from tests.mcp_server.box import Box, boxes, tool
from tests.mcp_server.box import text as says
from tests.mcp_server.running import PATIENCE, serving

Serve = Callable[[WebSocket], Awaitable[None]]


@asynccontextmanager
async def at(serve: Serve, *routes: Any) -> AsyncGenerator[str]:
    async with serving(Starlette(routes=[WebSocketRoute("/", serve), *routes])) as site:
        yield site.url.replace("http", "ws")


def echo(max_bytes: int = 1000, idle_seconds: float = 60) -> Serve:
    async def serve(websocket: WebSocket) -> None:
        await websocket.accept("mcp")
        socket = ServerSocket(websocket, max_bytes=max_bytes, idle_seconds=idle_seconds)
        async for message in socket.messages():
            await socket.send(message)

    return serve


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[ClientConnection]:
    async with plain(url, subprotocols=["mcp"]) as connection:  # type: ignore[list-item]
        yield connection


async def close_code(connection: ClientConnection) -> int:
    with anyio.fail_after(PATIENCE), pytest.raises(ConnectionClosed) as closed:
        await connection.recv()
    assert closed.value.rcvd is not None
    return int(closed.value.rcvd.code)


# The server's end.


async def test_a_binary_frame_closes_with_1003() -> None:
    async with at(echo()) as url, opened(url) as connection:
        await connection.send(b"{}")
        assert await close_code(connection) == 1003


async def test_a_message_that_is_too_long_closes_with_1009() -> None:
    async with at(echo(max_bytes=10)) as url, opened(url) as connection:
        await connection.send("short")
        assert await connection.recv() == "short"
        await connection.send("much too long")
        assert await close_code(connection) == 1009


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("x" * 12, True),
        ("x" * 13, False),
        ("ä" * 6, True),
        ("ä" * 6 + "x", False),
        ("😀" * 3, True),
        ("😀" * 3 + "x", False),
    ],
)
async def test_the_size_of_a_message_is_that_of_its_bytes(text: str, fits: bool) -> None:
    async with at(echo(max_bytes=12)) as url, opened(url) as connection:
        await connection.send(text)
        if fits:
            assert await connection.recv() == text
        else:
            assert await close_code(connection) == 1009


async def test_the_size_of_what_a_server_sends_is_that_of_its_bytes_too() -> None:
    async with at(echo()) as url:
        async with connect(url, headers={}, max_bytes=12, open_seconds=5) as socket:
            messages = socket.messages()
            await socket.send("äöüäöü")
            assert await anext(messages) == "äöüäöü"
            await socket.send("äöüäöüä")
            with pytest.raises(Closed):
                await anext(messages)


async def test_a_silent_connection_closes_with_1001() -> None:
    async with at(echo(idle_seconds=0.1)) as url, opened(url) as connection:
        assert await close_code(connection) == 1001


async def test_what_is_no_message_is_answered_and_the_connection_goes_on() -> None:
    async with boxes(a=Box()) as house:
        async with opened(f"{house.url.replace('http', 'ws')}/mcp-server/ws") as connection:
            for text, code, number in [
                ("{not json", -32700, None),
                ('{"jsonrpc":"2.0","id":7}', -32600, 7),
                ('[{"jsonrpc":"2.0","id":7,"method":"ping"}]', -32600, None),
            ]:
                await connection.send(text)
                answer = json.loads(await connection.recv())
                assert (answer["error"]["code"], answer["id"]) == (code, number)
            await connection.send('{"jsonrpc":"2.0","id":1,"method":"ping"}')
            assert json.loads(await connection.recv())["result"] == {}


async def test_reading_and_writing_do_not_wait_for_each_other() -> None:
    """A client that sends many requests before it reads one answer must not block the server."""
    box = Box(tools=[tool("big")], answers={"big": says("x" * 100_000)})
    async with boxes(a=box) as house:
        async with opened(f"{house.url.replace('http', 'ws')}/mcp-server/ws") as connection:
            for number in range(100):
                call = {"jsonrpc": "2.0", "id": number, "method": "tools/call"}
                await connection.send(json.dumps({**call, "params": {"name": "big"}}))
            with anyio.fail_after(PATIENCE):
                answers = [json.loads(await connection.recv()) for _ in range(100)]
    assert sorted(answer["id"] for answer in answers) == list(range(100))


# The client's end.


async def test_both_ends_carry_messages() -> None:
    async with at(echo()) as url:
        async with connect(url, headers={}, max_bytes=None, open_seconds=5) as socket:
            await socket.send('{"a": "ä"}')
            assert await anext(socket.messages()) == '{"a": "ä"}'


async def refuse(websocket: WebSocket) -> None:
    await websocket.close()


async def send_bytes(websocket: WebSocket) -> None:
    await websocket.accept("mcp")
    await websocket.send_bytes(b"{}")
    await websocket.receive()


async def leave(websocket: WebSocket) -> None:
    await websocket.accept("mcp")
    await websocket.close(1012, "restarting")


async def other_protocol(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.receive()


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        (refuse, "HTTP 403"),
        (other_protocol, 'subprotocol "mcp"'),
        (send_bytes, "binary frame"),
        (leave, r"1012: restarting"),
    ],
)
async def test_the_client_says_why_there_is_no_connection(serve: Serve, words: str) -> None:
    async with at(serve) as url:
        with anyio.fail_after(PATIENCE), pytest.raises(Closed, match=words):
            async with connect(url, headers={}, max_bytes=None, open_seconds=5) as socket:
                await anext(socket.messages())


async def test_our_headers_are_not_taken_to_another_host() -> None:
    seen: list[Any] = []

    async def elsewhere(websocket: WebSocket) -> None:
        seen.append(websocket.headers.get("x-key"))
        await websocket.accept("mcp")

    async with at(elsewhere) as target:
        redirect = Route("/away", lambda request: RedirectResponse(target))
        async with serving(Starlette(routes=[redirect])) as site:
            url = f"{site.url.replace('http', 'ws')}/away"
            with pytest.raises(Closed):
                async with connect(url, headers={"x-key": "s"}, max_bytes=None, open_seconds=5):
                    pass
    assert seen == []


# As a transport to a server behind us.


def behind(url: str, **settings: Any) -> McpServer:
    return McpServer.model_validate({"url": url, "startup_timeout": 10, **settings})


@pytest.mark.parametrize("protocol", ["legacy", "2026-07-28", "auto"])
async def test_a_bridge_behind_a_bridge_over_websockets(protocol: str) -> None:
    box = Box(tools=[tool("t", **{"x-vendor": 1})], answers={"t": says("far away")})
    async with boxes(a=box) as house:
        url = f"{house.url.replace('http', 'ws')}/mcp-server/ws"
        async with running(behind(url, protocol=protocol)) as watch:
            assert watch.connection.status()["transport"] == "websocket"
            assert watch.connection.tools[0].definition["x-vendor"] == 1
            assert text(await watch.call("t")) == "far away"


async def test_a_server_behind_a_websocket_that_restarts_is_found_again() -> None:
    box = Box(tools=[tool("t")], answers={"t": says("here")})
    async with boxes(a=box) as house:
        url = f"{house.url.replace('http', 'ws')}/mcp-server/ws"
        async with running(behind(url)) as watch:
            since = watch.connection.status()["since"]
            house.site.cut()
            await watch.until_connected_again(since)
            assert text(await watch.call("t")) == "here"


async def test_a_websocket_that_wants_a_key_says_so() -> None:
    keys: Json = {"auth": {"enabled": True, "api_keys": [{"key": "right", "name": "ada"}]}}
    async with boxes(settings={"security": keys}, a=Box(tools=[tool("t")])) as house:
        url = f"{house.url.replace('http', 'ws')}/mcp-server/ws"
        async with running(behind(url)) as watch:
            assert watch.connection.state == "needs_auth"
        headers = {"authorization": "Bearer right"}
        async with running(behind(url, headers=headers)) as watch:
            assert watch.connection.state == "connected"
