"""Streamable HTTP on the wire: what is JSON and what is a stream, sessions, refusals, the end."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from mcp_bridge import exact
from mcp_bridge.mcp_server.events import Rhythm, event
from mcp_bridge.types import Json
from tests.api.bridged import bridged
from tests.mcp_server.box import Box, boxes, text, tool
from tests.mcp_server.running import PATIENCE, House
from tests.mcp_server.test_routes import ACCEPT, INITIALIZE, request
from tests.mcp_server.wire import NEW, OLD

ABOUT = "io.modelcontextprotocol"
SESSION = "mcp-session-id"
BATCHES = "2025-03-26"
WAYS = ("session", "alone", "modern")
every_way = pytest.mark.parametrize("way", WAYS)
HASTY = Rhythm(look=0, held_back=0.01, ping=0.01)


def modern(method: str, params: Json, number: int = 1) -> tuple[Json, dict[str, str]]:
    """A request of the new era, and the headers that go with it."""
    meta = {f"{ABOUT}/protocolVersion": NEW, f"{ABOUT}/clientCapabilities": {}}
    headers = {"mcp-protocol-version": NEW, "mcp-method": method}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    body = request(method, {**params, "_meta": {**meta, **params.get("_meta", {})}}, number)
    return body, headers


class Visitor:
    """A client over raw HTTP, in one of three ways."""

    def __init__(self, http: httpx2.AsyncClient, house: House, way: str) -> None:
        self.http = http
        self.house = house
        self.way = way
        self.session: dict[str, str] = {}

    async def hello(self, capabilities: Json | None = None, version: str = OLD) -> None:
        params = {**INITIALIZE["params"], "protocolVersion": version}
        body = {**INITIALIZE, "params": {**params, "capabilities": capabilities or {}}}
        opened = await self.http.post(self.house.mcp, json=body, headers=ACCEPT)
        self.session = {SESSION: opened.headers[SESSION], "mcp-protocol-version": version}
        said = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await self.post(said)).status_code == 202

    def written(self, method: str, params: Json, number: int) -> tuple[Json, dict[str, str]]:
        if self.way == "modern":
            return modern(method, params, number)
        return request(method, params, number), self.session

    async def ask(self, method: str, params: Json | None = None, number: int = 1) -> Any:
        body, headers = self.written(method, params or {}, number)
        return await self.http.post(self.house.mcp, json=body, headers={**ACCEPT, **headers})

    async def post(self, body: Any, **headers: str) -> Any:
        sent = {**ACCEPT, **self.session, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return await self.http.post(self.house.mcp, json=body, headers=sent)

    @asynccontextmanager
    async def stream(self, method: str, params: Json, number: int = 1) -> AsyncGenerator[Any]:
        body, headers = self.written(method, params, number)
        sent = {**ACCEPT, **headers}
        async with self.http.stream("POST", self.house.mcp, json=body, headers=sent) as response:
            yield response

    @asynccontextmanager
    async def hearing(self, **headers: str) -> AsyncGenerator[Any]:
        """The stream of what belongs to no request."""
        sent = {**ACCEPT, **self.session, **headers}
        async with self.http.stream("GET", self.house.mcp, headers=sent) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream"
            yield response


@asynccontextmanager
async def visitor(way: str = "session", era: str = "auto", **found: Any) -> AsyncGenerator[Visitor]:
    async with (
        boxes(era, **found) as house,
        httpx2.AsyncClient(timeout=PATIENCE) as http,
    ):
        came = Visitor(http, house, way)
        if way == "session":
            await came.hello()
        yield came


async def messages(response: Any) -> AsyncGenerator[Json]:
    """What comes on a stream, without its pings."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def said(body: str) -> list[Json]:
    lines = [line for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def one(**more: Any) -> Box:
    return Box(tools=[tool("one", **more)], answers={"one": text("1")})


def held(began: anyio.Event, ended: anyio.Event, let_go: anyio.Event) -> Box:
    """A server whose tool works until it may end, and says when it begins and ends."""

    async def work(context: Any, params: Json) -> Json:
        began.set()
        try:
            await let_go.wait()
            return text("done")
        finally:
            ended.set()

    return Box(tools=[tool("work")], answers={"work": work})


def events() -> tuple[anyio.Event, anyio.Event, anyio.Event]:
    return anyio.Event(), anyio.Event(), anyio.Event()


WORK: Json = {"name": "work"}


# JSON or a stream.


@every_way
async def test_a_call_that_says_nothing_before_its_result_is_answered_with_json(way: str) -> None:
    async with visitor(way, a=one()) as client:
        response = await client.ask("tools/call", {"name": "one"}, 7)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"]
    answer = response.json()
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
    assert answer["result"]["content"] == text("1")["content"]
    assert (SESSION in response.headers) is (way == "session")


@every_way
async def test_progress_makes_a_stream_of_the_answer_and_the_result_ends_it(way: str) -> None:
    async def slow(context: Any, params: Json) -> Json:
        await context.session._request_outbound.progress(1, 2, "half")
        return text("done")

    box = Box(tools=[tool("slow")], answers={"slow": slow})
    async with visitor(way, a=box) as client:
        params = {"name": "slow", "_meta": {"progressToken": "p"}}
        response = await client.ask("tools/call", params, 5)
    assert response.headers["content-type"] == "text/event-stream"
    note, answer = said(response.text)
    half = {"progressToken": "p", "progress": 1, "total": 2, "message": "half"}
    assert note["params"] == half
    assert (answer["id"], answer["result"]["content"]) == (5, text("done")["content"])


def test_an_event_is_one_line_for_clients_that_split_at_every_line_break_of_unicode() -> None:
    words = "a\x85b\u2028c\u2029d\n\x1c"
    written = event(exact.encode({"words": words})).decode()
    name, data, end = written.splitlines()
    assert (name, end) == ("event: message", "")
    assert json.loads(data.removeprefix("data: ")) == {"words": words}


@every_way
async def test_a_call_that_takes_long_becomes_a_stream_that_is_never_silent(way: str) -> None:
    began, ended, let_go = events()
    async with visitor(way, a=held(began, ended, let_go)) as client:
        client.house.door.streamable.rhythm = HASTY
        pings = 0
        async with client.stream("tools/call", WORK) as response:
            assert response.headers["content-type"] == "text/event-stream"
            async for line in response.aiter_lines():
                pings += line.startswith(":")
                if pings == 3:
                    let_go.set()
                if line.startswith("data: "):
                    answer = json.loads(line.removeprefix("data: "))
    assert answer["result"]["content"] == text("done")["content"]


@every_way
async def test_a_list_is_written_once_and_again_when_it_changes(way: str) -> None:
    box = one()
    async with visitor(way, a=box) as client:
        first, second = [(await client.ask("tools/list", number=n)).json() for n in (1, 2)]
        assert first["result"] == second["result"]
        assert (first["id"], second["id"]) == (1, 2)
        box.tools = [tool("other")]
        client.house.bridge.connections["a"].reconnect()
        await box.changed("tools")
        with anyio.fail_after(PATIENCE):
            while "other" not in (await client.ask("tools/list")).text:
                await anyio.lowlevel.checkpoint()


# What belongs to no request.


async def test_a_session_hears_between_its_requests_what_has_changed() -> None:
    box = one()
    async with visitor(a=box) as client, client.hearing() as stream:
        box.tools = []
        await box.changed("tools")
        with anyio.fail_after(PATIENCE):
            told = await anext(messages(stream))
    assert told == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


async def test_a_stream_is_never_silent_and_can_be_taken_up_again() -> None:
    async with visitor(a=one()) as client:
        client.house.door.streamable.rhythm = HASTY
        for headers in ({}, {"last-event-id": "7"}):
            async with client.hearing(**headers) as stream:
                lines = stream.aiter_lines()
                assert (await anext(lines)).startswith(":")
            with anyio.fail_after(PATIENCE):  # until it is noticed that the client has left
                while await second_stream(client) == 409:
                    await anyio.lowlevel.checkpoint()


async def second_stream(client: Visitor) -> int:
    sent = {**ACCEPT, **client.session}
    async with client.http.stream("GET", client.house.mcp, headers=sent) as response:
        return response.status_code


async def test_a_session_has_one_stream() -> None:
    async with visitor(a=one()) as client, client.hearing():
        assert await second_stream(client) == 409


# Questions.


def asking() -> Box:
    async def ask(context: Any, params: Json) -> Json:
        channel = context.session._request_outbound
        answer = await channel.send_raw_request("sampling/createMessage", {"messages": []})
        return text(answer["model"])

    return Box(tools=[tool("ask")], answers={"ask": ask})


async def test_a_question_comes_on_the_stream_of_the_call_and_is_answered_with_a_post() -> None:
    async with visitor(era="legacy", a=asking()) as client:
        await client.hello({"sampling": {}})
        async with client.stream("tools/call", {"name": "ask"}) as response:
            heard = messages(response)
            asked = await anext(heard)
            assert asked["method"] == "sampling/createMessage"
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"model": "m"}}
            assert (await client.post({**answer, "id": 4711})).status_code == 202
            assert (await client.post(answer)).status_code == 202
            assert (await anext(heard))["result"]["content"] == text("m")["content"]


