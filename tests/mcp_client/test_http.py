"""Servers behind a URL: every flavour, and what goes wrong between us and them."""

import logging
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from yarl import URL

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import OutcomeUnknown, SourceRefused, SourceTimeout, SourceUnavailable
from mcp_bridge.http1.failures import (
    BadUrl,
    Broken,
    NotHttp,
    ProxyRefused,
    ProxyUnreachable,
    TooSlow,
    Undecodable,
    Unreachable,
)
from mcp_bridge.mcp_client.http import Unsent, address, lost, within_origin
from mcp_bridge.tools.source import CallContext
from tests.mcp_client.running import PATIENCE, Watch, running, text
from tests.servers.raw import Asked, Pipe, raw
from tests.servers.web import Gate, Log, Site, restartable, serving, web_server

FLAVOURS: dict[str, tuple[dict[str, Any], str]] = {
    "legacy": ({}, "legacy"),
    "legacy-json": ({"json_response": True}, "legacy"),
    "legacy-stateless": ({"stateless_http": True}, "legacy"),
    "modern": ({}, "auto"),
    "modern-json": ({"json_response": True}, "auto"),
    "sse-legacy": ({}, "legacy"),
    "sse-modern": ({}, "auto"),
}
every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


class Place:
    """A web server and a connection to it."""

    def __init__(self, site: Site, gate: Gate, log: Log, watch: Watch) -> None:
        self.site, self.gate, self.log, self.watch = site, gate, log, watch


def application(flavour: str, log: Log) -> Gate:
    server = web_server(log)
    app = (
        server.sse_app()
        if flavour.startswith("sse")
        else server.streamable_http_app(**FLAVOURS[flavour][0])
    )
    return Gate(app)


def path(flavour: str) -> str:
    return "/sse" if flavour.startswith("sse") else "/mcp"


@asynccontextmanager
async def connected(flavour: str, **settings: Any) -> AsyncGenerator[Place]:
    log = Log()
    gate = application(flavour, log)
    async with serving(gate) as site:
        made = {"url": site.url + path(flavour), "protocol": FLAVOURS[flavour][1], **settings}
        async with running(McpServer.model_validate(made)) as watch:
            yield Place(site, gate, log, watch)


@every_flavour
async def test_every_flavour_lists_and_calls(flavour: str) -> None:
    async with connected(flavour) as place:
        connection = place.watch.connection
        assert connection.state == "connected"
        status = connection.status()
        assert status["transport"] == ("sse" if flavour.startswith("sse") else "http")
        assert status["protocol"] == ("2025-11-25" if "legacy" in flavour else "2026-07-28")
        assert status["server"]["name"] == "web"
        assert connection.instructions == "Be a web server."
        assert text(await place.watch.call("echo", text="hé")) == "hé"
        assert [p["name"] for p in connection.prompts] == ["greet"]
        assert [r["uri"] for r in connection.resources] == ["notes://today"]
        prompt = {"name": "greet", "arguments": {"who": "me"}}
        got = await connection.request("prompts/get", prompt, CallContext())
        assert "me" in got["messages"][0]["content"]["text"]


@every_flavour
async def test_results_over_a_mebibyte_arrive(flavour: str) -> None:
    async with connected(flavour) as place:
        assert len(text(await place.watch.call("big", size=2_500_000))) == 2_500_000


@pytest.mark.parametrize("flavour", [f for f in FLAVOURS if "json" not in f])
async def test_progress_is_passed_on_in_order(flavour: str) -> None:
    seen: list[tuple[float, float | None, str | None]] = []
    async with connected(flavour) as place:
        context = CallContext(on_progress=lambda *told: seen.append(told))
        assert text(await place.watch.call("steps", context, count=4)) == "done"
    assert seen == [(float(n), 4.0, f"step {n}") for n in range(1, 5)]


@pytest.mark.parametrize("flavour", [f for f in FLAVOURS if f != "legacy-stateless"])
async def test_a_changed_list_is_fetched(flavour: str) -> None:
    async with connected(flavour) as place:
        await place.watch.call("grow", name="extra")
        await place.watch.until(lambda c: "extra" in [tool.name for tool in c.tools])


CANNOT_HEAR = ("legacy-stateless", "modern-json")
"""Flavours in which the SDK's server does not notice that a caller has gone."""


@pytest.mark.parametrize("flavour", [f for f in FLAVOURS if f not in CANNOT_HEAR])
async def test_a_call_that_is_left_is_cancelled_at_the_server(flavour: str) -> None:
    async with connected(flavour) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.watch.call, "hang")
            with anyio.fail_after(PATIENCE):
                await place.log.began.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await place.log.cancelled.wait()
        assert text(await place.watch.call("echo", text="next")) == "next"


