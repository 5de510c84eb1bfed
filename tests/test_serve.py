"""Serving as a process: how it starts, what signals do, and how it ends."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from mcp_bridge import serve
from mcp_bridge.config.settings import Network
from mcp_bridge.errors import ConfigError
from mcp_bridge.listening import listen, url_of
from mcp_bridge.mcp_client import stdio
from tests.fakes import Json, ScriptedInference, hang
from tests.mcp_client.running import SCRIPTED, dead, logged
from tests.mcp_server.running import client as mcp_client
from tests.processes import started

PATIENCE = 30
"""Seconds after which a test fails instead of waiting: much more than it ever needs."""

LISTENING = re.compile(r"listening on (http://\S+/v1), with")
CLEAN = {k: v for k, v in os.environ.items() if not k.upper().startswith("MCP_BRIDGE__")}


class Serving:
    """A bridge in a process of its own."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stderr is not None
        self.process = process
        self.lines: list[str] = []
        self._stderr = BufferedByteReceiveStream(process.stderr)
        self.url = ""

    async def until(self, wanted: Callable[[str], Any]) -> str:
        """The next line of its log like this."""
        while True:
            line = (await self._stderr.receive_until(b"\n", 1 << 20)).decode()
            self.lines.append(line)
            if wanted(line):
                return line

    async def end(self) -> int:
        """Wait until it has ended; its exit code."""
        try:
            while True:
                await self.until(lambda line: False)
        except (anyio.IncompleteRead, anyio.EndOfStream):
            return await self.process.wait()


@asynccontextmanager
async def process(config: Path, *arguments: str) -> AsyncGenerator[Serving]:
    command = [sys.executable, "-m", "mcp_bridge", "serve", "--config", str(config), *arguments]
    with anyio.fail_after(PATIENCE):
        async with started(command, env=CLEAN, stdin=None) as child:
            yield Serving(child)


@asynccontextmanager
async def serving(config: Path, *arguments: str) -> AsyncGenerator[Serving]:
    async with process(config, "--port", "0", *arguments) as bridge:
        line = await bridge.until(LISTENING.search)
        found = LISTENING.search(line)
        assert found is not None
        bridge.url = found[1]
        yield bridge


def written(path: Path, **settings: Any) -> Path:
    path.write_text(json.dumps(settings))
    return path


def scripted(log: Path) -> Json:
    return {"command": sys.executable, "args": [SCRIPTED], "env": {"SCRIPT_LOG": str(log)}}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_well_although_a_stream_is_open(
    number: signal.Signals, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with ScriptedInference(hang()) as inference:
        config = written(
            tmp_path / "c.json",
            inference_server={"base_url": inference.base_url},
            mcp_servers={"x": scripted(log)},
        )
        async with serving(config) as bridge, httpx2.AsyncClient() as client:
            child = (await logged(log, lambda entry: "pid" in entry))["pid"]
            body = {
                "model": "model-a",
                "stream": True,
                "messages": [{"role": "user", "content": "?"}],
            }
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client, f"{bridge.url}/chat/completions", body)
                await inference.wait_for_requests(1)
                bridge.process.send_signal(number)
                assert await bridge.end() == 0, bridge.lines
            await dead(child)
    assert not any("Traceback" in line for line in bridge.lines), bridge.lines


async def ask(client: httpx2.AsyncClient, url: str, body: Json) -> None:
    try:
        await client.post(url, json=body, timeout=None)
    except httpx2.HTTPError:
        pass  # the bridge ends meanwhile


async def test_headers_without_end_are_refused_and_the_next_client_is_served(
    tmp_path: Path,
) -> None:
    config = written(tmp_path / "c.json")
    async with serving(config) as bridge, httpx2.AsyncClient() as client:
        port = int(bridge.url.rpartition(":")[2].partition("/")[0])
        async with await anyio.connect_tcp("127.0.0.1", port) as endless:
            await endless.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-long: ")
            with pytest.raises(anyio.BrokenResourceError):
                for _ in range(1000):
                    await endless.send(b"x" * 65_536)
        large = {"x-large": "x" * 100_000}
        answered = await client.get(bridge.url.removesuffix("/v1") + "/healthz", headers=large)
        assert answered.status_code == 200


async def test_it_says_where_it_listens_and_answers_there(tmp_path: Path) -> None:
    config = written(tmp_path / "c.json", inference_server={"base_url": "http://127.0.0.1:9/v1"})
    async with serving(config) as bridge, httpx2.AsyncClient() as client:
        assert "with 1 inference server, 0 MCP servers, 0 toolsets" in bridge.lines[-1]
        answered = await client.get(f"{bridge.url}/nothing-here", timeout=10)
        assert "server" not in answered.headers
        assert answered.headers["x-request-id"]