async def test_a_refusal_of_the_client_reaches_the_server_that_asked() -> None:
    async with visitor(era="legacy", a=asking()) as client:
        await client.hello({"sampling": {}})
        async with client.stream("tools/call", {"name": "ask"}) as response:
            heard = messages(response)
            asked = await anext(heard)
            error = {"code": -1, "message": "the user said no"}
            await client.post({"jsonrpc": "2.0", "id": asked["id"], "error": error})
            assert "the user said no" in str(await anext(heard))


async def test_a_question_of_a_call_that_is_cancelled_is_taken_back() -> None:
    async with visitor(era="legacy", a=asking()) as client:
        await client.hello({"sampling": {}})
        async with client.stream("tools/call", {"name": "ask"}, 3) as response:
            heard = messages(response)
            asked = await anext(heard)
            await client.post(cancelled(3))
            taken_back, answer = [message async for message in heard]
    assert taken_back["method"] == "notifications/cancelled"
    assert taken_back["params"]["requestId"] == asked["id"]
    assert answer["error"]["code"] == -32800


def cancelled(number: int | str) -> Json:
    return {
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": {"requestId": number},
    }


# Ends.


@pytest.mark.parametrize("number", [3, "3"])
async def test_a_cancelled_call_is_answered_and_stopped_behind(number: int | str) -> None:
    began, ended, let_go = events()
    async with visitor(a=held(began, ended, let_go)) as client, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def call() -> None:
            answers.append(await client.ask("tools/call", WORK, 3))

        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE):
            await began.wait()
            await client.post(cancelled(number))
            await ended.wait()
    assert answers[0].json()["error"] == {"code": -32800, "message": "Request cancelled"}