@every_flavour
async def test_a_call_that_takes_too_long_leaves_the_connection_usable(flavour: str) -> None:
    async with connected(flavour) as place:
        with pytest.raises(SourceTimeout):
            await place.watch.call("hang", CallContext(timeout=0.3))
        assert text(await place.watch.call("echo", text="next")) == "next"


@every_flavour
async def test_a_server_restarted_between_two_calls_is_found_again(flavour: str) -> None:
    log = Log()
    async with restartable(lambda: application(flavour, log)) as server:
        made = {"url": server.url + path(flavour), "protocol": FLAVOURS[flavour][1]}
        async with running(McpServer.model_validate(made)) as watch:
            assert text(await watch.call("echo", text="one")) == "one"
            await server.stop()
            await server.start()
            assert text(await watch.call("echo", text="two")) == "two"
    assert log.executed == ["echo", "echo"]


@every_flavour
async def test_a_server_that_is_away_for_a_while_is_degraded_and_comes_back(flavour: str) -> None:
    async with restartable(lambda: application(flavour, Log())) as server:
        made = {"url": server.url + path(flavour), "protocol": FLAVOURS[flavour][1]}
        async with running(McpServer.model_validate(made)) as watch:
            await server.stop()
            with pytest.raises(SourceUnavailable, match="connection refused"):
                await watch.call("echo", text="x")
            await watch.until(lambda c: c.state == "degraded")
            assert "echo" in [tool.name for tool in watch.connection.tools]
            await server.start()
            watch.connection.reconnect()
            await watch.until(lambda c: c.state == "connected")
            assert text(await watch.call("echo", text="back")) == "back"


@every_flavour
async def test_a_connection_cut_during_a_call_makes_its_outcome_unknown(flavour: str) -> None:
    async with connected(flavour) as place:
        caught: list[Exception] = []

        async def call() -> None:
            with pytest.raises(OutcomeUnknown) as info:
                await place.watch.call("hang")
            caught.append(info.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            with anyio.fail_after(PATIENCE):
                await place.log.began.wait()
            place.site.cut()
        assert len(caught) == 1
        assert place.log.executed == ["hang"]
        assert text(await place.watch.call("echo", text="next")) == "next"


@pytest.mark.parametrize("flavour", ["legacy", "modern", "modern-json"])
async def test_a_502_fails_one_call_and_not_the_others(flavour: str) -> None:
    async with connected(flavour) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self_timed_out, place)
            with anyio.fail_after(PATIENCE):
                await place.log.began.wait()
            place.gate.status = 502
            with pytest.raises(OutcomeUnknown, match="HTTP 502"):
                await place.watch.call("echo", text="x")
            place.gate.status = None
            assert text(await place.watch.call("echo", text="next")) == "next"


async def self_timed_out(place: Place) -> None:
    """A call that lives on beside another one's failure: it ends by its own timeout only."""
    with pytest.raises(SourceTimeout):
        await place.watch.call("hang", CallContext(timeout=1))


@every_flavour
async def test_a_refused_message_fails_its_call_at_once(flavour: str) -> None:
    async with connected(flavour) as place:
        place.gate.status, place.gate.methods = 413, ("POST",)
        with pytest.raises(SourceRefused, match="HTTP 413"):
            await place.watch.call("echo", text="x")
        place.gate.status = None
        assert text(await place.watch.call("echo", text="next")) == "next"


@every_flavour
async def test_a_login_that_is_wanted_is_a_state_with_words(flavour: str) -> None:
    gate = application(flavour, Log())
    gate.status = 401
    async with serving(gate) as site:
        made = {"url": site.url + path(flavour), "protocol": FLAVOURS[flavour][1]}
        async with running(McpServer.model_validate(made)) as watch:
            assert watch.connection.state == "needs_auth"
            assert "HTTP 401" in watch.connection.status()["error"]
            gate.status = None
            watch.connection.reconnect()
            await watch.until(lambda c: c.state == "connected")


@pytest.mark.parametrize("flavour", ["legacy", "modern", "sse-legacy", "sse-modern"])
async def test_a_server_that_dies_while_nobody_calls_is_noticed(flavour: str) -> None:
    async with restartable(lambda: application(flavour, Log())) as server:
        made = {"url": server.url + path(flavour), "protocol": FLAVOURS[flavour][1]}
        async with running(McpServer.model_validate(made)) as watch:
            await server.stop()
            await watch.until(lambda c: c.state == "degraded")
            await server.start()
            await watch.until(lambda c: c.state == "connected")


async def test_headers_are_sent_and_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mcp_bridge")
    async with connected("modern", headers={"Authorization": "Bearer hunter22"}) as place:
        await place.watch.call("echo", text="x")
        assert {h.get("authorization") for h in place.gate.headers} == {"Bearer hunter22"}
        assert "hunter22" not in str(place.watch.connection.status())
    assert "hunter22" not in caplog.text


