"""Several workers behind one port: whichever a request comes to, the promises hold."""

import json
import os
import signal
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.bridged import Json, scripted_server
from tests.api.test_elicitation import asks
from tests.fakes import Item, Request, ScriptedInference, answer
from tests.mcp_client.running import entries, logged
from tests.test_serve import is_call_of, written
from tests.workers.crew import PATIENCE, WORKER, Crew, Visitor, crew

pytestmark = pytest.mark.anyio

EVERYTHING, ECHO_ONLY = "key-of-one", "key-of-another"
OURS = ("c1", "echo", '{"text": "ours"}')
THEIRS = ("c2", "mine", "{}")
MINE = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}


class House:
    """The shared bridge, and what is around it."""

    def __init__(self, made: Crew, inference: ScriptedInference, folder: Path) -> None:
        self.crew = made
        self.inference = inference
        self.folder = folder

    @property
    def log(self) -> Path:
        """Of the MCP server."""
        return self.folder / "log"

    def says(self, *script: Item) -> None:
        """What the model answers next."""
        self.inference.script[:] = script
        self.inference.requests.clear()

    def heard(self, request: int = -1) -> list[str]:
        """What the model read of its tools in a question."""
        messages = self.inference.requests[request].json["messages"]
        return [message["content"] for message in messages if message["role"] == "tool"]


def config(inference: ScriptedInference, folder: Path) -> Json:
    keys = [
        {"key": EVERYTHING, "name": "one"},
        {"key": ECHO_ONLY, "name": "another", "tools": ["tools:echo"]},
    ]
    return {
        "inference_server": {"base_url": inference.base_url, "max_retries": 0},
        "mcp_servers": {
            "tools": scripted_server("prompts", log=folder / "log"),
            "single": scripted_server("tool=alone", log=folder / "single", parallel=False),
        },
        "toolsets": {"all": {}},
        "tools": {"elicitation": True, "restore_history": True, "max_result_chars": 200},
        "security": {"auth": {"enabled": True, "api_keys": keys}},
    }


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[House]:
    folder = tmp_path_factory.mktemp("crew")
    async with ScriptedInference() as inference:
        path = written(folder / "c.json", **config(inference, folder))
        async with crew(path) as made:
            await made.log.until("single: connected")
            await made.log.until("tools: connected")
            yield House(made, inference, folder)


def clients(house: House, *workers: int, key: str = EVERYTHING) -> Any:
    return house.crew.clients(workers, key)


def asked(text: str) -> Json:
    return {"role": "user", "content": text}


# What is kept for the next request


async def test_our_half_of_a_mixed_turn_is_there_wherever_the_next_request_arrives(
    house: House,
) -> None:
    async with clients(house, 0, 1, 2) as visitors:
        for here, there in ((0, 1), (1, 2), (2, 0), (1, 0)):
            house.says(answer(calls=[OURS, THEIRS]), answer("done"))
            first = await visitors[here].chat("go", tools=[MINE])
            assert [call["id"] for call in first["message"]["tool_calls"]] == ["c2"]
            result = {"role": "tool", "tool_call_id": "c2", "content": "theirs"}
            history = [asked("go"), first["message"], result]
            second = await visitors[there].chat(history, tools=[MINE])
            assert second["message"]["content"] == "done"
            assert house.heard() == ["ours", "theirs"]


async def test_a_result_that_was_cut_in_one_worker_is_read_on_in_another(house: House) -> None:
    async with clients(house, 1, 2) as (here, there):
        big = ("c1", "echo", json.dumps({"text": "a" * 500 + "the end"}))
        house.says(answer(calls=[big]), answer("long"))
        first = await here.chat("read it")
        (notice,) = house.heard()
        number = notice.split('id="')[1].split('"')[0]
        more = ("c9", "read_tool_result", json.dumps({"id": number, "offset": 400}))
        house.says(answer(calls=[more]), answer("all of it"))
        await there.chat([asked("read it"), first["message"], asked("go on")])
        assert "the end" in house.heard()[-1]


