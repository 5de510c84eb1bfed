"""What goes between workers, piece by piece: messages, requests, errors."""

import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from mcp_bridge.errors import (
    OutcomeUnknown,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.mcp_client.channel import NeedsAuth
from mcp_bridge.types import Caller
from mcp_bridge.workers.calls import as_rpc, caller_of, error_of, fields_of
from mcp_bridge.workers.passing import opening, packed, pass_on, scope_of, unpacked
from mcp_bridge.workers.pipe import LENGTH, MOST_UNREAD, Broken, Pipe, adopt, taken
from mcp_bridge.workers.run import OWN

PATIENCE = 10


@asynccontextmanager
async def pipes() -> AsyncGenerator[tuple[Pipe, Pipe]]:
    one, other = socket.socketpair()
    ends = await adopt(one), await adopt(other)
    try:
        with anyio.fail_after(PATIENCE):
            yield ends
    finally:
        for end in ends:
            end.abort()
        await anyio.lowlevel.checkpoint()


@given(messages=st.lists(st.binary(max_size=50)), cuts=st.lists(st.integers(1, 20)))
def test_messages_are_whole_however_their_bytes_arrive(
    messages: Sequence[bytes], cuts: Sequence[int]
) -> None:
    data = b"".join(LENGTH.pack(len(message)) + message for message in messages)
    buffer, found = bytearray(), []
    for size in [*cuts, len(data)]:
        part, data = data[:size], data[size:]
        buffer += part
        while (message := taken(buffer)) is not None:
            found.append(message)
    assert found == list(messages)


async def test_a_reader_that_is_slow_makes_the_writer_wait() -> None:
    async with pipes() as (here, there):
        large, sent = b"x" * MOST_UNREAD, 0

        async def write() -> None:
            nonlocal sent
            for _ in range(50):
                await here.send(large)
                sent += 1
            here.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            assert await there.receive() == large
            assert sent < 50
            received = 1
            while await there.receive() is not None:
                received += 1
        assert received == sent == 50


async def test_what_is_told_to_one_who_has_left_is_refused_and_what_came_is_still_read() -> None:
    async with pipes() as (here, there):
        await here.send(b"last words")
        here.close()
        assert await there.receive() == b"last words"
        assert await there.receive() is None
        with pytest.raises(Broken):
            await there.send(b"hello?")


def test_the_supervisor_is_a_small_process() -> None:
    heavy = {"fastapi", "starlette", "uvicorn", "mcp", "aiohttp", "openai"}
    code = f"import mcp_bridge.workers.supervise, sys; print(*{heavy} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert said.stdout.split() == []


ERRORS = [
    SourceUnavailable("x", "x is not connected"),
    NeedsAuth("x", "x asks for a login"),
    SourceTimeout("x", "x did not answer"),
    OutcomeUnknown("x", "nobody knows"),
    SourceError("x", "it failed unexpectedly"),
    SourceRefused("x", "no", rpc_code=-32050, data={"a": 1}),
    SourceRefused("x", "no", rpc_code=-32602),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_a_server_says_the_same_in_another_worker(error: SourceError) -> None:
    again = error_of("x", as_rpc(error))
    assert isinstance(error, type(again))
    assert (again.source, again.message, again.code) == ("x", error.message, error.code)
    assert again.status == error.status
    if isinstance(error, SourceRefused):
        assert isinstance(again, SourceRefused)
        assert (again.rpc_code, again.data) == (error.rpc_code, error.data)


@pytest.mark.parametrize("tools", [None, (), ("a:*", "!b:*")])
def test_a_caller_is_the_same_in_another_worker(tools: tuple[str, ...] | None) -> None:
    caller = Caller("anna", "tenant", frozenset({"chat", "mcp"}), "set", tools)
    assert caller_of(orjson.loads(orjson.dumps(fields_of(caller)))) == caller


SCOPE: Scope = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/mcp/a b/ü",
    "raw_path": b"/mcp/a%20b/%C3%BC",
    "query_string": b"q=%ff",
    "root_path": "",
    "headers": [(b"host", b"bridge:1"), (b"x-odd", b"\xff\x00"), (b"x-odd", b"twice")],
    "client": ("10.0.0.1", 1234),
    "server": ("127.0.0.1", 8000),
    "subprotocols": ["mcp"],
    "extensions": {"websocket.http.response": {}},
    "state": {"request_id": "req-1"},
}


def test_a_request_is_the_same_in_another_worker() -> None:
    assert scope_of(orjson.loads(opening("front", SCOPE))) == SCOPE


def test_the_way_that_a_mount_has_taken_is_taken_again() -> None:
    mounted = {**SCOPE, "root_path": "/t/all", "app_root_path": ""}
    assert scope_of(orjson.loads(opening("inner", mounted)))["root_path"] == ""


MESSAGES: list[Message] = [
    {"type": "http.request", "body": b"\x00\xff", "more_body": True},
    {"type": "http.response.start", "status": 200, "headers": [(b"a", b"\xe9")]},
    {"type": "http.response.body", "body": b"", "more_body": False},
    {"type": "websocket.receive", "bytes": None, "text": "grüße"},
    {"type": "websocket.send", "bytes": b"\x01"},
    {"type": "websocket.disconnect", "code": 1001, "reason": None},
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: str(message["type"]))
def test_a_message_is_the_same_in_another_worker(message: Message) -> None:
    assert unpacked(packed(message)) == message


async def answered_by_nobody(scope: Scope, folder: Path) -> list[Message]:
    """What a client is told whose request nobody accepts."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await pass_on(str(folder / "0.sock"), "front", scope, receive, send, patience=0.1)
    return sent


async def test_a_request_that_no_worker_accepts_is_refused_for_now(tmp_path: Path) -> None:
    start, body = await answered_by_nobody(SCOPE, tmp_path)
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert orjson.loads(body["body"])["error"]["code"] == "restarting"


async def test_a_websocket_that_no_worker_accepts_is_refused_for_now(tmp_path: Path) -> None:
    scope = {**SCOPE, "type": "websocket"}
    assert await answered_by_nobody(scope, tmp_path) == [{"type": "websocket.close", "code": 1012}]


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/v1/chat/completions", True),
        ("//v1//models", True),
        ("/t/set/v1/models", True),
        ("/healthz", True),
        ("/v12", False),
        ("/mcp", False),
        ("/mcp/tools/v1", False),
        ("/toolsets/v1/mcp", False),
        ("/readyz", False),
        ("/", False),
    ],
)
def test_every_worker_answers_what_openai_clients_ask(path: str, own: bool) -> None:
    assert bool(OWN.match(path)) is own
