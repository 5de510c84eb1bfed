"""What every request gets: an id, a line in the log, a count."""

import re
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from mcp_bridge.middleware import Recorded
from mcp_bridge.telemetry.metrics import Metrics
from tests.telemetry.pages import read, value


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def broken(request: Request) -> Response:
    raise RuntimeError("a bug")


class Streaming:
    """An endpoint that streams until it is told to end."""

    def __init__(self) -> None:
        self.begun, self.end = anyio.Event(), anyio.Event()

    async def answer(self, request: Request) -> Response:
        return StreamingResponse(self._pieces(), media_type="text/event-stream")

    async def _pieces(self) -> AsyncGenerator[bytes]:
        self.begun.set()
        yield b"data: 1\n\n"
        await self.end.wait()


def client(metrics: Metrics, streaming: Streaming | None = None) -> httpx2.AsyncClient:
    app = Starlette(
        routes=[
            Route("/hello/{name}", hello),
            Route("/broken", broken),
            Route("/left", Nobody()),
            Route("/relayed", Relayed()),
            Route("/stream", streaming.answer if streaming else hello),
            Mount("/t/{toolset}", routes=[Route("/hello/{name}", hello)]),
        ]
    )
    front = Recorded(app, app, PlainTextResponse("failed", 500), metrics)
    transport = httpx2.ASGITransport(front, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://bridge")


class Nobody:
    """Answers nothing, as an endpoint does whose client has left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


class Relayed:
    """Answers with the headers of an inference server, which are the same list each time."""

    def __init__(self) -> None:
        self.headers = [(b"x-request-id", b"theirs"), (b"a", b"b"), (b"x-request-id", b"again")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b""})


# Ids


async def test_an_answer_has_an_id_of_its_own() -> None:
    async with client(Metrics()) as http:
        ids = [(await http.get("/hello/ann")).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch("req_[0-9a-f]{32}", each) for each in ids)
    assert ids[0] != ids[1]


async def test_the_clients_own_id_comes_back_instead_of_any_other() -> None:
    async with client(Metrics()) as http:
        for path in ("/hello/ann", "/relayed", "/nowhere"):
            answer = await http.get(path, headers={"x-request-id": "mine-1"})
            assert answer.headers.get_list("x-request-id") == ["mine-1"], path
        with suppress(RuntimeError):
            answer = await http.get("/broken", headers={"x-request-id": "mine-1"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine-1")


async def test_the_id_of_the_inference_server_is_kept_where_the_client_has_none() -> None:
    async with client(Metrics()) as http:
        await http.get("/relayed", headers={"x-request-id": "another"})
        answer = await http.get("/relayed")
    assert answer.headers.get_list("x-request-id") == ["theirs", "again"]
    assert answer.headers["a"] == "b"


@pytest.mark.parametrize("bad", ["", " ", "two words", "x" * 201, "\x80"])
async def test_an_id_that_does_not_fit_into_a_line_is_not_repeated(bad: str) -> None:
    async with client(Metrics()) as http:
        given = [(b"x-request-id", bad.encode("latin-1"))]
        answer = await http.get("/hello/ann", headers=given)
    assert answer.headers["x-request-id"].startswith("req_")


# Counts


async def test_requests_are_counted_by_the_template_of_their_path() -> None:
    metrics = Metrics()
    async with client(metrics) as http:
        for path in ("/hello/ann", "/hello/ben", "/t/research/hello/cy"):
            assert (await http.get(path)).status_code == 200
        for path in ("/nowhere/1", "/nowhere/2"):
            assert (await http.get(path)).status_code == 404
        await http.request("BREW", "/hello/ann")

    found = read(metrics, "mcp_bridge_http_requests_total")
    assert ({"method": "GET", "path": "/hello/{name}", "status": "200"}, 3) in found
    assert ({"method": "GET", "path": "other", "status": "404"}, 2) in found
    assert ({"method": "other", "path": "/hello/{name}", "status": "405"}, 1) in found
    assert value(metrics, "mcp_bridge_http_request_seconds_count", path="/hello/{name}") == 4


async def test_a_request_that_failed_or_that_nobody_waited_for_is_counted() -> None:
    metrics = Metrics()
    async with client(metrics) as http:
        await http.get("/broken")
        with suppress(AssertionError, httpx2.HTTPError):  # the transport misses an answer
            await http.get("/left")
    assert value(metrics, "mcp_bridge_http_requests_total", path="/broken", status="500") == 1
    assert value(metrics, "mcp_bridge_http_requests_total", path="/left", status="left") == 1


async def test_a_stream_is_open_until_it_has_ended() -> None:
    metrics, streaming = Metrics(), Streaming()
    async with client(metrics, streaming) as http, anyio.create_task_group() as tasks:
        with anyio.fail_after(5):
            tasks.start_soon(http.get, "/stream")
            await streaming.begun.wait()
            await anyio.wait_all_tasks_blocked()
            assert value(metrics, "mcp_bridge_streams_open") == 1
            streaming.end.set()
    assert value(metrics, "mcp_bridge_streams_open") == 0


# The log


async def test_a_line_tells_the_end_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    async with client(Metrics()) as http:
        with caplog.at_level("INFO", "mcp_bridge"):
            await http.get("/hello/ann")
            with suppress(AssertionError, httpx2.HTTPError):
                await http.get("/left")
    told = [one.getMessage() for one in caplog.records if one.name == "mcp_bridge.middleware"]
    assert [re.sub(r"\d\.\d{3}", "N", line) for line in told] == [
        "GET /hello/ann: 200 in N s",
        "GET /left: left before the answer in N s",
    ]
