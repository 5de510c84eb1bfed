"""Real MCP servers and real clients: what a user does on the first day, over every transport.

The model is scripted, all the rest is what people run: servers of PyPI and npm, the openai SDK and
curl.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from openai import AsyncOpenAI

from tests.api.bridged import Place, bridged
from tests.fakes import Call, answer
from tests.npm import npm_server
from tests.servers.web import serving

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def call(name: str, **arguments: Any) -> Call:
    return ("call_1", name, json.dumps(arguments))


def module(name: str, *args: str) -> Json:
    return {"command": sys.executable, "args": ["-m", name, *args]}


async def asked(place: Place, *, stream: bool) -> str:
    """Ask with the openai SDK; returns the text of the answer."""
    async with AsyncOpenAI(base_url=f"{place.url}/v1", api_key="none", max_retries=0) as client:
        if not stream:
            completion = await client.chat.completions.create(
                model="model-a", messages=[{"role": "user", "content": "use the tool"}]
            )
            return completion.choices[0].message.content or ""
        async with client.chat.completions.stream(
            model="model-a", messages=[{"role": "user", "content": "use the tool"}]
        ) as events:
            final = await events.get_final_completion()
            return final.choices[0].message.content or ""


async def result_of(servers: Json, wanted: Call, *, stream: bool) -> str:
    """What the model reads of that call."""
    async with bridged(answer(calls=[wanted]), answer("fine"), mcp_servers=servers) as place:
        states = {n: c.status()["error"] for n, c in place.bridge.connections.items()}
        assert states == dict.fromkeys(servers), states
        assert await asked(place, stream=stream) == "fine"
        content = place.inference.requests[1].json["messages"][-1]["content"]
    assert isinstance(content, str)
    return content


@BOTH
async def test_the_time_server_of_pypi_over_stdio(stream: bool) -> None:
    servers = {"time": module("mcp_server_time", "--local-timezone=UTC")}
    wanted = call("get_current_time", timezone="Asia/Tokyo")
    assert "Asia/Tokyo" in await result_of(servers, wanted, stream=stream)


async def test_the_git_server_of_pypi_over_stdio(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    await anyio.run_process([*git, "init", "-q", str(tmp_path)])
    (tmp_path / "a.txt").write_text("a")
    await anyio.run_process([*git, "-C", str(tmp_path), "add", "."])
    await anyio.run_process([*git, "-C", str(tmp_path), "commit", "-qm", "A first step"])
    servers = {"git": module("mcp_server_git", "--repository", str(tmp_path))}
    wanted = call("git_log", repo_path=str(tmp_path))
    assert "A first step" in await result_of(servers, wanted, stream=True)


async def test_the_fetch_server_of_pypi_over_stdio() -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        html = b"<html><body><p>The answer is 42.</p></body></html>"
        await send({"type": "http.response.body", "body": html})

    async with serving(page) as site:
        args = ("--allow-private-ips", "--ignore-robots-txt")
        servers = {"fetch": module("mcp_server_fetch", *args)}
        wanted = call("fetch", url=site.url, raw=True)
        assert "The answer is 42." in await result_of(servers, wanted, stream=False)


@BOTH
async def test_the_filesystem_server_of_npm_over_stdio(stream: bool, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("remember the milk")
    command, *args = npm_server("server-filesystem", str(tmp_path))
    servers = {"files": {"command": command, "args": args}}
    wanted = call("read_text_file", path=str(tmp_path / "note.txt"))
    assert "remember the milk" in await result_of(servers, wanted, stream=stream)


@asynccontextmanager
async def everything(transport: str) -> AsyncGenerator[Json]:
    """The configuration entry of a running server-everything of npm."""
    command, *args = npm_server("server-everything", transport)
    if transport == "stdio":
        yield {"command": command, "args": args}
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await anyio.open_process(
        [command, *args],
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        await listening(port)
        path = "sse" if transport == "sse" else "mcp"
        yield {"url": f"http://127.0.0.1:{port}/{path}"}
    finally:
        process.send_signal(signal.SIGKILL)
        await process.aclose()


async def listening(port: int) -> None:
    with anyio.fail_after(20):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            except OSError:
                await anyio.sleep(0.05)  # another process: there is nothing to wait for


@BOTH
@pytest.mark.parametrize("transport", ["stdio", "streamableHttp", "sse"])
async def test_the_everything_server_of_npm_over_every_transport(
    transport: str, stream: bool
) -> None:
    async with everything(transport) as entry:
        text = await result_of({"all": entry}, call("echo", message="hello"), stream=stream)
    assert "hello" in text


async def test_three_servers_answer_one_question(tmp_path: Path) -> None:
    calls = [
        ("c1", "get_current_time", '{"timezone": "Europe/Paris"}'),
        ("c2", "echo", '{"message": "over http"}'),
        ("c3", "get-sum", '{"a": 2, "b": 40}'),
    ]
    async with everything("streamableHttp") as http, everything("sse") as sse:
        servers = {"time": module("mcp_server_time"), "http": http, "sse": sse}
        calls[2] = ("c3", "sse__get-sum", calls[2][2])
        async with bridged(answer(calls=calls), answer("all"), mcp_servers=servers) as place:
            read = await place.streamed()
            messages = place.inference.requests[1].json["messages"]
    assert read.text == "all"
    texts = [m["content"] for m in messages if m["role"] == "tool"]
    assert "Europe/Paris" in texts[0]
    assert "over http" in texts[1]
    assert "42" in texts[2]


@BOTH
async def test_curl_gets_an_answer_through_a_tool(stream: bool) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed: apt-get install curl")
    script = [
        answer(calls=[call("get_current_time", timezone="Asia/Tokyo")]),
        answer("It is late."),
    ]
    async with bridged(*script, mcp_servers={"time": module("mcp_server_time")}) as place:
        body = json.dumps(place.body("What time is it?", stream=stream))
        url = f"{place.url}/v1/chat/completions"
        headers = ["-H", "content-type: application/json"]
        done = await anyio.run_process([curl, "-sN", "--fail", url, *headers, "-d", body])
    if stream:
        lines = [line for line in done.stdout.decode().splitlines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        said = "".join(
            choice["delta"].get("content") or ""
            for line in lines[:-1]
            for choice in json.loads(line[6:])["choices"]
        )
    else:
        said = json.loads(done.stdout)["choices"][0]["message"]["content"]
    assert said == "It is late."
