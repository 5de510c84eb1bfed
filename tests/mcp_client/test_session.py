"""What servers ask back while they work, over each transport and era."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceError, SourceRefused
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json
from tests.mcp_client.running import PATIENCE, Watch, logged, running, scripted, text
from tests.servers.web import Log, serving, web_server


class Painter:
    """An answerer that knows a colour, and nothing else."""

    def __init__(self, colour: str = "blue") -> None:
        self._colour = colour
        self.asked: list[tuple[str, str]] = []

    def capabilities(self) -> Json:
        return {"elicitation": {"form": {}}}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        self.asked.append((source, method))
        if self._colour == "none":
            raise SourceRefused(source, "nobody is here", rpc_code=-1)
        return {"action": "accept", "content": {"colour": self._colour}}


ELICITATION: Json = {"elicitation": {"form": {}}}


@asynccontextmanager
async def web(flavour: str, **options: Any) -> AsyncGenerator[Watch]:
    server = web_server(Log())
    sse = flavour.startswith("sse")
    async with serving(server.sse_app() if sse else server.streamable_http_app()) as site:
        made = McpServer.model_validate(
            {
                "url": site.url + ("/sse" if sse else "/mcp"),
                "protocol": "legacy" if "legacy" in flavour else "auto",
            }
        )
        async with running(made, **options) as watch:
            yield watch


every_web_flavour = pytest.mark.parametrize(
    "flavour", ["legacy", "modern", "sse-legacy", "sse-modern"]
)


@every_web_flavour
async def test_the_callers_answerer_is_asked(flavour: str) -> None:
    painter = Painter()
    async with web(flavour, answers=ELICITATION) as watch:
        assert text(await watch.call("ask", CallContext(answerer=painter))) == "blue"
    assert painter.asked == [("x", "elicitation/create")]


@every_web_flavour
async def test_a_caller_without_an_answer_hears_so_at_once(flavour: str) -> None:
    async with web(flavour, answers=ELICITATION) as watch:
        try:
            result = await watch.call("ask")
        except SourceError as exc:
            words = exc.message
        else:
            assert result["isError"] is True
            words = text(result)
        assert "cannot answer" in words or "did not declare" in words
        assert text(await watch.call("echo", text="next")) == "next"


@every_web_flavour
async def test_the_default_answerer_stands_in(flavour: str) -> None:
    painter = Painter("red")
    async with web(flavour, answers=ELICITATION, default_answerer=painter) as watch:
        assert text(await watch.call("ask")) == "red"


async def test_a_refusal_becomes_an_error_result_that_the_model_can_read() -> None:
    async with web("modern", answers=ELICITATION) as watch:
        result = await watch.call("ask", CallContext(answerer=Painter("none")))
    assert result["isError"] is True
    assert "nobody is here" in text(result)


@pytest.mark.parametrize("flavour", ["legacy", "modern"])
async def test_over_http_each_question_goes_to_the_call_that_caused_it(flavour: str) -> None:
    got: dict[str, str] = {}
    async with web(flavour, answers=ELICITATION) as watch, anyio.create_task_group() as tasks:

        async def one(colour: str) -> None:
            context = CallContext(answerer=Painter(colour))
            got[colour] = text(await watch.call("ask", context))

        for colour in ("red", "green", "blue"):
            tasks.start_soon(one, colour)
    assert got == {colour: colour for colour in ("red", "green", "blue")}


async def test_over_a_pipe_the_only_call_in_flight_is_asked() -> None:
    painter = Painter()
    async with running(scripted(), answers=ELICITATION) as watch:
        context = CallContext(answerer=painter)
        reply = json.loads(text(await watch.call("ask", context, method="elicitation/create")))
    assert reply == {"action": "accept", "content": {"colour": "blue"}}


async def test_over_a_pipe_a_question_among_several_calls_is_declined(tmp_path: Any) -> None:
    log = tmp_path / "log"
    painter = Painter()
    context = CallContext(answerer=painter)
    async with running(scripted(log=log)) as watch, anyio.create_task_group() as tasks:
        tasks.start_soon(watch.call, "hang")
        await logged(log, lambda e: e.get("params", {}).get("name") == "hang")
        reply = json.loads(text(await watch.call("ask", context, method="elicitation/create")))
        tasks.cancel_scope.cancel()
    assert "cannot answer" in reply["message"]
    assert painter.asked == []


@pytest.mark.parametrize("method", ["sampling/createMessage", "roots/list", "tasks/unknown"])
async def test_what_nobody_can_answer_is_declined_at_once(method: str) -> None:
    async with running(scripted()) as watch:
        context = CallContext(answerer=Painter())
        with anyio.fail_after(PATIENCE):
            reply = json.loads(text(await watch.call("ask", context, method=method)))
    assert reply["code"] == -32601


async def test_a_ping_is_answered() -> None:
    async with running(scripted()) as watch:
        assert json.loads(text(await watch.call("ask", method="ping"))) == {}


class Slow:
    """An answerer that never gets to the end."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.stopped = anyio.Event()

    def capabilities(self) -> Json:
        return {"sampling": {}}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.stopped.set()
        return {}


async def test_leaving_a_call_stops_the_answer_that_is_being_made_for_it() -> None:
    slow = Slow()
    async with running(scripted()) as watch:
        async with anyio.create_task_group() as tasks:

            async def call() -> None:
                context = CallContext(answerer=slow)
                await watch.call("ask", context, method="sampling/createMessage")

            tasks.start_soon(call)
            with anyio.fail_after(PATIENCE):
                await slow.began.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await slow.stopped.wait()


async def test_requests_of_the_old_era_work_on_a_server_of_the_new_one() -> None:
    settings = McpServer.model_validate(
        {"command": sys.executable, "args": ["-m", "mcp_server_time"]}
    )
    async with running(settings) as watch:
        for method, params in (
            ("ping", {}),
            ("logging/setLevel", {"level": "debug"}),
            ("resources/subscribe", {"uri": "notes://today"}),
        ):
            assert await watch.connection.request(method, params, CallContext()) == {}


async def test_resources_are_watched_in_the_new_era() -> None:
    heard: list[tuple[str, Json]] = []
    told = anyio.Event()
    async with web("modern") as watch:
        connection = watch.connection

        def hear(method: str, params: Json) -> None:
            heard.append((method, params))
            told.set()

        connection.subscribe_notifications(hear)
        await connection.request("resources/subscribe", {"uri": "notes://today"}, CallContext())
        with anyio.fail_after(PATIENCE):
            while not told.is_set():
                await watch.call("touch")
                with anyio.move_on_after(0.1):
                    await told.wait()
    assert heard[0][0] == "notifications/resources/updated"
    assert heard[0][1]["uri"] == "notes://today"
