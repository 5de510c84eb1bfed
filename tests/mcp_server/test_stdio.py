"""The whole bridge as a stdio server, as clients start it."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import anyio.abc
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from mcp_bridge.types import Json
from tests import processes
from tests.conformance.everything import Witness, everything_app
from tests.mcp_client.running import SCRIPTED
from tests.mcp_server.box import Box, running, text, tool
from tests.mcp_server.running import PATIENCE, serving

COMMAND = [sys.executable, "-m", "mcp_bridge", "stdio", "--config"]
INITIALIZE: Json = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


def config(folder: Path, settings: Json | None = None, **servers: Json) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps({"mcp_servers": servers, **(settings or {})}))
    return str(path)


class Pipe:
    """A raw client that has started the bridge."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self._rest = b""

    async def say(self, method: str, params: Json, number: int | None = None) -> None:
        message: Json = {"jsonrpc": "2.0", "method": method, "params": params}
        if number is not None:
            message["id"] = number
        await self.write(json.dumps(message).encode() + b"\n")

    async def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(data)

    async def hear(self) -> Json:
        assert self.process.stdout is not None
        with anyio.fail_after(PATIENCE):
            while b"\n" not in self._rest:
                self._rest += await self.process.stdout.receive()
        line, _, self._rest = self._rest.partition(b"\n")
        message: Json = json.loads(line)
        return message

    async def hello(self) -> None:
        await self.say("initialize", INITIALIZE, 0)
        await self.hear()
        await self.say("notifications/initialized", {})

    async def ended(self) -> int:
        with anyio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def started(path: str, **options: Any) -> AsyncGenerator[Pipe]:
    options = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL, **options}
    async with processes.started([*COMMAND, path], **options) as process:
        yield Pipe(process)


async def test_a_client_that_can_only_start_a_command_sees_every_server(tmp_path: Path) -> None:
    box = Box(tools=[tool("far")], answers={"far": text("away")})
    async with running(box) as url:
        pipe = {"command": sys.executable, "args": [SCRIPTED]}
        servers: Json = {"web": {"url": url}, "pipe": pipe}
        parameters = StdioServerParameters(
            command=COMMAND[0], args=[*COMMAND[1:], config(tmp_path, **servers)]
        )
        with anyio.fail_after(PATIENCE):
            async with Client(stdio_client(parameters), cache=None) as client:
                listed = {t.name for t in (await client.list_tools()).tools}
                far = await client.call_tool("far")
                near = await client.call_tool("echo", {"text": "near"})
    assert {"far", "echo"} <= listed
    assert "away" in str(far.content)
    assert "near" in str(near.content)


async def test_what_is_asked_declined_and_cancelled_goes_over_the_pipe(tmp_path: Path) -> None:
    witness = Witness()
    async with everything_app(witness) as app, serving(app) as site:
        path = config(tmp_path, e={"url": f"{site.url}/mcp"})
        async with started(path) as pipe:
            await pipe.hello()
            await pipe.say("tools/call", {"name": "test_sampling", "arguments": {"prompt": "?"}}, 1)
            declined = await pipe.hear()
            assert declined["result"]["isError"]
            await pipe.say("tools/call", {"name": "wait_for_ever"}, 2)
            with anyio.fail_after(PATIENCE):
                await witness.began.wait()
                await pipe.say("notifications/cancelled", {"requestId": 2})
                await witness.cancelled.wait()


@pytest.mark.parametrize("how", ["written", "SIGHUP"])
async def test_a_changed_configuration_is_applied_and_the_client_is_told(
    how: str, tmp_path: Path
) -> None:
    server = {"command": sys.executable, "args": [SCRIPTED]}
    async with started(config(tmp_path)) as pipe:
        await pipe.hello()
        config(tmp_path, s={**server, "include": ["echo"]})
        if how == "SIGHUP":
            pipe.process.send_signal(signal.SIGHUP)
        assert (await pipe.hear())["method"] == "notifications/tools/list_changed"
        await pipe.say("tools/list", {}, 1)
        listed = await pipe.hear()
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["echo"]


async def test_it_ends_when_the_client_closes_stdin(tmp_path: Path) -> None:
    async with started(config(tmp_path)) as pipe:
        await pipe.hello()
        assert pipe.process.stdin is not None
        await pipe.process.stdin.aclose()
        assert await pipe.ended() == 0


