"""What goes wrong: servers and clients that die, equal ids, huge results, slow readers, the end."""

import asyncio
import gc
import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import httpx2
import pytest

from mcp_bridge.types import Json
from tests.conformance.everything import Witness, everything_app
from tests.mcp_client.running import SCRIPTED
from tests.mcp_server.box import Box, boxes, text, tool
from tests.mcp_server.running import PATIENCE, House, client, house, serving
from tests.mcp_server.test_routes import ACCEPT, INITIALIZE, request
from tests.mcp_server.wire import NEW, OLD, Refused, wire

both_eras = pytest.mark.parametrize("version", [OLD, NEW])
CAN_SAMPLE: Json = {"sampling": {}}


@both_eras
async def test_a_server_that_dies_during_a_call_is_a_result_and_comes_back(version: str) -> None:
    server = {"command": sys.executable, "args": [SCRIPTED]}
    async with house({"s": server}) as opened, wire(opened, version) as mcp:
        died = await mcp.call("die")
        assert died["isError"] is True
        assert "unknown" in died["content"][0]["text"]
        assert (await mcp.call("echo", text="back"))["content"][0]["text"] == "back"


@both_eras
async def test_a_server_that_is_gone_is_named_with_the_reason(version: str) -> None:
    server = {"command": sys.executable, "args": [SCRIPTED, "crash"], "startup_timeout": 5}
    box = Box(tools=[tool("t")], prompts=[{"name": "p"}])
    async with AsyncExitStack() as stack:
        async with boxes(a=box) as opened:
            mcp = await stack.enter_async_context(wire(opened, version))
            opened.bridge.connections["a"].reconnect()
            assert (await mcp.ask("tools/list"))["tools"]
    async with house({"s": server}) as opened, wire(opened, version) as mcp:
        assert (await mcp.ask("tools/list"))["tools"] == []


async def waits_for_an_answer(context: Any, params: Json) -> Json:
    question = {"messages": [], "maxTokens": 5}
    channel = context.session._request_outbound
    answer = await channel.send_raw_request("sampling/createMessage", question)
    return text(str(answer))


def asking_box(ended: anyio.Event) -> Box:
    """A server that asks for a model in the middle of a call, and says when that call is over."""

    async def ask(context: Any, params: Json) -> Json:
        try:
            return await waits_for_an_answer(context, params)
        finally:
            ended.set()

    return Box(tools=[tool("ask")], answers={"ask": ask})


async def test_a_client_of_the_old_era_that_vanishes_while_it_is_asked_ends_the_call() -> None:
    ended = anyio.Event()
    async with boxes("legacy", a=asking_box(ended)) as opened:
        body = {**INITIALIZE, "params": {**INITIALIZE["params"], "capabilities": CAN_SAMPLE}}
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            begun = await http.post(opened.mcp, json=body, headers=ACCEPT)
            headers = {**ACCEPT, "mcp-session-id": begun.headers["mcp-session-id"]}
            call = request("tools/call", {"name": "ask"}, 2)
            async with http.stream("POST", opened.mcp, json=call, headers=headers) as response:
                async for line in response.aiter_lines():
                    if "sampling/createMessage" in line:
                        break
        with anyio.fail_after(PATIENCE):
            await ended.wait()


async def test_a_client_of_the_new_era_that_never_comes_back_holds_nothing_for_long() -> None:
    ended = anyio.Event()
    async with boxes("legacy", a=asking_box(ended)) as opened:
        parked = opened.door.facade.parked
        parked.answer_seconds = 0.1
        async with wire(opened, NEW, CAN_SAMPLE) as mcp:
            asked = await mcp.call("ask")
            assert asked["resultType"] == "input_required"
            with anyio.fail_after(PATIENCE):
                await ended.wait()
                while len(parked):
                    await anyio.lowlevel.checkpoint()
            late = {"name": "ask", "requestState": asked["requestState"], "inputResponses": {}}
            with pytest.raises(Refused, match="begin it again"):
                await mcp.ask("tools/call", late)


async def test_a_parked_call_is_nobody_elses() -> None:
    keys = [{"key": "k1", "name": "ada"}, {"key": "k2", "name": "bob"}]
    settings = {"security": {"auth": {"enabled": True, "api_keys": keys}}}
    box = asking_box(anyio.Event())
    async with (
        boxes("legacy", settings, a=box) as opened,
        wire(opened, NEW, CAN_SAMPLE, key="k1") as ada,
        wire(opened, NEW, CAN_SAMPLE, key="k2") as bob,
    ):
        asked = await ada.call("ask")
        answer = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}}
        back = {
            "name": "ask",
            "requestState": asked["requestState"],
            "inputResponses": dict.fromkeys(asked["inputRequests"], answer),
        }
        with pytest.raises(Refused, match="begin it again"):
            await bob.ask("tools/call", back)
        assert "Paris" in (await ada.ask("tools/call", back))["content"][0]["text"]


