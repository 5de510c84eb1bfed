"""Streamable HTTP byte by byte: what servers answer, where they break off, and who hears of it."""

import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import OutcomeUnknown, SourceRefused, SourceTimeout
from mcp_bridge.mcp_client.streamable import Pace
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json
from tests.mcp_client.running import PATIENCE, Watch, running, text
from tests.servers.raw import (
    CHUNKED,
    TOOL,
    Asked,
    Handler,
    Pipe,
    Raw,
    answer_to,
    event,
    head,
    raw,
)

NOTE: Json = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "note"}}
READ_ONLY = {**TOOL, "annotations": {"readOnlyHint": True}}


@asynccontextmanager
async def server(
    call: Handler, *, protocol: str = "legacy", settings: Json | None = None, **options: Any
) -> AsyncGenerator[tuple[Raw, Watch]]:
    """A raw server whose only tool is answered by `call`, and a connection to it."""
    async with raw(call, **options) as site:
        made = {"url": site.url, "transport": "http", "protocol": protocol, **(settings or {})}
        async with running(McpServer.model_validate(made)) as watch:
            yield site, watch


def calls(site: Raw) -> list[Asked]:
    return [asked for asked in site.asked if asked.method == "tools/call"]


async def echo(asked: Asked, pipe: Pipe) -> None:
    await pipe.result(asked, asked.message["params"]["arguments"].get("text", "done"))


# Answers.


@pytest.mark.parametrize("protocol", ["legacy", "auto"])
async def test_two_hundred_calls_at_a_time_get_their_own_answers(protocol: str) -> None:
    async with server(echo, protocol=protocol) as (site, watch):
        results: dict[int, str] = {}

        async def call(number: int) -> None:
            results[number] = text(await watch.call("do", text=str(number)))

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(call, number)
        assert results == {number: str(number) for number in range(200)}
        assert len({asked.id for asked in calls(site)}) == 200


LONG = "x" * 10_000_000


@pytest.mark.parametrize("shape", ["json", "gzip", "event", "gzip event"])
async def test_ten_megabytes_arrive(shape: str) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        message = answer_to(asked.id, LONG)
        more = {"content-encoding": "gzip"} if "gzip" in shape else {}
        body = event(message) if "event" in shape else json.dumps(message).encode()
        body = gzip.compress(body, 1) if more else body
        kind = "text/event-stream" if "event" in shape else "application/json"
        await pipe.answer(body, kind, headers=more)

    async with server(call) as (_, watch):
        assert text(await watch.call("do")) == LONG


async def test_an_answer_in_events_is_read_one_byte_at_a_time() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        stream = b"\xef\xbb\xbf: hi\r\n\r\n" + event(NOTE).replace(b"\n", b"\r\n")
        for byte in stream + event(answer_to(asked.id, "hé€😀")):
            await pipe.chunk(bytes([byte]))
        await pipe.end()

    logs: list[Json] = []
    async with server(call) as (_, watch):
        assert text(await watch.call("do", CallContext(on_log=logs.append))) == "hé€😀"
    assert logs == [{"data": "note"}]


async def test_the_stream_of_an_answer_may_stay_open() -> None:
    """The call ends with its answer, and the connection with the patience for the rest."""
    closed = anyio.Event()

    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.chunk(event(answer_to(asked.id, "done")))
        await pipe.gone()
        closed.set()

    async with server(call) as (_, watch):
        assert text(await watch.call("do")) == "done"
        with anyio.fail_after(PATIENCE):
            await closed.wait()


async def test_the_connection_of_a_stream_that_ends_serves_again() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.chunk(event(answer_to(asked.id, "done")))
        await pipe.end()

    async with server(call) as (site, watch):
        for _ in range(20):
            await watch.call("do")
    assert len({asked.connection for asked in calls(site)}) <= 3


async def test_a_batch_holds_the_answer_and_more() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(json.dumps([NOTE, answer_to(asked.id, "done"), NOTE]).encode())

    logs: list[Json] = []
    async with server(call) as (_, watch):
        assert text(await watch.call("do", CallContext(on_log=logs.append))) == "done"
    assert len(logs) == 2