async def test_what_a_server_says_unasked_is_heard(tmp_path: Path) -> None:
    config = written(tmp_path / "c.json", mcp_servers={"x": scripted(tmp_path / "log")})
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with serving(config) as bridge, Client(f"{bridge.url[:-3]}/mcp") as client:
        slow = {"steps": 2, "pause": 0.01}
        await client.call_tool("slow", slow, progress_callback=hear)
        bridge.process.send_signal(signal.SIGTERM)
        assert await bridge.end() == 0
    assert heard == [1, 2]
    assert not any("Traceback" in line for line in bridge.lines), bridge.lines


WAYS_IN = [("http", "legacy"), ("http", "modern"), ("sse", "legacy"), ("websocket", "legacy")]


@pytest.mark.parametrize(("kind", "era"), WAYS_IN)
async def test_mcp_calls_that_are_under_way_at_the_end_are_answered(
    kind: str, era: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    config = written(tmp_path / "c.json", mcp_servers={"x": scripted(log)})
    async with (
        serving(config) as bridge,
        mcp_client(kind, bridge.url.removesuffix("/v1"), era) as client,
        anyio.create_task_group() as tasks,
    ):

        async def in_time() -> None:
            result = await client.call_tool("slow", {"steps": 2, "pause": 0.2})
            assert result.content[0].text == "done"  # type: ignore[union-attr]  # it is text

        async def too_late() -> None:
            with pytest.raises(MCPError, match="the bridge is stopping"):
                await client.call_tool("hang", {})

        await client.list_tools()  # it wants them after the first call, which is too late here
        tasks.start_soon(in_time)
        tasks.start_soon(too_late)
        for tool in ("slow", "hang"):
            await logged(log, partial(is_call_of, tool))
        bridge.process.send_signal(signal.SIGTERM)
        assert await bridge.end() == 0
    assert not any("Traceback" in line for line in bridge.lines), bridge.lines


def is_call_of(tool: str, entry: Json) -> bool:
    return entry.get("method") == "tools/call" and entry["params"]["name"] == tool


def test_the_end_takes_three_seconds_at_most() -> None:
    servers, connections = 2 * stdio.GRACE_SECONDS, serve.HANG_UP_SECONDS
    longest = serve.GRACE_SECONDS + max(servers, connections)  # these two end side by side
    assert longest <= 3 - 0.5, "some time is needed for everything else"


async def test_sighup_reads_the_configuration_again_and_the_command_line_still_holds(
    tmp_path: Path,
) -> None:
    config = written(tmp_path / "c.json", logging={"format": "text"})
    async with serving(config, "--log-level", "INFO") as bridge:
        written(
            config,
            network={"port": 1},
            logging={"format": "json", "log_level": "ERROR"},
            mcp_servers={"gone": {"command": "no-such-command"}},
        )
        bridge.process.send_signal(signal.SIGHUP)
        applied = json.loads(await bridge.until(lambda line: "configuration applied" in line))
        assert "added gone" in applied["message"]
        assert "network.port" not in applied["message"]  # --port is stronger than the file


async def test_a_port_that_is_taken_ends_it_with_one_line_before_anything_starts(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    config = written(tmp_path / "c.json", mcp_servers={"x": scripted(log)})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with process(config, "--port", str(port)) as bridge:
            assert await bridge.end() == 1
    (line,) = bridge.lines
    assert f"port {port} of 127.0.0.1 is in use" in line
    assert not log.exists()


async def test_mistakes_end_it_and_all_of_them_are_named(tmp_path: Path) -> None:
    config = written(tmp_path / "c.json", mcp_servers={"x": {}}, limits={"max_rounds": 0})
    async with process(config) as bridge:
        assert await bridge.end() == 1
    assert len(bridge.lines) == 2
    assert any("mcp_servers.x: " in line for line in bridge.lines)
    assert any("limits.max_rounds: " in line for line in bridge.lines)


# Sockets


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}/v1"),
        ("localhost", "http://localhost:{}/v1"),
        ("0.0.0.0", "http://127.0.0.1:{}/v1"),
    ],
)
def test_clients_get_an_address_that_works_on_this_machine(host: str, url: str) -> None:
    network = Network(host=host, port=0)
    with ExitStack() as closing:
        sockets = [closing.enter_context(one) for one in listen(network)]
        (port,) = {one.getsockname()[1] for one in sockets}
        assert url_of(network, sockets) == url.format(port)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("nothing.invalid", 'network.host: there is no address for "nothing.invalid"'),
        ("192.0.2.1", 'network.host: this machine has no address "192.0.2.1"'),
        ("x" * 300, "network.host: there is no address"),
    ],
)
def test_an_address_that_cannot_be_had_is_named(host: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        listen(Network(host=host, port=0))
