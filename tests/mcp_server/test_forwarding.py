"""What happens while a call runs, from every kind of client to every kind of server."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client
from mcp_types import (
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    Root,
    TextContent,
)

from mcp_bridge.types import Json
from tests.conformance.everything import Witness, everything_app
from tests.fakes import ScriptedInference, answer
from tests.mcp_server.running import PATIENCE, House, house, serving, transport
from tests.mcp_server.running import client as connected

FRONTS = [
    (kind, era) for kind in ("http", "sse", "websocket", "stdio") for era in ("legacy", "modern")
]
NEAR = [front for front in FRONTS if front[0] != "stdio"]
"""The fronts that need no process of their own; test_stdio.py does the same over stdio."""

BEHIND = ("legacy", "2026-07-28")
pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


@dataclass
class Person:
    """A client that can answer everything, and remembers what it was told."""

    asked: list[Any] = field(default_factory=list)
    logged: list[Any] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)

    async def sample(self, context: Any, params: Any) -> CreateMessageResult:
        self.asked.append(params)
        content = TextContent(type="text", text="Paris")
        return CreateMessageResult(role="assistant", content=content, model="m")

    async def fill_in(self, context: Any, params: ElicitRequestParams) -> ElicitResult:
        self.asked.append(params)
        if params.mode == "url":
            return ElicitResult(action="accept")
        return ElicitResult(action="accept", content={"username": "Ada", "email": "a@b.example"})

    async def roots(self, context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri="file:///home/ada")])

    async def log(self, params: Any) -> None:
        self.logged.append(params.data)

    async def note(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append(progress)

    def callbacks(self) -> Json:
        return {
            "sampling_callback": self.sample,
            "elicitation_callback": self.fill_in,
            "list_roots_callback": self.roots,
            "logging_callback": self.log,
            "log_level": "info",
        }


@dataclass
class Cell:
    """One kind of client in front of one kind of server."""

    house: House
    witness: Witness
    kind: str
    era: str
    config: Path

    @asynccontextmanager
    async def client(self, **callbacks: Any) -> AsyncGenerator[Client]:
        way: Any
        if self.kind == "stdio":
            args = ["-m", "mcp_bridge", "stdio", "--config", str(self.config)]
            way = stdio_client(StdioServerParameters(command=sys.executable, args=args))
        else:
            way = transport(self.kind, self.house.url)
        mode = "2026-07-28" if self.era == "modern" else "legacy"
        with anyio.fail_after(PATIENCE):
            async with Client(way, mode=mode, cache=None, **callbacks) as client:
                yield client


@asynccontextmanager
async def cell(front: tuple[str, str], behind: str, folder: Path) -> AsyncGenerator[Cell]:
    witness = Witness()
    async with everything_app(witness) as app, serving(app) as site:
        servers = {"e": {"url": f"{site.url}/mcp", "transport": "http", "protocol": behind}}
        config = folder / "config.json"
        config.write_text(json.dumps({"mcp_servers": servers}))
        async with house(servers) as opened:
            yield Cell(opened, witness, *front, config)


def text(result: Any) -> str:
    value = result.content[0].text
    assert isinstance(value, str)
    return value


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("front", FRONTS, ids="-".join)
async def test_what_a_server_asks_and_tells_reaches_the_client(
    front: tuple[str, str], behind: str, tmp_path: Path
) -> None:
    person = Person()
    async with (
        cell(front, behind, tmp_path) as opened,
        opened.client(**person.callbacks()) as client,
    ):
        await client.call_tool("test_tool_with_progress", progress_callback=person.note)
        await client.call_tool("test_tool_with_logging")
        sampled = await client.call_tool("test_sampling", {"prompt": "Capital of France?"})
        filled = await client.call_tool("test_elicitation", {"message": "Who are you?"})
        opened_page = await client.call_tool("ask_to_open_a_page")
        roots = await client.call_tool("test_input_required_result_list_roots")
        several = await client.call_tool("test_input_required_result_multiple_inputs")
    assert person.progress == [0, 50, 100]
    assert person.logged == [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ]
    assert text(sampled) == "LLM response: Paris"
    assert "Ada" in text(filled)
    assert "accept" in text(opened_page)
    assert "file:///home/ada" in text(roots)
    assert all(word in text(several) for word in ("Paris", "Ada", "file:///home/ada"))
    assert person.asked[0].max_tokens == 100
    assert person.asked[1].message == "Who are you?"
    assert person.asked[2].url == "https://login.example/"


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("front", NEAR, ids="-".join)
async def test_what_the_client_cannot_answer_is_refused_at_once(
    front: tuple[str, str], behind: str, tmp_path: Path
) -> None:
    async with cell(front, behind, tmp_path) as opened, opened.client() as client:
        for name, arguments in (
            ("test_sampling", {"prompt": "?"}),
            ("test_elicitation", {"message": "?"}),
            ("test_input_required_result_list_roots", {}),
        ):
            try:
                result = await client.call_tool(name, arguments)
            except Exception as exc:
                said = str(exc)
            else:
                assert result.is_error
                said = text(result)
            assert said
        assert text(await client.call_tool("test_simple_text")).startswith("This is")


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("front", NEAR, ids="-".join)
async def test_a_call_that_is_cancelled_in_front_is_cancelled_behind(
    front: tuple[str, str], behind: str, tmp_path: Path
) -> None:
    async with (
        cell(front, behind, tmp_path) as opened,
        opened.client(**Person().callbacks()) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(client.call_tool, "wait_for_ever")
        await opened.witness.began.wait()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), anyio.fail_after(PATIENCE):
            await opened.witness.cancelled.wait()
    assert opened.witness.cancelled.is_set()


@pytest.mark.parametrize("mode", ["caller-then-bridge", "bridge"])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_the_bridge_answers_sampling_that_the_client_does_not(
    era: str, behind: str, mode: str
) -> None:
    """And the client is still asked what only it can answer."""
    person = Person()
    callbacks: Json = {"elicitation_callback": person.fill_in, "list_roots_callback": person.roots}
    if mode == "bridge":
        callbacks["sampling_callback"] = person.sample
    async with (
        everything_app() as app,
        serving(app) as site,
        ScriptedInference(then=answer("Rome"), models=("m",)) as models,
    ):
        servers = {"e": {"url": f"{site.url}/mcp", "transport": "http", "protocol": behind}}
        settings = {
            "inference_server": {"base_url": models.base_url},
            "sampling": {"models": [{"model": "m"}], "answer": mode},
        }
        async with (
            house(servers, **settings) as opened,
            connected("http", opened.url, era, **callbacks) as client,
        ):
            sampled = await client.call_tool("test_sampling", {"prompt": "Capital?"})
            several = await client.call_tool("test_input_required_result_multiple_inputs")
    assert text(sampled) == "LLM response: Rome"
    assert all(word in text(several) for word in ("Rome", "Ada", "file:///home/ada"))


@pytest.mark.parametrize("behind", BEHIND)
async def test_a_client_without_a_session_is_told_of_progress_and_never_waits_for_an_answer(
    behind: str, tmp_path: Path
) -> None:
    async with cell(("http", "legacy"), behind, tmp_path) as opened, httpx2.AsyncClient() as http:
        progress = await post(http, opened.house.mcp, "test_tool_with_progress", {})
        declined = await post(http, opened.house.mcp, "test_sampling", {"prompt": "?"})
    assert [m["params"]["progress"] for m in progress[:-1]] == [0, 50, 100]
    assert progress[-1]["result"]["content"][0]["text"] == "done"
    (answer,) = declined
    assert "error" in answer or answer["result"]["isError"]


async def post(http: httpx2.AsyncClient, url: str, name: str, arguments: Json) -> list[Json]:
    """All messages of the answer to a call that has no session."""
    params = {"name": name, "arguments": arguments, "_meta": {"progressToken": "p"}}
    response = await http.post(
        url,
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        headers={"accept": "application/json, text/event-stream"},
        timeout=PATIENCE,
    )
    assert response.status_code == 200
    if response.headers["content-type"] == "application/json":
        return [response.json()]
    lines = [line for line in response.text.splitlines() if line.startswith("data:")]
    return [json.loads(line.removeprefix("data:")) for line in lines if line != "data:"]
