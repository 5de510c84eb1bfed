"""Clients as people have them: the TypeScript SDK, and the older Python SDK."""

import json
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import pytest

from mcp_bridge.config.settings import McpServer
from mcp_bridge.types import Json
from tests.conformance.everything import everything_app
from tests.mcp_client.running import running, text
from tests.mcp_server.running import PATIENCE, house, serving
from tests.npm import ROOT, script

HERE = Path(__file__).parent
OLD_SDK = ROOT / ".cache/mcp1/bin/python"
PATHS = {"http": "/mcp", "sse": "/mcp-server/sse", "websocket": "/mcp-server/ws"}
needs_old_sdk = pytest.mark.skipif(
    not OLD_SDK.exists(), reason="the older MCP SDK is not installed: run scripts/mcp1"
)


async def used_by(command: list[str], kind: str, behind: str) -> Json:
    """What a client prints that has used the server through the bridge."""
    async with everything_app() as app, serving(app) as site:
        server = {"url": f"{site.url}/mcp", "transport": "http", "protocol": behind}
        async with house({"everything": server}) as opened:
            url = opened.url.replace("http", "ws") if kind == "websocket" else opened.url
            with anyio.fail_after(PATIENCE):
                done = await anyio.run_process([*command, kind, url + PATHS[kind]], check=False)
    assert done.returncode == 0, done.stderr.decode()
    found: Json = json.loads(done.stdout)
    return found


def check(found: Json) -> None:
    assert "test_simple_text" in found["tools"]
    assert "test_simple_prompt" in found["prompts"]
    assert found["resource"] == "This is the content of the static text resource."
    assert found["simple"] == "This is a simple text response for testing."
    assert found["sampled"] == "LLM response: Paris"
    assert "Ada" in found["filled"]
    assert "file:///home/ada" in found["roots"]
    assert found["done"] == "done"
    assert found["progress"] == [0, 50, 100]


@pytest.mark.parametrize("behind", ["legacy", "auto"])
@pytest.mark.parametrize("kind", PATHS)
async def test_the_typescript_sdk_uses_everything(kind: str, behind: str) -> None:
    check(await used_by(script(ROOT / "tests/node/client.mjs"), kind, behind))


@needs_old_sdk
@pytest.mark.parametrize("behind", ["legacy", "auto"])
@pytest.mark.parametrize("kind", PATHS)
async def test_the_older_python_sdk_uses_everything(kind: str, behind: str) -> None:
    check(await used_by([str(OLD_SDK), str(HERE / "old_client.py")], kind, behind))


@needs_old_sdk
async def test_a_server_of_the_older_sdk_over_a_websocket_is_behind_the_bridge() -> None:
    command = [str(OLD_SDK), str(HERE / "old_server.py")]
    async with await anyio.open_process(command, stdout=PIPE, stderr=DEVNULL) as process:
        try:
            assert process.stdout is not None
            with anyio.fail_after(PATIENCE):
                port = int(await process.stdout.receive())
            server: Any = {"url": f"ws://127.0.0.1:{port}/ws"}
            async with running(McpServer.model_validate(server)) as watch:
                assert watch.connection.status()["transport"] == "websocket"
                assert text(await watch.call("echo", text="old")) == "old"
        finally:
            process.kill()