@pytest.mark.parametrize("way", ["alone", "modern"])
async def test_a_client_that_leaves_a_request_without_a_session_stops_its_work(way: str) -> None:
    began, ended, let_go = events()
    async with visitor(way, a=held(began, ended, let_go)) as client:
        with anyio.fail_after(PATIENCE):
            await leave_when(began, client)
            await ended.wait()
    assert not let_go.is_set()


async def leave_when(began: anyio.Event, client: Visitor) -> None:
    """Call, and hang up when the call has begun."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client.ask, "tools/call", WORK)
        await began.wait()
        tasks.cancel_scope.cancel()


async def test_a_client_that_leaves_a_call_in_its_session_does_not_cancel_it() -> None:
    began, ended, let_go = events()
    async with visitor(a=held(began, ended, let_go)) as client:
        client.house.door.streamable.rhythm = HASTY
        with anyio.fail_after(PATIENCE):
            await leave_when(began, client)
            await client.ask("ping")
            assert not ended.is_set()
            let_go.set()
            await ended.wait()


async def test_the_end_of_a_session_ends_its_calls_and_its_stream() -> None:
    began, ended, let_go = events()
    async with visitor(a=held(began, ended, let_go)) as client, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def call() -> None:
            answers.append(await client.ask("tools/call", WORK))

        tasks.start_soon(call)
        async with client.hearing() as stream:
            with anyio.fail_after(PATIENCE):
                await began.wait()
                headers = {**ACCEPT, **client.session}
                gone = await client.http.delete(client.house.mcp, headers=headers)
                assert gone.status_code == 200
                assert [message async for message in messages(stream)] == []
                await ended.wait()
    assert "session has ended" in answers[0].json()["error"]["message"]


@pytest.mark.parametrize("end", ["session", "cancelled"])
async def test_two_requests_with_one_number_end_both(end: str) -> None:
    both, calls = anyio.Event(), 0

    async def work(context: Any, params: Json) -> Json:
        nonlocal calls
        calls += 1
        if calls == 2:
            both.set()
        await anyio.sleep_forever()
        return {}

    box = Box(tools=[tool("work")], answers={"work": work})
    async with visitor(a=box) as client:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.ask, "tools/call", WORK, 7)
                tasks.start_soon(client.ask, "tools/call", WORK, 7)
                await both.wait()
                if end == "session":
                    await client.http.delete(client.house.mcp, headers=client.session)
                else:
                    await client.post(cancelled(7))


async def test_a_session_ends_in_which_nothing_happens_and_none_with_an_open_stream() -> None:
    async with boxes(a=one()) as house, httpx2.AsyncClient(timeout=PATIENCE) as http:
        sessions = house.door.streamable.sessions
        sessions.idle_seconds = 0.2
        hearing, idle = Visitor(http, house, "session"), Visitor(http, house, "session")
        await hearing.hello()
        async with hearing.hearing():
            await idle.hello()
            with anyio.fail_after(PATIENCE):
                while len(sessions) > 1:
                    await anyio.lowlevel.checkpoint()
            assert (await idle.ask("ping")).status_code == 404
            assert (await hearing.ask("ping")).status_code == 200


async def test_what_is_under_way_when_the_bridge_stops_is_answered() -> None:
    began, ended, let_go = events()
    async with visitor(a=held(began, ended, let_go)) as client, anyio.create_task_group() as tasks:
        answers: list[Any] = []

        async def call() -> None:
            answers.append(await client.ask("tools/call", WORK))

        tasks.start_soon(call)
        async with client.hearing() as stream:
            await began.wait()
            await client.house.door.close()
            assert [message async for message in messages(stream)] == []
    assert "stopping" in answers[0].json()["error"]["message"]


@every_way
async def test_a_call_of_the_wrong_form_is_refused_as_often_as_it_comes(way: str) -> None:
    async with visitor(way, a=one()) as client:
        refused = [await client.ask("tools/call", {"arguments": {}}) for _ in range(2)]
        taken = [
            await client.ask("tools/call", {"name": "one", "arguments": a}) for a in ({}, {"n": 1})
        ]
    assert [response.json()["error"]["code"] for response in refused] == [-32602, -32602]
    assert all(response.json()["result"]["content"] == text("1")["content"] for response in taken)


async def test_a_handshake_that_fails_leaves_no_session() -> None:
    async with visitor("alone", a=one()) as client:
        bad = request("initialize", {"protocolVersion": OLD})
        response = await client.post(bad)
        assert response.json()["error"]["code"] == -32602
        assert len(client.house.door.streamable.sessions) == 0


async def test_a_client_of_a_version_that_is_not_known_is_offered_the_latest_of_its_era() -> None:
    async with visitor("alone", a=one()) as client:
        body = {**INITIALIZE, "params": {**INITIALIZE["params"], "protocolVersion": "1999-01-01"}}
        assert (await client.post(body)).json()["result"]["protocolVersion"] == OLD


# Refusals.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"accept": "application/json"}, 406),
        ({"accept": "text/event-stream"}, 406),
        ({"accept": "*/*"}, 200),
        ({"accept": "application/*;q=0.5, text/*"}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"mcp-session-id": "made-up"}, 404),
    ],
)
async def test_headers_that_do_not_fit_are_refused(headers: dict[str, str], status: int) -> None:
    async with boxes(a=one()) as house, httpx2.AsyncClient() as http:
        sent = {**ACCEPT, "content-type": "application/json", **headers}
        body = json.dumps(request("tools/list"))
        response = await http.post(house.mcp, content=body, headers=sent)
    assert response.status_code == status
    assert status == 200 or response.json()["error"]["code"] == -32600


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize(
    ("body", "code", "number"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b"7", -32600, None),
        (b'{"jsonrpc":"1.0","id":3,"method":"ping"}', -32600, 3),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":[],"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":4,"method":"ping","params":[]}', -32600, 4),
        (b"[]", -32600, None),
    ],
)
async def test_a_body_that_is_no_message_is_refused(
    version: str, body: bytes, code: int, number: int | None
) -> None:
    async with boxes(a=one()) as house, httpx2.AsyncClient() as http:
        headers = {**ACCEPT, "content-type": "application/json", "mcp-protocol-version": version}
        response = await http.post(house.mcp, content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code
    assert response.json()["id"] == number


@pytest.mark.parametrize(
    ("method", "version", "status", "allowed"),
    [
        ("PUT", OLD, 405, "GET, POST, DELETE"),
        ("GET", NEW, 405, "POST"),
        ("DELETE", NEW, 405, "POST"),
        ("GET", OLD, 400, None),
        ("DELETE", OLD, 400, None),
    ],
)
async def test_methods_that_are_not_for_it_are_refused(
    method: str, version: str, status: int, allowed: str | None
) -> None:
    async with boxes(a=one()) as house, httpx2.AsyncClient() as http:
        headers = {**ACCEPT, "mcp-protocol-version": version}
        response = await http.request(method, house.mcp, headers=headers)
    assert response.status_code == status
    assert response.headers.get("allow") == allowed


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_of_any_shape_that_is_too_long_is_refused(announced: bool) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(30):
            yield b" " * 100

    settings = {"limits": {"max_request_bytes": 2000}}
    async with boxes("auto", settings, a=one()) as house, httpx2.AsyncClient() as http:
        content = b" " * 3000 if announced else pieces()
        headers = {**ACCEPT, "content-type": "application/json"}
        response = await http.post(house.mcp, content=content, headers=headers)
    assert response.status_code == 413
    assert "limits.max_request_bytes" in response.json()["error"]["message"]


CALL_ONE: Json = {"name": "one", "arguments": {"city": "Rome"}}
MIRRORED: Json = {
    "type": "object",
    "properties": {"city": {"type": "string", "x-mcp-header": "City"}},
}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, None),
        ({"mcp-method": "tools/list"}, -32020),
        ({"mcp-method": None}, -32020),
        ({"mcp-name": "two"}, -32020),
        ({"mcp-param-city": "Paris"}, -32020),
        ({"mcp-param-city": None}, -32020),
        ({"mcp-protocol-version": "2099-01-01"}, -32020),
    ],
)
async def test_headers_that_say_something_else_than_the_body_are_refused(
    changed: dict[str, str | None], code: int | None
) -> None:
    box = one(inputSchema=MIRRORED)
    async with boxes(a=box) as house, httpx2.AsyncClient() as http:
        body, headers = modern("tools/call", CALL_ONE)
        wanted = {**ACCEPT, **headers, "mcp-param-city": "Rome", **changed}
        sent = {name: value for name, value in wanted.items() if value is not None}
        response = await http.post(house.mcp, json=body, headers=sent)
    assert response.status_code == (200 if code is None else 400)
    assert response.json().get("error", {}).get("code") == code
    assert response.json()["id"] == 1
    assert len(box.asked("tools/call")) == (1 if code is None else 0)


async def test_a_header_that_routes_and_comes_twice_is_refused() -> None:
    async with boxes(a=one()) as house, httpx2.AsyncClient() as http:
        body, headers = modern("tools/call", {"name": "one"})
        twice = [*{**ACCEPT, **headers}.items(), ("mcp-name", "two")]
        response = await http.post(house.mcp, json=body, headers=twice)
    assert response.status_code == 400
    assert "more than once" in response.json()["error"]["message"]


async def test_an_envelope_that_is_missing_or_of_a_version_to_come_is_refused() -> None:
    async with boxes(a=one()) as house, httpx2.AsyncClient() as http:
        body, headers = modern("tools/list", {})
        del body["params"]["_meta"]
        response = await http.post(house.mcp, json=body, headers={**ACCEPT, **headers})
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32602)
        later = {**ACCEPT, **headers, "mcp-protocol-version": "2099-01-01"}
        meta = {f"{ABOUT}/protocolVersion": "2099-01-01", f"{ABOUT}/clientCapabilities": {}}
        body = request("tools/list", {"_meta": meta})
        response = await http.post(house.mcp, json=body, headers=later)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32022)
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await http.post(house.mcp, json=note, headers=later)).status_code == 400
        now = {**ACCEPT, **headers}
        assert (await http.post(house.mcp, json=note, headers=now)).status_code == 202


@pytest.mark.parametrize(
    ("method", "params", "status", "code"),
    [
        ("initialize", {}, 404, -32601),
        ("tools/call", {"name": "gone"}, 400, -32602),
        ("tools/call", {"name": "one", "arguments": 7}, 400, -32602),
    ],
)
async def test_an_error_of_the_new_era_has_the_status_that_goes_with_it(
    method: str, params: Json, status: int, code: int
) -> None:
    async with visitor("modern", a=one()) as client:
        response = await client.ask(method, params)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


# Batches.


async def test_a_batch_is_answered_as_a_list_whatever_order_its_parts_end_in() -> None:
    async with visitor("alone", a=one()) as client:
        await client.hello(version=BATCHES)
        parts: list[Any] = [
            request("tools/call", {"name": "one"}, 1),
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
            request("ping", {}, 2),
            7,
            {**INITIALIZE, "id": 3},
        ]
        response = await client.post(parts)
    answers = {answer["id"]: answer for answer in response.json()}
    assert answers[1]["result"] == text("1")
    assert answers[2]["result"] == {}
    assert answers[3]["error"]["code"] == answers[None]["error"]["code"] == -32600
    assert len(response.json()) == 4


async def test_a_batch_without_requests_is_accepted_and_cancels() -> None:
    began, ended, let_go = events()
    async with visitor("alone", a=held(began, ended, let_go)) as client:
        await client.hello(version=BATCHES)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.post, [request("tools/call", WORK, 3)])
            with anyio.fail_after(PATIENCE):
                await began.wait()
                assert (await client.post([cancelled(3)])).status_code == 202
                await ended.wait()


async def test_a_batch_of_another_version_is_refused() -> None:
    async with visitor(a=one()) as client:
        response = await client.post([request("ping")])
    assert response.status_code == 400
    assert BATCHES in response.json()["error"]["message"]


async def test_a_batch_without_a_session_ends_when_its_client_leaves() -> None:
    began, ended, let_go = events()
    async with visitor("alone", a=held(began, ended, let_go)) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.post, [request("tools/call", WORK)])
            with anyio.fail_after(PATIENCE):
                await began.wait()
                tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await ended.wait()


# In the application.


async def test_the_application_leads_every_path_of_it_past_the_framework_and_counts_them() -> None:
    toolsets: Json = {"some": {"include": ["*"]}}
    async with bridged(mcp_servers={}, toolsets=toolsets) as place:
        for path in ("/mcp", "/mcp/", "/toolsets/some/mcp", "/toolsets/some/mcp/"):
            response = await place.http.post(path, json=request("ping"), headers=ACCEPT)
            assert response.json()["result"] == {}
            assert response.headers["x-request-id"]
        assert (await place.http.post("/toolsets/none/mcp", json={})).status_code == 404
        page = (await place.http.get("/metrics")).text
    counted = [
        line for line in page.splitlines() if "http_requests_total" in line and "mcp" in line
    ]
    assert {line.partition("{")[2] for line in counted} >= {
        'method="POST",path="/mcp",status="200"} 2.0',
        'method="POST",path="/toolsets/{toolset}/mcp",status="200"} 2.0',
        'method="POST",path="/toolsets/{toolset}/mcp",status="404"} 1.0',
    }