@pytest.mark.parametrize("wrong", ["text", None, 4711, 4.5, "string of its own"])
async def test_an_id_that_nobody_knows_is_forgiven(wrong: object) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        given = str(asked.id) if wrong == "text" else wrong
        await pipe.answer(json.dumps(answer_to(given, "done")).encode())

    async with server(call) as (_, watch):
        assert text(await watch.call("do")) == "done"


@pytest.mark.parametrize("shape", ["json", "events"])
async def test_the_answer_to_another_request_is_nobodys(shape: str) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        secret = answer_to(asked.id - 1, "for another caller")
        if shape == "json":
            await pipe.answer(json.dumps(secret).encode())
        else:
            await pipe.begin()
            await pipe.chunk(event(secret) + event(answer_to(asked.id, "done")))
            await pipe.end()

    async with server(call) as (_, watch):
        result = await watch.call("do")
    if shape == "json":
        assert result["isError"] is True
        assert "no MCP message for this request" in text(result)
    else:
        assert text(result) == "done"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "is empty"),
        (b"{", "not valid JSON"),
        (b"[]", "no MCP message"),
        (b"17", "no MCP message"),
        (b'{"jsonrpc": "2.0", "id": 4}', "no MCP message"),
    ],
)
async def test_json_that_is_no_answer_is_a_result_with_words(answer: bytes, words: str) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(answer)

    async with server(call) as (_, watch):
        result = await watch.call("do")
        assert result["isError"] is True
        assert words in text(result)
        assert watch.connection.state == "connected"


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (200, "text/html", "Unexpected content type: text/html"),
        (200, "", "Unexpected content type: none .HTTP 200"),
        (202, "", "Unexpected content type: none .HTTP 202"),
        (204, "", "Unexpected content type: none .HTTP 204"),
    ],
)
async def test_what_is_no_answer_is_said(status: int, kind: str, words: str) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        body = b"<html>" if kind else b""
        await pipe.answer(body, kind, status)

    async with server(call) as (_, watch):
        with pytest.raises(SourceRefused, match=words):
            await watch.call("do")
        assert watch.connection.state == "connected"


# Where servers break off.


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-ty",
        head(200, "application/json", {"content-length": "1000"}) + b'{"jsonrpc"',
        head(200, "application/json", CHUNKED) + b'a\r\n{"jsonrpc"\r\n',
        head(200, "text/event-stream", CHUNKED) + b"6\r\ndata: \r\n",
        head(200, "text/event-stream", CHUNKED) + b"0\r\n\r\n",
        head(200, "text/event-stream") + b'data: {"jsonrpc": "2.0"',
    ],
    ids=["nothing", "head", "body", "chunk", "event", "empty stream", "unframed event"],
)
async def test_an_answer_that_breaks_off_makes_the_outcome_unknown(sent: bytes) -> None:
    broken = True

    async def call(asked: Asked, pipe: Pipe) -> None:
        if not broken:
            await pipe.result(asked, "done")
            return
        await pipe.write(sent)
        await pipe.cut()

    async with server(call) as (site, watch):
        with pytest.raises(OutcomeUnknown):
            await watch.call("do")
        assert len(calls(site)) == 1
        broken = False
        assert text(await watch.call("do")) == "done"


async def test_an_answer_that_cannot_be_decompressed_is_said() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(b"no gzip", headers={"content-encoding": "gzip"})

    async with server(call) as (_, watch):
        with pytest.raises(OutcomeUnknown, match="cannot be decompressed"):
            await watch.call("do")


async def test_a_connection_closed_between_two_calls_is_not_used_again() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.result(asked, "done")
        await pipe.cut()

    async with server(call) as (site, watch):
        for _ in range(5):
            assert text(await watch.call("do")) == "done"
            await anyio.wait_all_tasks_blocked()  # the client has seen the end
        assert len(calls(site)) == 5
        assert sum(asked.method == "initialize" for asked in site.asked) == 1


