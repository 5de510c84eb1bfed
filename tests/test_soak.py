"""What stays behind: nothing. Many crashes, restarts and clients that leave, and then a count.

Whatever a repair or a request takes - tasks, file descriptors, processes, threads, memory - must
be given back. A leak of one in each cycle would show as hundreds; `SLACK` is for the pools and
caches of libraries, which grow to a size and stay there. When a bridge has been left, not even
that may be there.
"""

import asyncio
import gc
import json
import logging
import math
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvloop
from mcp.shared.exceptions import MCPError
from starlette.requests import Request as HttpRequest

from mcp_bridge.agent.conversation import Ask
from mcp_bridge.api.leaving import LOOK_SECONDS, Watch
from mcp_bridge.bridge import Bridge
from mcp_bridge.clock import Clock, Clocks
from mcp_bridge.errors import InferenceError
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_server.client import Client
from mcp_bridge.mcp_server.sessions import HttpSession
from tests.api.bridged import Place, bridged, scripted_server
from tests.fakes import Item, Reply, Request, Said, answer, chunk, refuse, sse, whole
from tests.mcp_client.running import PATIENCE, children
from tests.mcp_server.test_routes import ACCEPT, INITIALIZE, request
from tests.mcp_server.test_streamable import SESSION, modern
from tests.servers.web import Gate, Log, Restartable, restartable, serving, web_server
from tests.test_serve import process, written

Json = dict[str, Any]
SLACK = 12
RESIDENT_SLACK = 25_000_000
"""The allocator does not give everything back at once."""


@dataclass(frozen=True)
class Held:
    """What this process holds right now."""

    tasks: int
    descriptors: int
    children: int
    threads: int

    @classmethod
    def now(cls) -> "Held":
        return cls(
            len(asyncio.all_tasks()),
            len(os.listdir("/proc/self/fd")),
            len(children()),
            threading.active_count(),
        )

    def within(self, other: "Held", slack: int) -> bool:
        return (
            self.tasks <= other.tasks + slack
            and self.descriptors <= other.descriptors + slack
            and self.children <= other.children
            and self.threads <= other.threads + slack
        )


async def back_at(before: Held, slack: int = 0) -> None:
    """Wait until we hold no more than before: what ends needs a moment to be gone."""
    with anyio.move_on_after(PATIENCE):
        while not Held.now().within(before, slack):  # noqa: ASYNC110  # the kernel tells nobody
            await anyio.sleep(0.02)
    assert Held.now().within(before, slack), (before, Held.now(), asyncio.all_tasks())


@asynccontextmanager
async def nothing_left(slack: int = 0) -> AsyncGenerator[None]:
    """After the block everything is as it was before."""
    before = Held.now()
    yield
    await back_at(before, slack)


async def objects(module: str) -> Counter[str]:
    """How many objects there are of each type whose module begins like this."""
    loop = asyncio.get_running_loop()
    for _ in range(300):  # asyncio keeps timers that were cancelled until they are too many
        loop.call_later(3600, loop.stop).cancel()
    await asyncio.sleep(0)
    gc.collect()
    kinds = (f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects())
    return Counter(kind for kind in kinds if kind.startswith(module))