async def test_the_session_is_ended_when_we_leave() -> None:
    seen: list[str] = []
    log = Log()
    gate = application("legacy", log)

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(scope["method"])
        await gate(scope, receive, send)

    async with serving(spy) as site:
        made = McpServer(url=site.url + "/mcp", protocol="legacy")
        async with running(made) as watch:
            await watch.call("echo", text="x")
        assert seen[-1] == "DELETE"


async def test_a_session_that_we_give_up_is_ended_too() -> None:
    """Most servers would keep it, and all that it holds, for ever."""
    ended: list[str] = []
    gate = application("legacy", Log())

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["method"] == "DELETE":
            ended.append(dict(scope["headers"])[b"mcp-session-id"].decode())
        await gate(scope, receive, send)

    async with serving(spy) as site:
        made = McpServer(url=site.url + "/mcp", protocol="legacy")
        async with running(made) as watch:
            gate.status = 502
            with pytest.raises(OutcomeUnknown):
                await watch.call("echo", text="x")
            gate.status = None
            await watch.call("echo", text="y")
            assert len(ended) == 1
    assert len(set(ended)) == 2


@pytest.mark.parametrize("flavour", ["sse-legacy", "modern"])
async def test_the_transport_is_found_out(flavour: str) -> None:
    """A server whose path says nothing: streamable HTTP first, then SSE."""
    log = Log()
    server = web_server(log)
    app = (
        server.sse_app(sse_path="/mcp")
        if flavour.startswith("sse")
        else server.streamable_http_app(streamable_http_path="/sse")
    )
    place = "/mcp" if flavour.startswith("sse") else "/sse"
    async with serving(app) as site, running(McpServer(url=site.url + place)) as watch:
        assert watch.connection.state == "connected"
        assert watch.connection.status()["transport"] == flavour.split("-")[0].replace(
            "modern", "http"
        )


async def test_a_web_page_is_no_mcp_server() -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("<html>hello</html>")

    app = Starlette(routes=[Route("/", page, methods=["GET", "POST"])])
    async with serving(app) as site, running(McpServer(url=site.url + "/")) as watch:
        assert watch.connection.state == "failed"
        error = watch.connection.status()["error"]
    assert "http: Unexpected content type" in error
    assert "sse: no SSE stream" in error


async def test_json_that_is_not_mcp_is_said_in_one_line() -> None:
    async def other_api(request: Request) -> Response:
        return JSONResponse({"hello": "a secret of that API"})

    app = Starlette(routes=[Route("/", other_api, methods=["GET", "POST"])])
    async with serving(app) as site, running(McpServer(url=site.url + "/")) as watch:
        assert watch.connection.state == "failed"
        error = watch.connection.status()["error"]
    assert "answered with JSON that is no MCP message" in error
    assert "\n" not in error
    assert "secret" not in error


async def test_a_closed_port_is_said_in_words() -> None:
    async with serving(Starlette()) as site:
        pass
    secret = f"http://user:hunter22@127.0.0.1:{site.port}/mcp?token=hunter22"
    async with running(McpServer(url=secret)) as watch:
        assert watch.connection.state == "failed"
        assert watch.connection.status()["error"].endswith(
            f"connection refused at http://127.0.0.1:{site.port}/mcp"
        )
        with pytest.raises(SourceUnavailable):
            await watch.call("echo")


async def test_an_address_that_is_none_is_said_in_words() -> None:
    async with running(McpServer(url="htp://127.0.0.1/mcp")) as watch:
        assert watch.connection.state == "failed"
        assert "htp" in watch.connection.status()["error"]


# The client.


UNTRUSTED = ssl.SSLCertVerificationError("self-signed")
UNTRUSTED.verify_message = "self-signed"