async def test_hidden_turns_are_restored_in_another_worker(house: House) -> None:
    async with clients(house, 2, 1) as (here, there):
        house.says(answer(calls=[OURS]), answer("it says ours"), answer("as I said"))
        first = await here.chat("what does it say?")
        said = {"role": "assistant", "content": first["message"]["content"]}
        await there.chat([asked("what does it say?"), said, asked("sure?")])
        assert house.heard() == ["ours"]


async def test_what_is_kept_for_one_caller_is_nobody_elses_in_any_worker(house: House) -> None:
    async with clients(house, 1) as (here,), clients(house, 2, key=ECHO_ONLY) as (other,):
        house.says(answer(calls=[OURS]), answer("it says ours"), answer("hm"))
        first = await here.chat("a secret?")
        said = {"role": "assistant", "content": first["message"]["content"]}
        await other.chat([asked("a secret?"), said, asked("what was it?")])
        assert house.heard() == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1", "/t/all/v1"])
async def test_a_question_to_the_user_is_answered_through_another_worker(
    house: House, stream: bool, path: str
) -> None:
    async with clients(house, 1, 2) as (here, there):
        house.says(answer(calls=[asks()]), answer("painted"))
        first = (await here.chat("paint", path=path))["message"]
        assert "Which colour?" in first["content"]
        history = [asked("paint"), first, asked("blue")]
        if stream:
            assert (await there.streamed(history, path=path)).text == "painted"
        else:
            assert (await there.chat(history, path=path))["message"]["content"] == "painted"
        assert json.loads(house.heard()[0])["content"] == {"colour": "blue"}


async def test_an_answer_does_not_wait_for_long_for_a_worker_that_hangs(house: House) -> None:
    hanging = house.crew.pids[2]
    async with clients(house, 1, 0) as (here, there):
        house.says(answer(calls=[OURS, THEIRS]), answer("done"))
        try:
            os.kill(hanging, signal.SIGSTOP)
            first = await here.chat("go", tools=[MINE])
            result = {"role": "tool", "tool_call_id": "c2", "content": "theirs"}
            await there.chat([asked("go"), first["message"], result], tools=[MINE])
        finally:
            os.kill(hanging, signal.SIGCONT)
        assert house.heard() == ["ours", "theirs"]


# MCP servers, of which there is one each


async def test_each_mcp_server_runs_once_for_all_workers(house: House) -> None:
    async with clients(house, 0, 1, 2) as visitors:
        for number, visitor in enumerate(visitors):
            house.says(answer(calls=[("c1", "echo", f'{{"text": "n{number}"}}')]), answer("ok"))
            await visitor.chat("count")
            assert house.heard() == [f"n{number}"]
    assert len([entry for entry in entries(house.log) if "pid" in entry]) == 1


async def test_tools_that_a_server_adds_are_there_in_every_worker(house: House) -> None:
    async with clients(house, 1) as (here,):
        house.says(answer(calls=[("c1", "grow", '{"names": ["sprout"]}')]), answer("grown"))
        await here.chat("grow")
    async with clients(house, 0, 1, 2) as visitors:
        for visitor in visitors:
            with anyio.fail_after(10):
                names: set[str] = set()
                while "sprout" not in names:
                    house.says(answer("hello"))
                    await visitor.chat("hi")
                    offered = house.inference.requests[0].json["tools"]
                    names = {tool["function"]["name"] for tool in offered}


async def test_a_server_that_takes_one_call_at_a_time_does_so_for_all_workers(
    house: House,
) -> None:
    log = house.folder / "single"

    def says(request: Request) -> Any:
        messages = request.json["messages"]
        if messages[-1]["role"] == "tool":
            return answer("ok")
        return answer(calls=[("c1", messages[-1]["content"], '{"a": 1}')])

    async with clients(house, 1, 2) as (here, there), anyio.create_task_group() as tasks:
        house.says(*[says] * 3)
        leaving = anyio.CancelScope()

        async def hang() -> None:
            with leaving:
                await here.chat("single__hang")

        tasks.start_soon(hang)
        await logged(log, partial(is_call_of, "hang"))
        tasks.start_soon(there.chat, "alone")
        await house.inference.wait_for_requests(2)
        leaving.cancel()
        await logged(log, partial(is_call_of, "alone"))
    methods = [
        (entry["method"], entry["params"].get("name"))
        for entry in entries(log)
        if entry.get("method") in ("tools/call", "notifications/cancelled")
    ]
    assert methods == [
        ("tools/call", "hang"),
        ("notifications/cancelled", None),
        ("tools/call", "alone"),
    ]