async def test_equal_request_ids_of_two_clients_are_two_requests() -> None:
    async def slow_echo(context: Any, params: Json) -> Json:
        await anyio.sleep(0.05)  # so that both are in flight together
        return text(params["arguments"]["who"])

    box = Box(tools=[tool("who")], answers={"who": slow_echo})
    async with boxes(a=box) as opened, wire(opened) as one, wire(opened) as two:
        for mcp, name in ((one, "one"), (two, "two")):
            params = {"name": "who", "arguments": {"who": name}}
            await mcp.say({"id": 77, "method": "tools/call", "params": params})
        for mcp, name in ((one, "one"), (two, "two")):
            answer = await mcp.hear()
            assert answer["id"] == 77
            assert answer["result"]["content"][0]["text"] == name


@pytest.mark.parametrize("kind", ["http", "sse", "websocket"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_result_of_ten_megabytes_arrives(kind: str, era: str) -> None:
    box = Box(tools=[tool("big")], answers={"big": text("x" * 10_000_000)})
    async with boxes(a=box) as opened:
        if kind == "sse":  # the SDK's own SSE client does not read an event of over 1 MiB
            async with httpx2.AsyncClient(timeout=PATIENCE) as http:
                assert await big_over_sse(http, opened.url) > 10_000_000
            return
        async with client(kind, opened.url, era) as mcp:
            result = await mcp.call_tool("big")
    assert len(result.content[0].text) == 10_000_000  # type: ignore[union-attr]  # it is text


async def big_over_sse(http: httpx2.AsyncClient, url: str) -> int:
    """The length of the longest line on the SSE stream of a client that calls `big`."""
    longest = 0
    async with http.stream("GET", f"{url}/mcp-server/sse") as response:
        async for line in response.aiter_lines():
            longest = max(longest, len(line))
            if line.startswith("data: /mcp-server"):
                target = url + line.removeprefix("data: ")
                await http.post(target, json=INITIALIZE)
                await http.post(target, json=request("tools/call", {"name": "big"}, 2))
            if longest > 1000:
                return longest
    return longest


@pytest.mark.parametrize("kind", ["websocket", "sse"])
async def test_a_client_that_does_not_read_holds_up_nobody_else(kind: str) -> None:
    box = Box(
        tools=[tool("big"), tool("t")], answers={"big": text("x" * 3_000_000), "t": text("1")}
    )
    async with boxes(a=box) as opened, AsyncExitStack() as stack:
        await stack.enter_async_context(not_reading(opened, kind))
        async with wire(opened) as other:
            for _ in range(20):
                assert (await other.call("t"))["content"][0]["text"] == "1"


@asynccontextmanager
async def not_reading(opened: House, kind: str) -> AsyncGenerator[None]:
    """A client that has asked for a lot and reads nothing of it."""
    if kind == "websocket":
        async with wire(opened) as lazy:
            for _ in range(10):
                await lazy.send("tools/call", {"name": "big"})
            yield
        return
    async with (
        httpx2.AsyncClient(timeout=PATIENCE) as http,
        http.stream("GET", f"{opened.url}/mcp-server/sse") as response,
    ):
        lines = response.aiter_lines()
        await anext(lines)
        target = opened.url + (await anext(lines)).removeprefix("data: ")
        await http.post(target, json=INITIALIZE)
        for number in range(2, 12):
            await http.post(target, json=request("tools/call", {"name": "big"}, number))
        yield


# Nothing leaks.


async def test_clients_that_come_and_go_leave_nothing() -> None:
    box = Box(
        tools=[tool("t")], answers={"t": text("1")}, resources=[{"uri": "a://b", "name": "b"}]
    )
    async with boxes(a=box) as opened:
        await visit_in_every_way(opened)
        gc.collect()
        tasks = len(asyncio.all_tasks())
        for _ in range(5):
            await visit_in_every_way(opened)
        facade = opened.door.facade
        with anyio.fail_after(PATIENCE):
            while len(asyncio.all_tasks()) > tasks or facade.changes.guests:
                await anyio.lowlevel.checkpoint()  # closing takes the loop a few turns
        assert len(facade.parked) == 0
        assert len(opened.door.streamable.sessions) == 0


async def visit_in_every_way(opened: House) -> None:
    """One client of each kind: it lists, calls, watches, and leaves without a word or with one."""
    for kind in ("http", "sse", "websocket"):
        for era in ("legacy", "modern"):
            async with client(kind, opened.url, era) as mcp:
                await mcp.list_tools()
                await mcp.call_tool("t")
    async with wire(opened, OLD) as old, wire(opened, NEW) as new:
        await old.ask("resources/subscribe", {"uri": "a://b"})
        await new.send("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        await new.until_told("notifications/subscriptions/acknowledged")


# The end.


async def test_a_subscription_ends_with_its_result_when_the_bridge_stops() -> None:
    async with boxes(a=Box()) as opened, wire(opened, NEW) as mcp:
        number = await mcp.send(
            "subscriptions/listen", {"notifications": {"toolsListChanged": True}}
        )
        await mcp.until_told("notifications/subscriptions/acknowledged")
        await opened.door.drain(PATIENCE)
        answer = await mcp.hear()
    assert answer["id"] == number
    assert answer["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == number


async def test_a_call_that_is_cut_off_by_the_end_is_answered() -> None:
    began = anyio.Event()

    async def hang(context: Any, params: Json) -> Json:
        began.set()
        await anyio.sleep_forever()
        raise AssertionError

    box = Box(tools=[tool("hang")], answers={"hang": hang})
    async with boxes(a=box) as opened, wire(opened) as mcp:
        number = await mcp.send("tools/call", {"name": "hang"})
        await began.wait()
        await opened.door.close()
        answer = await mcp.hear()
    assert answer["id"] == number
    assert "stopping" in answer["error"]["message"]


async def test_the_process_ends_while_streams_of_every_kind_are_open(tmp_path: Path) -> None:
    witness = Witness()
    async with everything_app(witness) as app, serving(app) as site:
        config = tmp_path / "config.json"
        servers = {"e": {"url": f"{site.url}/mcp"}}
        config.write_text(json.dumps({"mcp_servers": servers, "network": {"port": 0}}))
        command = [sys.executable, "-m", "mcp_bridge", "serve", "--config", str(config)]
        async with (
            await anyio.open_process(command, stdout=DEVNULL, stderr=PIPE) as process,
            anyio.create_task_group() as tasks,
        ):
            try:
                url = await address(process)
                tasks.start_soon(hold_open, url)
                with anyio.fail_after(PATIENCE):
                    await witness.began.wait()
                    process.send_signal(signal.SIGTERM)
                    assert await process.wait() == 0
            finally:
                tasks.cancel_scope.cancel()
                if process.returncode is None:
                    process.kill()


async def address(process: anyio.abc.Process) -> str:
    """Where the bridge says that it listens."""
    said = ""
    assert process.stderr is not None
    with anyio.fail_after(PATIENCE):
        while "listening on" not in said or "\n" not in said.partition("listening on")[2]:
            said += (await process.stderr.receive()).decode()
    return said.partition("listening on ")[2].split("/v1")[0]


async def hold_open(url: str) -> None:
    """A stream of every kind, and a call that never ends."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as http, anyio.create_task_group() as tasks:
        begun = await http.post(f"{url}/mcp", json=INITIALIZE, headers=ACCEPT)
        session = {**ACCEPT, "mcp-session-id": begun.headers["mcp-session-id"]}

        async def hold(method: str, path: str, headers: dict[str, str], body: Json | None) -> None:
            try:
                async with http.stream(method, url + path, headers=headers, json=body) as response:
                    await response.aread()
            except httpx2.TransportError:
                pass  # the bridge has ended

        meta = {
            "io.modelcontextprotocol/protocolVersion": NEW,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        listen = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        new = {**ACCEPT, "mcp-protocol-version": NEW, "mcp-method": "subscriptions/listen"}
        tasks.start_soon(hold, "GET", "/mcp", session, None)
        tasks.start_soon(hold, "GET", "/mcp-server/sse", {}, None)
        tasks.start_soon(hold, "POST", "/mcp", new, request("subscriptions/listen", listen, 3))
        await anyio.sleep(0.2)  # so that they are open when the call begins
        forever = request("tools/call", {"name": "wait_for_ever"}, 4)
        tasks.start_soon(hold, "POST", "/mcp", session, forever)