@pytest.mark.parametrize("tool", [TOOL, READ_ONLY], ids=["writes", "reads"])
async def test_a_call_that_crosses_with_the_end_of_its_connection_is_repeated_if_it_may_be(
    tool: Json,
) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        if len(calls(site)) == 2:
            await pipe.cut()  # on a connection that has served before, and without a byte
        else:
            await pipe.result(asked, "done")

    async with server(call, tool=tool) as (site, watch):
        await watch.call("do")
        if tool is READ_ONLY:
            assert text(await watch.call("do")) == "done"
            assert len(calls(site)) == 3
        else:
            with pytest.raises(OutcomeUnknown):
                await watch.call("do")
            assert len(calls(site)) == 2


async def test_leaving_breaks_off_what_is_in_flight() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.gone()

    async with server(call) as (site, watch):
        caught: list[str] = []

        async def wait() -> None:
            with pytest.raises(OutcomeUnknown) as info:
                await watch.call("do")
            caught.append(info.value.message)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await site.until(lambda asked: asked.method == "tools/call")
            watch.scope.cancel()
        assert "the bridge has left" in caught[0]
        await site.until(lambda asked: asked.verb == "DELETE")
        assert site.asked[-1].verb == "DELETE"
        assert not any(asked.method == "notifications/cancelled" for asked in site.asked)


# Streams that are taken up again.


async def test_a_stream_that_the_server_ends_is_taken_up_where_it_was() -> None:
    """SEP-1699: a server may end a stream, and say when to ask again."""
    before: list[Asked] = []

    async def call(asked: Asked, pipe: Pipe) -> None:
        before.append(asked)
        await pipe.begin()
        await pipe.chunk(b"retry: 10\nid: e1\ndata:\n\n")
        await pipe.end()

    async def stream(asked: Asked, pipe: Pipe) -> None:
        last = asked.headers.get("last-event-id")
        if last is None:
            await pipe.answer(status=405)
            return
        await pipe.begin()
        if last == "e1":
            await pipe.chunk(event(NOTE, "e2"))
            await pipe.cut()  # once more, and less polite
        else:
            await pipe.chunk(event(answer_to(before[0].id, "done"), "e3"))
            await pipe.end()

    logs: list[Json] = []
    async with server(call, stream=stream) as (site, watch):
        assert text(await watch.call("do", CallContext(on_log=logs.append))) == "done"
        again = [asked for asked in site.asked if "last-event-id" in asked.headers]
    assert [asked.headers["last-event-id"] for asked in again] == ["e1", "e2"]
    assert {asked.headers["mcp-session-id"] for asked in again} == {"s1"}
    assert len(calls(site)) == 1
    assert logs == [{"data": "note"}]


async def test_a_stream_that_is_not_there_any_more_makes_the_outcome_unknown() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.chunk(b"retry: 10\nid: e1\ndata:\n\n")
        await pipe.cut()

    async with server(call) as (site, watch):
        with pytest.raises(OutcomeUnknown, match="cannot be taken up again"):
            await watch.call("do")
        assert len(calls(site)) == 1


async def test_the_wait_for_a_stream_ends_with_the_patience_of_the_call() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.chunk(b"retry: 3600000\nid: e1\ndata:\n\n")
        await pipe.end()

    async with server(call) as (_, watch):
        with pytest.raises(SourceTimeout):
            await watch.call("do", CallContext(timeout=0.3))


async def test_the_new_era_takes_up_no_streams() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.chunk(b"id: e1\ndata:\n\n")
        await pipe.end()

    async with server(call, protocol="auto") as (site, watch):
        with pytest.raises(OutcomeUnknown, match="ended without an answer"):
            await watch.call("do")
        assert not any(asked.verb == "GET" for asked in site.asked)


def test_streams_that_end_at_once_are_slowed_down() -> None:
    pace = Pace()
    assert [pace.seconds(None, useful=False) for _ in range(10)] == [
        *(1, 1, 2, 4, 8, 16, 32, 60, 60, 60)
    ]
    assert pace.seconds(None, useful=True) == 1
    assert pace.seconds(None, useful=False) == 1


def test_the_time_that_a_server_gives_is_kept() -> None:
    pace = Pace()
    assert [pace.seconds(3.0, useful=False) for _ in range(10)] == [3.0] * 10
    assert pace.seconds(0.01, useful=True) == 0.01
    assert [pace.seconds(0.0, useful=False) for _ in range(4)] == [0.0, 0.0, 2, 4]


