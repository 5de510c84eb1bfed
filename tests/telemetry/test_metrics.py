"""Metrics: what is counted, and that nobody outside can make the counters grow without end."""

import os
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from mcp_bridge.telemetry.metrics import MOST_MODELS, MOST_TOOLS, Measured, Metrics, Processes

Labels = dict[str, str]


def read(metrics: Metrics, name: str, servers: Labels | None = None) -> list[tuple[Labels, float]]:
    """The samples of that name on the page, as a scraper reads them."""
    metrics.tell()
    page = metrics.page(servers or {}).decode()
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    ]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return sum(n for found, n in read(metrics, name) if labels.items() <= found.items())


# Conversations and tools


def test_a_conversation_is_counted_with_its_end_its_rounds_and_its_tokens() -> None:
    metrics = Metrics()
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    metrics.conversation("ann", "m", "stop", rounds=3, usage=usage)
    metrics.conversation("ann", "m", "length", stopped="max_rounds", rounds=20)

    counted = read(metrics, "mcp_bridge_conversations_total")
    assert ({"caller": "ann", "model": "m", "finish_reason": "stop", "stopped": ""}, 1) in counted
    assert value(metrics, "mcp_bridge_conversations_total", stopped="max_rounds") == 1
    assert value(metrics, "mcp_bridge_conversation_rounds_sum") == 23
    kinds = {found["kind"]: n for found, n in read(metrics, "mcp_bridge_tokens_total")}
    assert kinds == {"prompt": 100, "completion": 20, "cached": 64, "reasoning": 7}


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": "5"},
        {"prompt_tokens": -4, "prompt_tokens_details": None, "completion_tokens_details": [1]},
        {"prompt_tokens_details": {"cached_tokens": {}}},
    ],
)
def test_usage_that_makes_no_sense_counts_nothing(usage: dict[str, object] | None) -> None:
    metrics = Metrics()
    metrics.conversation("ann", "m", "stop", rounds=1, usage=usage)
    assert read(metrics, "mcp_bridge_tokens_total") == []


def test_a_tool_call_is_counted_by_server_tool_and_outcome() -> None:
    metrics = Metrics()
    metrics.tool_call("files", "read", "ok", 0.2)
    metrics.tool_call("files", "read", "source_timeout", 60)
    assert value(metrics, "mcp_bridge_tool_calls_total", server="files", tool="read") == 2
    assert value(metrics, "mcp_bridge_tool_calls_total", outcome="source_timeout") == 1
    assert value(metrics, "mcp_bridge_tool_call_seconds_sum", tool="read") == pytest.approx(60.2)


def test_what_is_counted_between_two_pages_is_added_to_what_was_counted() -> None:
    metrics = Metrics()
    for seconds in (0.01, 0.011, 0.2, 900, 901):  # a bound is part of its bucket
        metrics.tool_call("files", "read", "ok", seconds)
    first = read(metrics, "mcp_bridge_tool_call_seconds_bucket")
    metrics.tool_call("files", "read", "ok", 1000)
    second = read(metrics, "mcp_bridge_tool_call_seconds_bucket")

    assert {labels["le"]: n for labels, n in first} == {
        "0.01": 1, "0.05": 2, "0.2": 3, "1.0": 3, "5.0": 3, "15.0": 3, "60.0": 3, "300.0": 3,
        "900.0": 4, "+Inf": 5,
    }  # fmt: skip
    assert [after - before for (_, before), (_, after) in zip(first, second, strict=True)] == (
        [0] * 9 + [1]
    )
    assert value(metrics, "mcp_bridge_tool_call_seconds_count") == 6
    assert value(metrics, "mcp_bridge_tool_call_seconds_sum") == pytest.approx(2801.221)
    assert value(metrics, "mcp_bridge_tool_calls_total") == 6


def test_names_beyond_the_bound_are_counted_together() -> None:
    metrics = Metrics()
    for number in range(MOST_MODELS + 50):
        metrics.conversation("ann", f"m{number}", "stop", rounds=1)
    for number in range(MOST_TOOLS + 50):
        metrics.tool_call("rotating", f"t{number}", "ok", 0)
    metrics.tool_call("rotating", "t0", "ok", 0)  # a known one keeps its name

    assert len(read(metrics, "mcp_bridge_conversations_total")) == MOST_MODELS + 1
    assert value(metrics, "mcp_bridge_conversations_total", model="other") == 50
    assert len(read(metrics, "mcp_bridge_tool_calls_total")) == MOST_TOOLS + 1
    assert value(metrics, "mcp_bridge_tool_calls_total", server="other", tool="other") == 50
    assert value(metrics, "mcp_bridge_tool_calls_total", tool="t0") == 2


def test_names_with_quotes_and_line_breaks_do_not_break_the_page() -> None:
    metrics = Metrics()
    strange = 'a"b\\c\nd{}'
    metrics.tool_call(strange, strange, "ok", 0)
    ((labels, _),) = read(metrics, "mcp_bridge_tool_calls_total")
    assert labels["tool"] == strange


# MCP servers


def test_servers_are_shown_as_they_are_now() -> None:
    metrics = Metrics()
    metrics.page({"gone": "connected"})
    states = {"files": "connected", "web": "failed"}
    assert read(metrics, "mcp_bridge_mcp_server_connected", states) == [
        ({"server": "files"}, 1),
        ({"server": "web"}, 0),
    ]
    assert read(metrics, "mcp_bridge_mcp_server_state", states) == [
        ({"server": "files", "state": "connected"}, 1),
        ({"server": "web", "state": "failed"}, 1),
    ]


def test_two_applications_do_not_count_together() -> None:
    one, other = Metrics(), Metrics()
    one.tool_call("files", "read", "ok", 0)
    assert read(other, "mcp_bridge_tool_calls_total") == []


# Requests


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
            Route("/stream", streaming.answer if streaming else hello),
            Mount("/t/{toolset}", routes=[Route("/hello/{name}", hello)]),
        ]
    )
    transport = httpx2.ASGITransport(Measured(app, metrics), raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://bridge")


class Nobody:
    """Answers nothing, as an endpoint does whose client has left."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass


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


def test_processes_are_shown_as_one() -> None:
    def shown(pids: list[int]) -> dict[str, float]:
        return {
            metric.name: metric.samples[0].value for metric in Processes(lambda: pids).collect()
        }

    one, two = shown([os.getpid()]), shown([os.getpid(), os.getpid()])
    assert two["process_start_time_seconds"] == one["process_start_time_seconds"]
    assert two["process_open_fds"] >= 2 * one["process_open_fds"] - 2
    assert shown([2**22 + 1]) == {}, "a process that has just ended"