@asynccontextmanager
async def nothing_kept(cycles: int, module: str = "") -> AsyncGenerator[None]:
    """No type of object grows as the cycles go on, and the process stays as large as it was.

    `module` chooses types, for tests whose servers live, and leak, in this process too.
    """
    before, size = await objects(module), resident()
    yield
    grown = await objects(module) - before
    if sys.gettrace():
        del grown["builtins.method"]  # coverage keeps some for each thread, and each child has one
    assert {name: count for name, count in grown.items() if count > cycles // 4} == {}
    assert resident() - size < RESIDENT_SLACK


def resident() -> int:
    """Bytes of memory that this process uses."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """pytest would keep every record."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def until(bridge: Bridge, is_so: Callable[[], bool]) -> None:
    """Wait for what becomes true with the state of a connection."""
    send, receive = anyio.create_memory_object_stream[str](math.inf)
    stop = bridge.subscribe(send.send_nowait)
    try:
        with anyio.fail_after(PATIENCE), send, receive:
            while not is_so():
                await receive.receive()
    finally:
        stop()


async def announcement(connection: Connection) -> None:
    """Wait for what the server announces next."""
    heard = anyio.Event()
    stop = connection.subscribe_notifications(lambda method, params: heard.set())
    with anyio.fail_after(PATIENCE):
        await heard.wait()
    stop()


async def call(place: Place, tool: str, **arguments: Any) -> tuple[int, Json]:
    with anyio.fail_after(PATIENCE):
        response = await place.http.post(f"/mcp/tools/{tool}/call", json=arguments)
    return response.status_code, response.json()


# Crashes

CRASHES = 200
SERVERS = 4


async def crash(place: Place, server: str, prefix: str, number: int) -> None:
    """One server dies, in one of four ways, and the next call finds it repaired."""
    connection = place.bridge.connections[server]
    pid = connection.status()["pid"]
    match number % 4:
        case 0:
            os.kill(pid, signal.SIGKILL)
        case 1:
            status, _ = await call(place, f"{prefix}die")
            assert status >= 500
        case 2:
            await call(place, f"{prefix}answer_and_die")
        case 3:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, place, f"{prefix}hang")
                await announcement(connection)
                os.kill(pid, signal.SIGKILL)
    await until(place.bridge, lambda: connection.status()["pid"] != pid)
    said = f"{server} {number}"
    status, result = await call(place, f"{prefix}echo", text=said)
    assert (status, result["content"][0]["text"]) == (200, said)


async def test_servers_that_die_again_and_again_leave_nothing_behind() -> None:
    names = [f"s{n}" for n in range(SERVERS)]
    servers = {name: scripted_server() for name in names}

    async def crash_often(place: Place, server: str, count: int) -> None:
        prefix = "" if server == names[0] else f"{server}__"
        for number in range(count):
            await crash(place, server, prefix, number)

    async def all_crash(place: Place, count: int) -> None:
        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(crash_often, place, name, count)

    async with nothing_left(), bridged(mcp_servers=servers) as place:
        await all_crash(place, 4)
        before = Held.now()
        async with nothing_kept(CRASHES):
            await all_crash(place, CRASHES // SERVERS)
            await back_at(before, SLACK)


# Trouble with a server over HTTP

TROUBLES = 51


class Web:
    """An MCP server over HTTP that can be gated and restarted."""

    def __init__(self) -> None:
        self.log = Log()
        self.gate = self.application()

    def application(self) -> Gate:
        self.gate = Gate(web_server(self.log).streamable_http_app())
        return self.gate

    def forget(self) -> None:
        self.log.executed.clear()
        self.log.began, self.log.cancelled = anyio.Event(), anyio.Event()


async def trouble(place: Place, web: Web, server: Restartable, number: int) -> None:
    """The server is bad, or gone, or a caller leaves; the next call finds it well."""
    match number % 3:
        case 0:
            web.gate.status = 502
            status, _ = await call(place, "echo", text="x")
            assert status >= 500
            web.gate.status = None
        case 1:
            await server.stop()
            await server.start()
        case 2:
            web.forget()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, place, "hang")
                with anyio.fail_after(PATIENCE):
                    await web.log.began.wait()
                tasks.cancel_scope.cancel()
            with anyio.fail_after(PATIENCE):
                await web.log.cancelled.wait()
    status, result = await call(place, "echo", text=str(number))
    assert (status, result["content"][0]["text"]) == (200, str(number))


@pytest.mark.parametrize("protocol", ["legacy", "auto"])
async def test_a_server_with_trouble_again_and_again_leaves_nothing_behind(protocol: str) -> None:
    web = Web()
    # A worker thread of anyio's and a watcher of sse-starlette's stay, for the SDK's server.
    async with nothing_left(slack=2), restartable(web.application) as server:
        servers = {"web": {"url": f"{server.url}/mcp", "protocol": protocol}}
        async with bridged(mcp_servers=servers) as place:
            for number in range(6):
                await trouble(place, web, server, number)
            before = Held.now()
            async with nothing_kept(TROUBLES, "mcp_bridge."):
                for number in range(TROUBLES):
                    await trouble(place, web, server, number)
                await back_at(before, SLACK)


# Clients that leave

REQUESTS = 500
AT_ONCE = 16