async def test_it_ends_at_sigterm_although_stdin_stays_open(tmp_path: Path) -> None:
    async with started(config(tmp_path)) as pipe:
        await pipe.hello()
        pipe.process.send_signal(signal.SIGTERM)
        assert await pipe.ended() == 0


async def test_nothing_but_messages_is_on_stdout_and_servers_do_not_read_stdin(
    tmp_path: Path,
) -> None:
    servers: Json = {
        "noisy": {"command": sys.executable, "args": [SCRIPTED, "noise", "chatty-stderr"]}
    }
    async with started(config(tmp_path, **servers)) as pipe:
        await pipe.hello()
        for number in range(1, 20):
            arguments = {"text": f"{number} ä\u2028"}
            await pipe.say("tools/call", {"name": "echo", "arguments": arguments}, number)
            answer = await pipe.hear()
            assert answer["result"]["content"][0]["text"] == arguments["text"]


async def test_lines_that_are_no_messages_are_answered_one_by_one_and_it_goes_on(
    tmp_path: Path,
) -> None:
    path = config(tmp_path, {"limits": {"max_request_bytes": 1000}})
    ping = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    async with started(path) as pipe:
        await pipe.hello()
        for lines, code in [
            (b"\xff\xfe\n", -32700),
            (ping + b"\0\n", -32700),
            (b"\n  \n\r\n[]\n", -32600),
            (b"x" * 1_000_000 + ping + b"\n", -32600),
            (b"[" + b" " * 998 + b"]\n", -32600),
            (ping + b" " * 956 + b"\n", -32600),
        ]:
            await pipe.write(lines)
            assert (await pipe.hear())["error"]["code"] == code
        await pipe.write(ping[:20])
        await pipe.write(ping[20:] + b" " * 955 + b"\n")
        assert (await pipe.hear())["result"] == {}


async def test_files_may_be_stdin_and_stdout(tmp_path: Path) -> None:
    requests = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": INITIALIZE},
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    ]
    asked, answered = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text("".join(json.dumps(request) + "\n" for request in requests))
    with asked.open("rb") as stdin, answered.open("wb") as stdout:
        async with started(config(tmp_path), stdin=stdin, stdout=stdout) as pipe:
            assert await pipe.ended() == 0
    answers = [json.loads(line) for line in answered.read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [0, 1]


async def test_nothing_as_stdin_ends_it_and_a_full_disk_as_stdout_too(tmp_path: Path) -> None:
    async with started(config(tmp_path), stdin=DEVNULL) as pipe:
        assert await pipe.ended() == 0
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230  # nothing is read
        async with started(config(tmp_path), stdout=full) as pipe:
            await pipe.say("initialize", INITIALIZE, 0)
            assert await pipe.ended() == 0


async def test_one_socket_may_be_stdin_and_stdout_as_of_sshd_and_socat(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    async with started(config(tmp_path), stdin=theirs, stdout=theirs) as pipe:
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        for number in range(3):
            request = {"jsonrpc": "2.0", "id": number, "method": "ping"}
            writer.write(json.dumps(request).encode() + b"\n")
            with anyio.fail_after(PATIENCE):
                assert json.loads(await reader.readline())["id"] == number
        writer.write_eof()
        assert await pipe.ended() == 0
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
async def test_without_stdin_or_stdout_it_says_so(closed: str, tmp_path: Path) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, config(tmp_path)]
    with anyio.fail_after(PATIENCE):
        done = await anyio.run_process(command, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"standard input and output are closed" in done.stderr


async def test_a_client_that_reads_slowly_loses_nothing(tmp_path: Path) -> None:
    servers: Json = {"s": {"command": sys.executable, "args": [SCRIPTED]}}
    async with started(config(tmp_path, **servers)) as pipe:
        await pipe.hello()
        for number in range(1, 6):
            size = {"size": 1_000_000}
            await pipe.say("tools/call", {"name": "big", "arguments": size}, number)
        answers = [await pipe.hear() for _ in range(5)]
    assert {answer["id"] for answer in answers} == {1, 2, 3, 4, 5}
    assert all(len(a["result"]["content"][0]["text"]) == 1_000_000 for a in answers)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
async def test_a_client_that_closes_stdout_ends_it(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    async with started(config(tmp_path), stdout=theirs) as pipe:
        os.close(theirs)
        os.close(ours)
        await pipe.say("ping", {}, 1)
        assert await pipe.ended() == 0