async def test_prompts_of_servers_open_a_chat(house: House) -> None:
    async with clients(house, 1) as (here,):
        house.says(answer("hello"))
        await here.chat("hi", mcp={"prompt": "hello"})
    await logged(house.log, lambda entry: entry.get("method") == "prompts/get")


async def test_progress_comes_through(house: House) -> None:
    async with clients(house, 1) as (here,):
        slow = ("c1", "slow", '{"steps": 2, "pause": 0.01}')
        house.says(answer(calls=[slow]), answer("done"))
        read = await here.streamed("slowly", mcp={"progress": "reasoning"})
        assert "step 1" in read.reasoning and "step 2" in read.reasoning


async def test_a_server_is_given_a_model_by_the_worker_of_the_call(house: House) -> None:
    params = {"messages": [{"role": "user", "content": {"type": "text", "text": "2?"}}]}
    question = {"method": "sampling/createMessage", "params": {**params, "maxTokens": 5}}
    async with clients(house, 2) as (here,):
        call = ("c1", "ask", json.dumps(question))
        house.says(answer(calls=[call]), answer("two"), answer("it said two"))
        await here.chat("ask")
        assert json.loads(house.heard()[0])["content"]["text"] == "two"


async def test_errors_of_servers_are_told_as_they_are(house: House) -> None:
    async with clients(house, 0, 1) as visitors:
        said = []
        for visitor in visitors:
            house.says(answer(calls=[("c1", "refuse", "{}"), ("c2", "fail", "{}")]), answer("oh"))
            await visitor.chat("try")
            said.append(house.heard())
        assert said[0] == said[1]
        assert "-32050" in said[0][0] and "it went wrong" in said[0][1]


async def test_a_client_that_leaves_stops_its_tools(house: House) -> None:
    before = len(entries(house.log))

    def logs(method: str, entry: Json) -> bool:
        return entry in entries(house.log)[before:] and entry.get("method") == method

    async with clients(house, 1) as (here,), anyio.create_task_group() as tasks:
        house.says(answer(calls=[("c1", "hang", "{}")]))
        tasks.start_soon(here.chat, "hang")
        await logged(house.log, partial(logs, "tools/call"))
        tasks.cancel_scope.cancel()
    await logged(house.log, partial(logs, "notifications/cancelled"))


# Doors that only the keeper has


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CALL = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"text": "across"}},
}
ACCEPT = {"accept": "application/json, text/event-stream"}


async def test_a_session_is_used_over_connections_to_different_workers(house: House) -> None:
    async with clients(house, 0, 1, 2) as (first, second, third):
        hello = await second.post("/mcp", HELLO, **ACCEPT)
        session = {"mcp-session-id": hello.headers["mcp-session-id"], **ACCEPT}
        assert (await third.post("/mcp", READY, **session)).status_code == 202
        for visitor in (first, second, third):
            answered = await visitor.post("/mcp", CALL, **session)
            assert "across" in answered.text


async def test_sse_comes_through_a_worker_that_has_no_servers(house: House) -> None:
    async with clients(house, 1, 2) as (streaming, posting):
        async with streaming.http.stream("GET", "/mcp-server/sse") as stream:
            assert stream.headers[WORKER] == "1"
            events = stream.aiter_lines()
            path = await data_of(events)
            assert (await posting.post(path, HELLO)).status_code == 202
            assert json.loads(await data_of(events))["id"] == 1
            await posting.post(path, READY)
            await posting.post(path, CALL)
            assert "across" in await data_of(events)


async def data_of(events: Any) -> str:
    async for line in events:
        if line.startswith("data: "):
            return str(line[6:])
    raise AssertionError("the stream has ended")


async def test_a_websocket_comes_through_a_worker_that_has_no_servers(house: House) -> None:
    with anyio.fail_after(PATIENCE):
        async with house.crew.websocket(1, EVERYTHING) as socket:
            for message in (HELLO, READY, CALL):
                await socket.send(json.dumps(message))
            assert json.loads(await socket.recv())["id"] == 1
            assert "across" in str(await socket.recv())


