"""Workers that end: what the others do meanwhile, what is lost, and how all of them end."""

import os
import re
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from mcp_bridge.config.load import Loaded
from mcp_bridge.config.settings import Network, Settings
from mcp_bridge.workers.supervise import Plan, Supervisor, rooms
from tests.api.bridged import Json, scripted_server
from tests.fakes import ScriptedInference, answer, hang
from tests.mcp_client.running import dead, entries, logged
from tests.test_serve import written
from tests.workers.crew import PATIENCE, Crew, body_of, crew, supervised

OURS = ("c1", "echo", '{"text": "ours"}')
THEIRS = ("c2", "mine", "{}")
MINE = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}


@dataclass
class Two:
    """Two workers, and what is around them."""

    crew: Crew
    inference: ScriptedInference
    config: Path
    log: Path

    def read(self) -> list[str]:
        """What the model has read of its tools in its last question."""
        messages = self.inference.requests[-1].json["messages"]
        return [message["content"] for message in messages if message["role"] == "tool"]

    async def kill(self, worker: int) -> int:
        """Kill a worker; returns from where on the log tells what happened then."""
        since = len(self.crew.log.lines)
        os.kill(self.crew.pids[worker], signal.SIGKILL)
        await self.crew.log.until(rf"worker {worker} has ended \(killed by SIGKILL\)", since)
        return since

    async def kill_and_wait(self, worker: int) -> None:
        since = await self.kill(worker)
        await self.crew.log.until(rf"worker {worker} takes requests", since)


@asynccontextmanager
async def two(folder: Path) -> AsyncGenerator[Two]:
    async with ScriptedInference() as inference:
        config = written(
            folder / "c.json",
            inference_server={"base_url": inference.base_url, "max_retries": 0},
            mcp_servers={"tools": scripted_server(log=folder / "log")},
        )
        async with crew(config, workers=2) as made:
            await made.log.until("tools: connected")
            yield Two(made, inference, config, folder / "log")


@pytest.fixture(scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Two]:
    """For tests after which both workers stand as before."""
    async with two(tmp_path_factory.mktemp("two")) as made:
        yield made


# One of them


async def test_a_worker_that_is_killed_comes_back_and_knows_what_the_others_keep(
    standing: Two,
) -> None:
    standing.inference.script += [answer(calls=[OURS, THEIRS]), answer("done")]
    async with standing.crew.client(1) as here:
        first = await here.chat("go", tools=[MINE])
    await standing.kill_and_wait(1)
    result = {"role": "tool", "tool_call_id": "c2", "content": "theirs"}
    history = [{"role": "user", "content": "go"}, first["message"], result]
    async with standing.crew.client(1) as there:
        await there.chat(history, tools=[MINE])
    assert standing.read() == ["ours", "theirs"]


async def test_the_tools_of_the_others_are_repaired_when_the_keeper_is_killed(
    standing: Two,
) -> None:
    before = processes_in(standing.log)
    async with standing.crew.client(1) as here:
        since = await standing.kill(0)
        await standing.crew.log.until("w1 workers.link: worker 0 has ended", since)
        standing.inference.script += [answer(calls=[OURS]), answer("two")]
        await here.chat("after")
        assert standing.read() == ["ours"]
        listed = await here.http.get("/mcp/tools")
        assert "echo" in listed.text
    assert processes_in(standing.log) == before + 1


async def test_a_call_whose_keeper_is_killed_is_not_made_again(standing: Two) -> None:
    before = len(calls_of_hang(standing.log))
    standing.inference.script += [answer(calls=[("c1", "hang", "{}")]), answer("who knows")]
    async with standing.crew.client(1) as here, anyio.create_task_group() as tasks:
        tasks.start_soon(here.chat, "go")
        await logged(standing.log, lambda entry: len(calls_of_hang(standing.log)) > before)
        await standing.kill_and_wait(0)
    assert "may have taken effect" in standing.read()[0]
    assert len(calls_of_hang(standing.log)) == before + 1


async def test_what_the_keeper_was_answering_elsewhere_is_ended_when_it_is_killed(
    standing: Two,
) -> None:
    with anyio.fail_after(PATIENCE):
        async with standing.crew.client(1) as here, standing.crew.websocket(1) as socket:
            async with here.http.stream("GET", "/mcp-server/sse") as stream:
                assert stream.status_code == 200
                await standing.kill_and_wait(0)
                with pytest.raises(httpx2.RemoteProtocolError):
                    await stream.aread()
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012