def model(request: Request) -> Said:
    """Calls two tools, one of which takes a moment, and then says that it is done."""
    if request.json["messages"][-1]["role"] == "tool":
        return answer("Done.")
    calls = [
        ("c1", "echo", json.dumps({"text": "hi"})),
        ("c2", "slow", json.dumps({"steps": 2, "pause": 0.005})),
    ]
    return answer("Looking.", calls=calls)


async def leave(place: Place, stream: bool, dice: random.Random) -> None:
    """Ask, and go away at some point: of a stream after some lines, else after some time."""
    body = place.body("hi", stream=stream)
    if not stream:
        with anyio.move_on_after(dice.uniform(0, 0.1)):
            await place.http.post("/v1/chat/completions", json=body)
        return
    lines = dice.randrange(12)
    async with place.http.stream("POST", "/v1/chat/completions", json=body) as response:
        async for _ in response.aiter_lines():
            if (lines := lines - 1) < 0:
                return


async def chat(place: Place, count: int) -> None:
    """So many requests, some at the same time; of three clients one leaves."""
    dice = random.Random(count)
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            stream = dice.random() < 0.5
            if number % 3 == 0:
                with anyio.fail_after(PATIENCE):
                    await leave(place, stream, dice)
            else:
                said = await place.said("hi", stream=stream)
                assert said["content"] == "Looking.\n\nDone."

    async with anyio.create_task_group() as tasks:
        for _ in range(AT_ONCE):
            tasks.start_soon(client)


async def test_clients_that_leave_again_and_again_leave_nothing_behind() -> None:
    async with nothing_left(), bridged(then=model) as place:
        await chat(place, 100)
        before = Held.now()
        async with nothing_kept(REQUESTS):
            await chat(place, REQUESTS)
            await back_at(before, SLACK)
            place.inference.requests.clear()
        for stream in (False, True):
            assert (await place.said("hi", stream=stream))["content"] == "Looking.\n\nDone."


# Failures

BROKEN = {"error": {"message": "broken"}}
FAILURES = {
    "refused": whole(BROKEN, status=400),
    "tried again": whole(BROKEN, status=500, headers={"retry-after": "0"}),
    "gone": refuse(),
    "cut": sse(chunk({"content": "Hel"}), end="cut"),
}


def living(*kinds: type) -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


@asynccontextmanager
async def uncollected(
    *script: Item, made: tuple[type, ...], **config: Any
) -> AsyncGenerator[Place]:
    """A bridge without the collector: what a request has `made` must be gone soon after its answer.

    What nobody holds is gone at once, unless it holds itself; a client has its answer before the
    bridge has ended it. What others have left here before does not count.
    """
    config = {"mcp_servers": {}, "inference": {"max_retries": 1}, **config}
    async with bridged(*script, **config) as place:
        gc.collect()
        before = {id(each): each for each in living(*made)}
        gc.disable()
        try:
            yield place
            with anyio.fail_after(PATIENCE):
                while any(id(each) not in before for each in living(*made)):  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        finally:
            gc.enable()


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
async def test_a_request_that_failed_is_let_go_before_the_collector_runs(failure: Reply) -> None:
    async with uncollected(then=failure, made=(Ask, InferenceError)) as place:
        for stream in (False, True):
            response = await place.post("hi", stream=stream)
            assert '"error"' in response.text
            del response


async def test_a_request_that_was_tried_again_is_let_go_before_the_collector_runs() -> None:
    script = FAILURES["tried again"], answer("Done.")
    async with uncollected(*script, made=(Ask, InferenceError)) as place:
        assert (await place.said("hi", stream=False))["content"] == "Done."


async def test_an_answer_that_took_long_is_let_go_before_the_collector_runs() -> None:
    slowly = answer(calls=[("c1", "slow", json.dumps({"steps": 1, "pause": 2 * LOOK_SECONDS}))])
    async with uncollected(
        slowly, answer("Done."), mcp_servers={"tools": scripted_server()}, made=(Watch,)
    ) as place:
        assert (await place.said("hi", stream=False))["content"] == "Done."