async def test_hosts_keys_and_toolsets_are_checked_wherever_a_request_arrives(
    house: House,
) -> None:
    async with clients(house, 0, 1, 2) as visitors:
        for visitor in visitors:
            strange = await visitor.http.post("/mcp", json=HELLO, headers={"host": "evil.example"})
            assert strange.status_code == 421
            unknown = {"authorization": "Bearer no"}
            for path in ("/mcp/tools", "/v1/models"):
                refused = await visitor.http.get(path, headers=unknown)
                assert refused.status_code == 401
            missing = await visitor.post("/t/nothing/v1/chat/completions", {"messages": []})
            assert missing.status_code == 404
    async with clients(house, 0, 1, 2, key=ECHO_ONLY) as visitors:
        for visitor in visitors:
            house.says(answer("hi"))
            await visitor.chat("hi")
            (tool,) = house.inference.requests[0].json["tools"]
            assert tool["function"]["name"] == "echo"
            listed = (await visitor.http.get("/mcp/tools")).json()
            assert [tool["name"] for tool in listed["tools"]] == ["echo"]


async def test_each_worker_gets_its_part_of_connections_that_come_together(house: House) -> None:
    met: list[str] = []
    all_here = anyio.Event()

    async def connect() -> None:
        async with httpx2.AsyncClient(base_url=house.crew.url, timeout=PATIENCE) as client:
            met.append((await client.get("/healthz")).headers[WORKER])
            if len(met) == 24:
                all_here.set()
            await all_here.wait()

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for _ in range(24):
                tasks.start_soon(connect)
    assert all(met.count(str(number)) >= 2 for number in range(3)), met


async def test_what_the_workers_count_is_shown_as_one(house: House) -> None:
    async with clients(house, 0, 1, 2) as visitors:

        async def counted(visitor: Visitor) -> dict[str, float]:
            page = (await visitor.http.get("/metrics")).text
            names = (
                "mcp_bridge_conversations_total",
                "mcp_bridge_tool_calls_total",
                "mcp_bridge_http_requests_total",
            )
            found = dict.fromkeys(names, 0.0)
            for family in text_string_to_metric_families(page):
                for sample in family.samples:
                    path = sample.labels.get("path", "/v1/chat/completions")
                    if sample.name in found and path == "/v1/chat/completions":
                        found[sample.name] += sample.value
            return found

        before = await counted(visitors[1])
        for visitor in visitors:
            house.says(answer(calls=[OURS]), answer("ok"))
            await visitor.chat("count me")
        assert {name: n - before[name] for name, n in (await counted(visitors[2])).items()} == {
            "mcp_bridge_conversations_total": 3,
            "mcp_bridge_tool_calls_total": 3,
            "mcp_bridge_http_requests_total": 3,
        }


async def test_lines_of_the_log_say_which_worker_wrote_them(house: House) -> None:
    async with clients(house, 2) as (here,):
        since = len(house.crew.log.lines)
        house.says(answer(calls=[OURS]), answer("ok"))
        await here.chat("log me")
        wanted = r"w2 middleware \[(req_\w+)\]: POST /v1/chat/completions"
        request = (await house.crew.log.until(wanted, since))[1]
    calls = [line for line in house.crew.log.lines[since:] if "tool echo (tools)" in line]
    (ours,) = [line for line in calls if request in line]  # once, though two workers had a part
    assert " w2 " in ours


async def test_sighup_reaches_every_worker(house: House) -> None:
    since = len(house.crew.log.lines)
    house.crew.process.send_signal(signal.SIGHUP)
    for number in range(3):
        await house.crew.log.until(f"w{number} bridge: configuration applied", since)


async def test_a_new_configuration_reaches_every_worker(house: House) -> None:
    since = len(house.crew.log.lines)
    changed = {**config(house.inference, house.folder), "toolsets": {"all": {}, "late": {}}}
    written(house.folder / "c.json", **changed)
    for number in range(3):
        await house.crew.log.until(f"w{number} bridge: configuration applied", since)
    async with clients(house, 0, 1, 2) as visitors:
        for visitor in visitors:
            models = (await visitor.http.get("/v1/models")).json()["data"]
            assert "model-a@late" in [model["id"] for model in models]