async def test_a_configuration_that_broke_meanwhile_keeps_no_worker_from_coming_back(
    standing: Two,
) -> None:
    good = standing.config.read_text()
    standing.config.write_text("{")
    await standing.crew.log.until(r"w1 \S+: the new configuration is not used")
    await standing.kill_and_wait(1)
    async with standing.crew.client(1) as here:
        standing.inference.script += [answer("hello")]
        assert (await here.chat("hi"))["message"]["content"] == "hello"
    standing.config.write_text(good)


def processes_in(log: Path) -> int:
    return len([entry for entry in entries(log) if "pid" in entry])


def calls_of_hang(log: Path) -> list[Json]:
    found = [entry for entry in entries(log) if entry.get("method") == "tools/call"]
    return [entry for entry in found if entry["params"]["name"] == "hang"]


# One that hangs


@pytest.fixture(scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Crew]:
    """Two workers that are asked often whether they live."""
    network = {"port": 0, "workers": 2}
    config = written(tmp_path_factory.mktemp("watched") / "c.json", network=network)
    async with supervised("tests.workers.impatient", str(config)) as made:
        yield made


@pytest.mark.parametrize("worker", [1, 0])
async def test_a_worker_that_is_stopped_is_replaced(watched: Crew, worker: int) -> None:
    since, before = len(watched.log.lines), watched.pids
    os.kill(before[worker], signal.SIGSTOP)
    await watched.log.until(rf"worker {worker} has not answered for .* so it is ended", since)
    await watched.log.until(rf"worker {worker} has ended \(killed by SIGKILL\)", since)
    await watched.log.until(rf"worker {worker} takes requests", since)
    assert watched.pids[worker] != before[worker]
    assert watched.pids[1 - worker] == before[1 - worker]
    async with watched.client(worker) as here:
        assert (await here.http.get("/mcp/tools")).status_code == 200


async def test_a_worker_that_is_only_busy_is_not_replaced(watched: Crew) -> None:
    since, before = len(watched.log.lines), watched.pids
    os.kill(before[1], signal.SIGSTOP)
    await watched.log.until("worker 1 has not answered for", since)
    os.kill(before[1], signal.SIGCONT)
    await watched.log.until("worker 1 answers again", since)
    async with watched.client(1) as here:
        assert (await here.http.get("/mcp/tools")).status_code == 200
    assert watched.pids == before


# All of them


async def test_a_signal_ends_all_of_them_although_a_stream_is_open(tmp_path: Path) -> None:
    async with two(tmp_path) as made:
        child = (await logged(made.log, lambda entry: "pid" in entry))["pid"]
        made.inference.script += [hang()]
        async with (
            made.crew.client(1) as here,
            made.crew.websocket(1) as socket,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(left_alone, here.http)
            await made.inference.wait_for_requests(1)
            made.crew.process.terminate()
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert await made.crew.end() == 0
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001
        await dead(child, *made.crew.pids.values())
    wrong = re.compile("Traceback|killed")
    assert not any(map(wrong.search, made.crew.log.lines)), made.crew.log.lines


async def left_alone(http: httpx2.AsyncClient) -> None:
    try:
        await http.post("/v1/chat/completions", json=body_of("?", stream=True))
    except httpx2.HTTPError:
        pass  # the bridge ends meanwhile


async def test_a_call_that_is_under_way_at_the_end_is_answered(tmp_path: Path) -> None:
    said: list[str] = []
    async with two(tmp_path) as made:
        slow = ("c1", "slow", '{"steps": 2, "pause": 0.2}')
        made.inference.script += [answer(calls=[slow]), answer("done")]
        async with made.crew.client(1) as here:

            async def ask() -> None:
                said.append((await here.chat("slowly"))["message"]["content"])

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await logged(made.log, lambda entry: entry.get("method") == "tools/call")
                made.crew.process.send_signal(signal.SIGINT)
        assert await made.crew.end() == 0
    assert said == ["done"]


async def test_workers_end_when_their_supervisor_is_killed_and_nobody_reads_their_log(
    tmp_path: Path,
) -> None:
    async with two(tmp_path) as made:
        child = (await logged(made.log, lambda entry: "pid" in entry))["pid"]
        assert made.crew.process.stderr is not None
        await made.crew.process.stderr.aclose()
        made.crew.process.kill()
        await dead(child, *made.crew.pids.values())


async def test_a_worker_that_cannot_start_ends_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = Settings(network=Network(workers=2))
    with socket.create_server(("127.0.0.1", 0)) as public, rooms(2) as (directory, inside):
        command = (sys.executable, "-c", "raise SystemExit(3)")
        plan = Plan(Loaded(settings), None, {}, [public], command)
        supervisor = Supervisor(plan, directory, inside, lambda: pytest.fail("it never started"))
        await supervisor.run()
    assert supervisor.failed
    assert "could not start (exit code 3)" in caplog.text