async def test_an_answer_leaves_no_timer_behind() -> None:
    called = answer(calls=[("c1", "echo", json.dumps({"text": "hi"}))])
    async with uncollected(
        called, answer("Done."), mcp_servers={"tools": scripted_server()}, made=(Clocks,)
    ) as place:
        assert (await place.said("hi", stream=False))["content"] == "Done."


TOOLS = {"tools": scripted_server()}


async def test_a_call_at_the_mcp_door_is_let_go_before_the_collector_runs() -> None:
    async with uncollected(mcp_servers=TOOLS, made=(Client,)) as place:
        body, headers = modern("tools/call", {"name": "echo", "arguments": {"text": "hi"}})
        answer = await place.http.post("/mcp", json=body, headers={**ACCEPT, **headers})
        assert '"hi"' in answer.text


async def test_a_session_that_has_ended_is_let_go_before_the_collector_runs() -> None:
    async with uncollected(mcp_servers=TOOLS, made=(HttpSession,)) as place:
        opened = await place.http.post("/mcp", json=INITIALIZE, headers=ACCEPT)
        headers = {**ACCEPT, SESSION: opened.headers[SESSION]}
        begun = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await place.http.post("/mcp", json=begun, headers=headers)
        refused = request("tools/call", {"name": "refuse"}, 2)
        answer = await place.http.post("/mcp", json=refused, headers=headers)
        assert '"error"' in answer.text
        assert (await place.http.delete("/mcp", headers=headers)).status_code == 200


async def test_a_rest_call_is_let_go_before_the_collector_runs() -> None:
    async with uncollected(mcp_servers=TOOLS, made=(HttpRequest,)) as place:
        status, _ = await call(place, "echo", text="hi")
        assert status == 200


async def test_a_call_that_was_refused_is_let_go_before_the_collector_runs() -> None:
    async with uncollected(mcp_servers=TOOLS, made=(MCPError,)) as place:
        status, _ = await call(place, "refuse")
        assert status >= 400


CURRENT: ContextVar[tuple[Clock, Counter[str]]] = ContextVar("current")


def test_a_clock_that_was_left_is_let_go_with_all_that_its_context_has() -> None:
    async def leave() -> weakref.ref[Counter[str]]:
        clock, request = Clock(), Counter[str]()
        CURRENT.set((clock, request))
        clock.deadline = time.monotonic() + 60
        with clock:
            pass
        return weakref.ref(request)

    async def is_held() -> bool:
        task = asyncio.get_running_loop().create_task(leave())  # in a context of its own
        request = await task
        del task
        for _ in range(100):  # a timer is closed when the loop comes round
            await anyio.lowlevel.checkpoint()
        return request() is not None

    gc.disable()
    try:
        assert not uvloop.run(is_held())  # asyncio's own loop keeps what was cancelled for a while
    finally:
        gc.enable()


# Idle servers

WINDOW_SECONDS = 3.0
WINDOWS = 3
MOST_OF_A_CORE = 0.01


def cpu_seconds(pid: int) -> float:
    """How long all threads of a process have run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def share_of_a_core(pid: int) -> float:
    before = cpu_seconds(pid)
    await anyio.sleep(WINDOW_SECONDS)  # the claim is about doing nothing for some time
    return (cpu_seconds(pid) - before) / WINDOW_SECONDS


async def test_twenty_idle_servers_cost_next_to_nothing(tmp_path: Path) -> None:
    web = web_server(Log())
    async with serving(web.streamable_http_app()) as http, serving(web.sse_app()) as sse:
        servers: Json = {f"child{n}": scripted_server() for n in range(16)}
        servers |= {f"modern{n}": {"url": f"{http.url}/mcp"} for n in range(2)}
        servers["legacy"] = {"url": f"{http.url}/mcp", "protocol": "legacy"}
        servers["sse"] = {"url": f"{sse.url}/sse"}
        config = written(
            tmp_path / "config.json",
            inference_server={"base_url": "http://127.0.0.1:1/v1"},
            mcp_servers=servers,
        )
        async with process(config, "--port", "0") as bridge:
            for _ in servers:
                await bridge.until(lambda line: ": connected (" in line)
            shares = []
            for _ in range(WINDOWS):
                shares.append(await share_of_a_core(bridge.process.pid))
                if shares[-1] < MOST_OF_A_CORE:
                    break
            assert min(shares) < MOST_OF_A_CORE
