"""The ways in: paths, keys, sessions, and who may come from where."""

from typing import Any

import httpx2
import pytest
from starlette.datastructures import Headers
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from mcp_bridge.config.settings import Settings
from mcp_bridge.errors import RequestError
from mcp_bridge.mcp_server.hosts import check
from mcp_bridge.types import Json
from tests.mcp_server.box import Box, boxes, text, tool
from tests.mcp_server.running import House, client
from tests.mcp_server.wire import OLD

KEYS = {
    "security": {
        "auth": {
            "enabled": True,
            "api_keys": [
                {"key": "ada-key", "name": "ada"},
                {"key": "bob-key", "name": "bob"},
                {"key": "few", "name": "few", "tools": ["a:one"]},
                {"key": "bound", "name": "bound", "toolset": "only-b"},
                {"key": "chat-only", "name": "chat", "scopes": ["chat"]},
            ],
        }
    },
    "toolsets": {
        "only-b": {"include": ["b:*"], "prefix": "always"},
        "secret": {"include": ["a:*"]},
    },
}
ACCEPT = {"accept": "application/json, text/event-stream"}


def two_boxes() -> dict[str, Box]:
    one = Box(tools=[tool("one"), tool("two")], answers={"one": text("1"), "two": text("2")})
    other = Box(tools=[tool("three")], prompts=[{"name": "p"}], answers={"three": text("3")})
    return {"a": one, "b": other}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def request(method: str, params: Json | None = None, number: int = 1) -> Json:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}


INITIALIZE = request(
    "initialize",
    {
        "protocolVersion": OLD,
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
)


async def post(url: str, body: Json, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=20) as http:
        sent = {**ACCEPT, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await http.post(url, json=body, headers=sent)


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/toolsets/only-b/mcp", "/toolsets/only-b/mcp/"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_every_path_serves_both_eras_with_and_without_a_slash(path: str, era: str) -> None:
    async with (
        boxes(settings={"toolsets": KEYS["toolsets"]}, **two_boxes()) as house,
        client("http", house.url, era, path) as mcp,
    ):
        listed = [t.name for t in (await mcp.list_tools()).tools]
        assert listed == (["b__three"] if "only-b" in path else ["one", "two", "three"])


async def test_a_toolset_that_does_not_exist_is_not_found() -> None:
    async with boxes(a=Box()) as house:
        response = await post(f"{house.url}/toolsets/none/mcp", INITIALIZE)
    assert response.status_code == 404
    assert "toolset" in response.json()["error"]["message"]


async def test_for_a_key_that_is_bound_to_a_toolset_there_is_no_other() -> None:
    async with boxes(settings=KEYS, **two_boxes()) as house:

        async def opened(toolset: str) -> httpx2.Response:
            url = f"{house.url}/toolsets/{toolset}/mcp"
            return await post(url, INITIALIZE, **bearer("bound"))

        assert (await opened("only-b")).status_code == 200
        kept, missing = await opened("secret"), await opened("absent")
    assert kept.status_code == missing.status_code == 404
    assert kept.text == missing.text.replace("absent", "secret")


@pytest.mark.parametrize("kind", ["http", "sse", "websocket"])
async def test_a_key_sees_what_it_is_for(kind: str) -> None:
    async with boxes(settings=KEYS, **two_boxes()) as house:
        async with client(kind, house.url, headers=bearer("few")) as few:
            assert [t.name for t in (await few.list_tools()).tools] == ["one"]
            assert (await few.list_prompts()).prompts == []
            with pytest.raises(Exception, match="Unknown tool: two"):
                await few.call_tool("two")
        async with client(kind, house.url, headers=bearer("ada-key")) as ada:
            assert len((await ada.list_tools()).tools) == 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (bearer("wrong"), 401),
        (bearer("chat-only"), 403),
        ({"x-api-key": "ada-key"}, 200),
    ],
)
async def test_who_has_no_key_for_it_does_not_come_in(headers: dict[str, str], status: int) -> None:
    async with boxes(settings=KEYS, **two_boxes()) as house, httpx2.AsyncClient() as http:
        answer = await http.post(house.mcp, json=INITIALIZE, headers={**ACCEPT, **headers})
        assert answer.status_code == status
        if status != 200:
            assert "key" in answer.json()["error"]["message"]
            assert (
                await http.get(f"{house.url}/mcp-server/sse", headers=headers)
            ).status_code == status
            assert await websocket_status(house, headers) == status


async def websocket_status(house: House, headers: dict[str, str], **options: Any) -> int:
    url = f"{house.url.replace('http', 'ws')}/mcp-server/ws"
    options = {"subprotocols": ["mcp"], **options}
    try:
        async with connect(url, additional_headers=headers, **options):
            return 101
    except InvalidStatus as exc:
        return exc.response.status_code