# The standing stream.


async def test_the_standing_stream_is_opened_again_after_its_last_event() -> None:
    grown = False

    async def stream(asked: Asked, pipe: Pipe) -> None:
        nonlocal grown
        await pipe.begin()
        if asked.headers.get("last-event-id") == "n1":
            grown = True
            await pipe.chunk(event({"jsonrpc": "2.0", "method": CHANGED}, "n2"))
            await pipe.gone()
        else:
            await pipe.chunk(b"retry: 10\n" + event(NOTE, "n1"))
            await pipe.end()

    async with server(echo, stream=stream) as (site, watch):
        await site.until(lambda asked: asked.headers.get("last-event-id") == "n1")
        with anyio.fail_after(PATIENCE):
            while sum(asked.method == "tools/list" for asked in site.asked) < 2:
                await site.next()
        assert grown
        assert watch.connection.state == "connected"


CHANGED = "notifications/tools/list_changed"


async def test_a_standing_stream_that_cannot_be_opened_again_ends_the_connection() -> None:
    async def stream(asked: Asked, pipe: Pipe) -> None:
        if sum(earlier.verb == "GET" for earlier in site.asked) > 1:
            await pipe.answer(status=503)
            return
        await pipe.begin()
        await pipe.chunk(b"retry: 10\n\n")
        await pipe.end()

    async with raw(echo, stream=stream) as site:
        made = McpServer(url=site.url, transport="http", protocol="legacy")
        async with running(made) as watch:
            await watch.until(lambda c: c.state == "degraded")
            error = watch.connection.status()["error"]
    assert error == "the event stream cannot be opened again (HTTP 503)"


async def test_a_lost_standing_stream_does_not_break_off_what_has_an_answer_of_its_own() -> None:
    stream_is_refused, refused = anyio.Event(), anyio.Event()

    async def stream(asked: Asked, pipe: Pipe) -> None:
        if sum(earlier.verb == "GET" for earlier in site.asked) > 1:
            await pipe.answer(status=404)
            refused.set()
            return
        await pipe.begin()
        await stream_is_refused.wait()
        await pipe.chunk(b"retry: 1\n\n")
        await pipe.end()

    async def call(asked: Asked, pipe: Pipe) -> None:
        stream_is_refused.set()
        await refused.wait()
        for _ in range(200):  # time enough to hear of it, and to give up
            await anyio.lowlevel.checkpoint()
        await pipe.result(asked, "done")

    async with raw(call, stream=stream) as site:
        made = McpServer(url=site.url, transport="http", protocol="legacy")
        async with running(made) as watch:
            await site.until(lambda asked: asked.verb == "GET")
            assert text(await watch.call("do")) == "done"
            await watch.until(lambda c: c.state == "degraded")


async def test_a_server_that_closes_what_is_no_post_is_asked_twice_and_stays_connected() -> None:
    async def stream(asked: Asked, pipe: Pipe) -> None:
        await pipe.cut()

    async with server(echo, stream=stream) as (site, watch):
        with anyio.fail_after(PATIENCE):
            while sum(asked.verb == "GET" for asked in site.asked) < 2:
                await site.next()
        await watch.call("do")
        assert watch.connection.state == "connected"
        assert sum(asked.method == "initialize" for asked in site.asked) == 1


async def test_a_server_without_sessions_is_not_asked_for_a_standing_stream() -> None:
    async with server(echo, session=None) as (site, watch):
        await watch.call("do")
    assert {asked.verb for asked in site.asked} == {"POST"}
    assert not any("mcp-session-id" in asked.headers for asked in site.asked)


# What the server is told.


async def test_a_call_of_the_old_era_that_is_left_is_cancelled_by_a_message() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.gone()

    async with server(call) as (site, watch):
        await leave_a_call(site, watch)
        told = await site.until(lambda asked: asked.method == "notifications/cancelled")
        assert told.message["params"]["requestId"] == calls(site)[0].id
        assert told.headers["mcp-session-id"] == "s1"
        assert told.headers["mcp-protocol-version"] == "2025-11-25"