@pytest.mark.parametrize(
    ("failure", "unsent", "said"),
    [
        (Unreachable(OSError(111, "x")), True, "connection refused at"),
        (Unreachable(OSError(113, "No route to host")), True, "No route"),
        (Unreachable(OSError(-2, "Name unknown")), True, "Name unknown"),
        (Unreachable(UNTRUSTED), True, "not trusted: self-signed"),
        (Unreachable(OSError(1, "wrong version")), True, "wrong version"),
        (Unreachable(UnicodeError("idna")), True, "no such host"),
        (ProxyUnreachable(OSError(111, "x")), True, "no connection to the proxy"),
        (ProxyRefused(407), True, "the proxy answered 407"),
        (TooSlow(), True, "no connection to"),
        (BadUrl("http://x"), True, "BadUrl"),
        (Broken(), False, "closed the connection without an answer"),
        (NotHttp(), False, "is no HTTP"),
        (Undecodable(), False, "cannot be decompressed"),
        (TimeoutError(), False, "silent for too long"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_of_http_has_words(failure: Exception, unsent: bool, said: str) -> None:
    """And says whether a byte of the request was on its way (L22)."""
    error = lost(failure, URL("http://user:hunter22@host/mcp?token=hunter22"))
    assert isinstance(error, Unsent) is unsent
    assert said in error.error.message
    assert "http://host/mcp" in error.error.message
    assert "hunter22" not in error.error.message


def test_an_answer_that_had_begun_broke_off() -> None:
    assert "broke off in the middle" in lost(Broken(), URL("http://h"), begun=True).error.message


@pytest.mark.parametrize("url", ["nonsense", "ftp://h/x", "http://", "http://[bad", "http:///x"])
def test_a_url_that_http_cannot_use_is_said(url: str) -> None:
    with pytest.raises(SourceUnavailable, match="the url cannot be used"):
        address("x", url)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h", "/"),
        ("http://h/a%2Fb?key=a%2Fb%3D&x=1+2", "/a%2Fb?key=a%2Fb%3D&x=1+2"),
        ("http://h/a b?q=é#part", "/a%20b?q=%C3%A9"),
    ],
)
def test_a_url_is_asked_as_it_is_written(url: str, path: str) -> None:
    assert address("x", url).raw_path_qs == path


@pytest.mark.parametrize(
    ("target", "within"),
    [
        ("http://host/other", True),
        ("http://HOST:80/", True),
        ("https://host/mcp", True),
        ("https://host:8443/mcp", False),
        ("http://host:81/mcp", False),
        ("http://other/mcp", False),
        ("http://host.other/mcp", False),
        ("http://user:password@host/mcp", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(target: str, within: bool) -> None:
    assert within_origin(URL("http://host/mcp"), URL(target)) is within


def test_tls_is_not_given_up_by_a_redirect() -> None:
    assert not within_origin(URL("https://host/mcp"), URL("http://host/mcp"))


async def test_a_proxy_is_asked_for_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.result(asked, "done")

    async with raw(call) as site:
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{site.port}")
        made = McpServer(url="http://mcp.invalid/mcp", transport="http", protocol="legacy")
        async with running(made) as watch:
            assert text(await watch.call("do")) == "done"
    assert {asked.path for asked in site.asked} == {"http://mcp.invalid/mcp"}
    assert {asked.headers["host"] for asked in site.asked} == {"mcp.invalid"}
    assert {asked.headers["proxy-authorization"] for asked in site.asked} == {"Basic dXNlcjp3b3Jk"}


async def test_a_header_that_http_cannot_carry_is_named_without_its_value() -> None:
    made = McpServer.model_validate(
        {"url": "http://127.0.0.1:9/", "headers": {"X-Key": "hunter22\r\nx: y"}}
    )
    async with running(made) as watch:
        error = watch.connection.status()["error"]
    assert "mcp_servers.x: headers.X-Key" in error
    assert "hunter22" not in error


@pytest.mark.parametrize("key", ["X Key", "", "X-Key:"])
async def test_a_header_whose_name_is_none_is_named(key: str) -> None:
    made = McpServer.model_validate({"url": "http://127.0.0.1:9/", "headers": {key: "hunter22"}})
    async with running(made) as watch:
        error = watch.connection.status()["error"]
    assert "mcp_servers.x: headers:" in error
    assert repr(key) in error
    assert "hunter22" not in error


# HTTP+SSE.


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.2:1/messages", "http://["])
async def test_messages_are_sent_only_to_the_server_of_the_stream(elsewhere: str) -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.result(asked, "done")

    async def stream(asked: Asked, pipe: Pipe) -> None:
        await pipe.begin()
        await pipe.chunk(f"event: endpoint\ndata: {elsewhere}\n\n".encode())
        await pipe.gone()

    async with raw(call, stream=stream) as site:
        async with running(McpServer(url=site.url, transport="sse")) as watch:
            assert watch.connection.state == "failed"
            assert "does not say where messages go" in watch.connection.status()["error"]
    assert {asked.verb for asked in site.asked} == {"GET"}


async def test_an_event_stream_is_looked_for_where_the_server_redirects_to() -> None:
    async def call(asked: Asked, pipe: Pipe) -> None:
        await pipe.answer(status=202, kind="")

    async def stream(asked: Asked, pipe: Pipe) -> None:
        if asked.path != "/events/":
            await pipe.answer(status=302, kind="", headers={"location": "/events/"})
            return
        await pipe.begin()
        await pipe.chunk(b"event: endpoint\ndata: said?session=a%2Fb\n\n")
        await pipe.gone()

    async with raw(call, stream=stream) as site:
        made = McpServer(url=site.url, transport="sse", startup_timeout=0.5)
        async with running(made):
            asked = await site.until(lambda asked: asked.verb == "POST")
    assert asked.path == "/events/said?session=a%2Fb"