async def test_a_session_is_nobody_elses() -> None:
    async with boxes(settings=KEYS, **two_boxes()) as house:
        opened = await post(house.mcp, INITIALIZE, **bearer("ada-key"))
        session = {"mcp_session_id": opened.headers["mcp-session-id"], "mcp_protocol_version": OLD}
        tools = request("tools/list", number=2)
        assert (await post(house.mcp, tools, **bearer("ada-key"), **session)).status_code == 200
        assert (await post(house.mcp, tools, **bearer("bob-key"), **session)).status_code == 404
        elsewhere = f"{house.url}/toolsets/only-b/mcp"
        assert (await post(elsewhere, tools, **bearer("ada-key"), **session)).status_code == 404


async def test_a_session_ends_when_its_client_says_so() -> None:
    async with boxes(**two_boxes()) as house, httpx2.AsyncClient() as http:
        opened = await post(house.mcp, INITIALIZE)
        headers = {**ACCEPT, "mcp-session-id": opened.headers["mcp-session-id"]}
        assert (await http.delete(house.mcp, headers=headers)).status_code == 200
        again = await http.post(house.mcp, json=request("tools/list"), headers=headers)
        assert again.status_code == 404


async def test_a_request_of_the_old_era_may_go_without_a_session() -> None:
    async with boxes(**two_boxes()) as house:
        response = await post(house.mcp, request("tools/call", {"name": "one"}))
    assert response.status_code == 200
    assert '"text":"1"' in response.text
    assert "mcp-session-id" not in response.headers


async def test_a_body_that_is_too_long_is_refused() -> None:
    async with boxes(settings={"limits": {"max_request_bytes": 2000}}, a=Box()) as house:
        long = request("tools/call", {"name": "x", "arguments": {"text": "y" * 3000}})
        assert (await post(house.mcp, long)).status_code == 413


@pytest.mark.parametrize("subprotocols", [None, ["other"]])
async def test_a_websocket_without_the_subprotocol_is_refused(subprotocols: Any) -> None:
    async with boxes(a=Box()) as house:
        assert await websocket_status(house, {}, subprotocols=subprotocols) == 400


# Host and Origin.


async def test_a_strange_host_and_a_strange_page_are_refused_on_every_way_in() -> None:
    async with boxes(a=Box()) as house, httpx2.AsyncClient() as http:
        for name, value, status in (
            ("host", "evil.example", 421),
            ("origin", "https://evil.example", 403),
        ):
            headers = {**ACCEPT, name: value}
            for path in ("/mcp", "/mcp-server/sse/messages"):
                answer = await http.post(house.url + path, json=INITIALIZE, headers=headers)
                assert answer.status_code == status
                assert f"network.allowed_{name}s" in answer.json()["error"]["message"]
            assert (
                await http.get(f"{house.url}/mcp-server/sse", headers=headers)
            ).status_code == status
        assert await websocket_status(house, {"origin": "https://evil.example"}) == 403


@pytest.mark.parametrize(
    ("network", "host", "allowed"),
    [
        ({}, "localhost:8000", True),
        ({}, "127.0.0.1", True),
        ({}, "[::1]:8000", True),
        ({}, "LOCALHOST", True),
        ({}, "", False),
        ({}, "localhost.evil.example", False),
        ({}, "bridge:8000", False),
        ({"allowed_hosts": ["bridge:*"]}, "bridge:8000", True),
        ({"allowed_hosts": ["bridge:*"]}, "bridge", True),
        ({"allowed_hosts": ["bridge"]}, "bridge:8000", True),
        ({"allowed_hosts": ["bridge:9000"]}, "bridge:8000", False),
        ({"allowed_hosts": ["*"]}, "anything.example", True),
        ({"host": "192.168.1.5"}, "192.168.1.5:8000", True),
        ({"host": "fe80::1"}, "[fe80::1]:8000", True),
        ({"host": "0.0.0.0"}, "192.168.1.5:8000", False),
    ],
)
def test_hosts(network: Json, host: str, allowed: bool) -> None:
    settings = Settings.model_validate({"network": network})
    assert is_let_in({"host": host}, settings) is allowed


@pytest.mark.parametrize(
    ("settings", "origin", "allowed"),
    [
        ({}, "http://localhost:6274", True),
        ({}, "https://[::1]:1", True),
        ({}, "null", False),
        ({}, "http://localhost.evil.example", False),
        ({"network": {"allowed_origins": ["https://chat.example"]}}, "https://chat.example", True),
        ({"network": {"allowed_origins": ["https://chat.example"]}}, "http://chat.example", False),
        ({"network": {"allowed_origins": ["http://chat:*"]}}, "http://chat:3000", True),
        (
            {"security": {"CORS": {"enabled": True, "allow_origins": ["https://page.example"]}}},
            "https://page.example",
            True,
        ),
    ],
)
def test_origins(settings: Json, origin: str, allowed: bool) -> None:
    headers = {"host": "localhost", "origin": origin}
    assert is_let_in(headers, Settings.model_validate(settings)) is allowed


def is_let_in(headers: dict[str, str], settings: Settings) -> bool:
    try:
        check(Headers(headers), settings)
    except RequestError:
        return False
    return True