async def test_a_call_of_the_new_era_that_is_left_is_cancelled_by_closing_it() -> None:
    gone = anyio.Event()

    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.gone()
        gone.set()

    async with server(call, protocol="auto") as (site, watch):
        await leave_a_call(site, watch)
        with anyio.fail_after(PATIENCE):
            await gone.wait()
        assert not any(asked.method.startswith("notifications/") for asked in site.asked)


async def leave_a_call(site: Raw, watch: Watch) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch.call, "do")
        await site.until(lambda asked: asked.method == "tools/call")
        tasks.cancel_scope.cancel()


async def test_a_message_that_the_server_refuses_ends_nothing() -> None:
    async def refuse(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(b"<html>", "text/html", 500)

    async def gone(asked: Asked, pipe: Pipe) -> None:
        await pipe.cut()

    for told in (refuse, gone):
        async with server(echo, told=told) as (_, watch):
            await watch.connection.notify("notifications/roots/list_changed", {})
            assert text(await watch.call("do", text="hi")) == "hi"
            assert watch.connection.state == "connected"


# Headers, redirects, and who is asked.


async def test_the_old_era_says_its_session_and_version_with_all_that_follows() -> None:
    async with server(echo) as (site, watch):
        await watch.call("do")
        await site.until(lambda asked: asked.verb == "GET")
    first, *others = site.asked
    assert first.method == "initialize"
    assert "mcp-session-id" not in first.headers
    assert "mcp-protocol-version" not in first.headers
    assert {asked.headers["mcp-session-id"] for asked in others} == {"s1"}
    assert {asked.headers["mcp-protocol-version"] for asked in others} == {"2025-11-25"}
    posts = [asked for asked in site.asked if asked.verb == "POST"]
    assert {asked.headers["accept"] for asked in posts} == {"application/json, text/event-stream"}
    assert {asked.headers["content-type"] for asked in posts} == {"application/json"}
    assert {asked.verb for asked in others} == {"POST", "GET", "DELETE"}


async def test_the_new_era_says_in_headers_what_a_request_is() -> None:
    tool = {
        "name": "do",
        "inputSchema": {
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
        },
    }
    async with server(echo, protocol="auto", tool=tool, session=None) as (site, watch):
        await watch.call("do", region="Köln")
    [call] = calls(site)
    assert call.headers["mcp-protocol-version"] == "2026-07-28"
    assert call.headers["mcp-method"] == "tools/call"
    assert call.headers["mcp-name"] == "do"
    assert call.headers["mcp-param-region"] == "=?base64?S8O2bG4=?="


async def test_a_login_in_the_url_is_sent_and_a_cookie_is_given_back() -> None:
    async with raw(echo, cookie="balancer=b7; Path=/") as site:
        url = site.url.replace("127.0.0.1", "user:pass%20word@127.0.0.1")
        made = McpServer(url=url, transport="http", protocol="legacy")
        async with running(made) as watch:
            await watch.call("do")
    [call] = calls(site)
    assert call.headers["authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
    assert call.headers["cookie"] == "balancer=b7"


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_server_is_followed_with_the_message(status: int) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        if asked.path == "/mcp":
            await pipe.answer(status=status, kind="", headers={"location": "/mcp/"})
        else:
            await echo(asked, pipe)

    settings = {"headers": {"authorization": "Bearer hunter22"}}
    async with server(call, settings=settings) as (site, watch):
        assert text(await watch.call("do", text="hi")) == "hi"
    assert [asked.path for asked in calls(site)] == ["/mcp", "/mcp/"]
    assert {asked.headers["authorization"] for asked in calls(site)} == {"Bearer hunter22"}


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_loses_the_message_is_not_followed(status: int) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(status=status, kind="", headers={"location": "/mcp/"})

    async with server(call) as (site, watch):
        with pytest.raises(SourceRefused, match="not followed"):
            await watch.call("do")
    assert len(calls(site)) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_carries_our_headers_to_another_server(status: int) -> None:
    async with raw(echo) as other:
        away = {"location": f"{other.url}?token=hunter22"}

        async def call(asked: Asked, pipe: Pipe) -> None:
            await pipe.answer(status=status, kind="", headers=away)

        settings = {"headers": {"authorization": "Bearer hunter22"}}
        async with server(call, settings=settings) as (_, watch):
            with pytest.raises(SourceRefused, match="not followed") as info:
                await watch.call("do")
    assert other.asked == []
    assert other.url in info.value.message
    assert "hunter22" not in info.value.message


async def test_redirects_without_end_are_left() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(status=307, kind="", headers={"location": "/mcp"})

    async with server(call) as (site, watch):
        with pytest.raises(SourceRefused, match="not followed"):
            await watch.call("do")
    assert len(calls(site)) == 6


# What the server refuses.


async def test_a_400_about_a_session_is_the_sessions_only_when_it_is_not_the_requests() -> None:
    about_us = True

    async def call(asked: Asked, pipe: Pipe) -> None:
        error = {"code": -32602, "message": "no session with that name"}
        given = asked.id if about_us else None
        body = json.dumps({"jsonrpc": "2.0", "id": given, "error": error}).encode()
        if sum(asked.method == "initialize" for asked in site.asked) == 1:
            await pipe.answer(body, status=400)
        else:
            await pipe.result(asked, "done")

    async with server(call) as (site, watch):
        with pytest.raises(SourceRefused, match="no session with that name"):
            await watch.call("do")
        about_us = False
        assert text(await watch.call("do")) == "done"
    assert sum(asked.method == "initialize" for asked in site.asked) == 2


async def test_a_404_that_says_that_there_is_no_such_method_leaves_the_session() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        error = {"code": -32601, "message": "no such method"}
        body = json.dumps({"jsonrpc": "2.0", "id": asked.id, "error": error}).encode()
        await pipe.answer(body, status=404)

    async with server(call) as (site, watch):
        with pytest.raises(SourceRefused, match="no such method"):
            await watch.call("do")
        assert watch.connection.state == "connected"
    assert sum(asked.method == "initialize" for asked in site.asked) == 1


async def test_a_404_that_says_that_there_is_no_such_notification_leaves_the_session() -> None:
    async def told(asked: Asked, pipe: Pipe) -> None:
        error = {"code": -32601, "message": f"no such method: {asked.method}"}
        body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
        await pipe.answer(body, status=404)

    async with server(echo, told=told) as (site, watch):
        assert text(await watch.call("do", text="a")) == "a"
        assert watch.connection.state == "connected"
    assert sum(asked.method == "initialize" for asked in site.asked) == 1


async def test_an_error_of_the_server_is_passed_on_whatever_the_status() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        error = {"code": -32042, "message": "too hot", "data": {"degrees": 90}}
        body = json.dumps({"jsonrpc": "2.0", "id": asked.id, "error": error}).encode()
        await pipe.answer(body, status=503)

    async with server(call) as (_, watch):
        with pytest.raises(SourceRefused, match="too hot") as info:
            await watch.call("do")
    assert (info.value.rpc_code, info.value.data) == (-32042, {"degrees": 90})


# What the server asks.


class Person:
    """Answers every question with this."""

    def __init__(self, answer: Json) -> None:
        self._answer = answer

    def capabilities(self) -> Json:
        return {"elicitation": {"form": {}}}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        return self._answer


def nested(levels: int) -> Json:
    value: Json = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [1, 100_000], ids=["shallow", "too deep"])
async def test_a_question_is_answered_with_a_post_whatever_the_answer(levels: int) -> None:
    answered: list[Asked] = []
    heard = anyio.Event()

    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        question = {"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}
        await pipe.chunk(event(question))
        await heard.wait()
        await pipe.chunk(event(answer_to(asked.id, "done")))
        await pipe.end()

    async def told(asked: Asked, pipe: Pipe) -> None:
        if asked.id == "q1":
            answered.append(asked)
            heard.set()
        await pipe.answer(status=202, kind="")

    async with server(call, told=told) as (_, watch):
        context = CallContext(answerer=Person(nested(levels)))
        assert text(await watch.call("do", context)) == "done"
    [answer] = answered
    assert answer.headers["mcp-session-id"] == "s1"
    assert ("result" if levels == 1 else "error") in answer.message
