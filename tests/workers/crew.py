"""A bridge of several workers under test: the real command, and clients that know whom they met."""

import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
import websockets.asyncio.client as websockets
from anyio.streams.buffered import BufferedByteReceiveStream
from websockets.typing import Subprotocol

from tests.api.bridged import Json, Streamed, lines
from tests.mcp_client.running import dead
from tests.test_serve import CLEAN, LISTENING

PATIENCE = 30
"""Seconds after which a test fails instead of waiting: much more than it ever needs."""

PROCESS = re.compile(r"worker (\d+) is process (\d+)")
WORKER = "x-mcp-bridge-worker"


@dataclass
class Log:
    """What the processes write, as it comes."""

    lines: list[str] = field(default_factory=list)
    _more: anyio.Event = field(default_factory=anyio.Event)

    async def read(self, stream: BufferedByteReceiveStream) -> None:
        try:
            while True:
                self.lines.append((await stream.receive_until(b"\n", 1 << 20)).decode().rstrip())
                event, self._more = self._more, anyio.Event()
                event.set()
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.ClosedResourceError):
            return

    async def until(self, pattern: str, since: int = 0) -> re.Match[str]:
        """The first line like this."""
        with anyio.fail_after(PATIENCE):
            while True:
                for line in self.lines[since:]:
                    if found := re.search(pattern, line):
                        return found
                await self._more.wait()


@dataclass
class Crew:
    """The running processes."""

    process: anyio.abc.Process
    log: Log
    url: str = ""

    @property
    def pids(self) -> dict[int, int]:
        """The process of each worker, the newest one."""
        found = (PROCESS.search(line) for line in self.log.lines)
        return {int(one[1]): int(one[2]) for one in found if one}

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Meanwhile, nobody else takes a connection."""
        others = [pid for number, pid in self.pids.items() if number != worker]
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def client(self, worker: int, key: str | None = None) -> AsyncGenerator["Visitor"]:
        """A client whose only connection has come to this worker."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=1)
        async with httpx2.AsyncClient(
            base_url=self.url, headers=headers, limits=limits, timeout=PATIENCE
        ) as http:
            with self.only(worker):
                met = await http.get("/healthz")
            assert met.headers[WORKER] == str(worker)
            yield Visitor(http, worker)

    @asynccontextmanager
    async def clients(
        self, workers: Iterable[int], key: str | None = None
    ) -> AsyncGenerator[list["Visitor"]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.client(n, key)) for n in workers]

    @asynccontextmanager
    async def websocket(
        self, worker: int, key: str | None = None
    ) -> AsyncGenerator[websockets.ClientConnection]:
        """A WebSocket for MCP that has come to this worker."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        url = self.url.replace("http", "ws") + "/mcp-server/ws"
        while True:
            async with websockets.connect(
                url, additional_headers=headers, subprotocols=[Subprotocol("mcp")]
            ) as socket:
                assert socket.response is not None
                if socket.response.headers[WORKER] == str(worker):
                    yield socket
                    return

    async def end(self) -> int:
        with anyio.fail_after(PATIENCE):
            return await self.process.wait()


@dataclass
class Visitor:
    """A client on one connection, which stays with one worker."""

    http: httpx2.AsyncClient
    worker: int

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        response = await self.http.post(path, json=body, headers=headers)
        assert response.headers[WORKER] == str(self.worker)
        return response

    async def chat(self, messages: str | list[Json], *, path: str = "/v1", **fields: Any) -> Json:
        """The choice of a whole answer: its message and finish reason."""
        response = await self.post(f"{path}/chat/completions", body_of(messages, **fields))
        assert response.status_code == 200, response.text
        choice: Json = response.json()["choices"][0]
        return choice

    async def streamed(
        self, messages: str | list[Json], *, path: str = "/v1", **fields: Any
    ) -> Streamed:
        body = body_of(messages, stream=True, **fields)
        async with self.http.stream("POST", f"{path}/chat/completions", json=body) as response:
            assert response.headers[WORKER] == str(self.worker)
            read = Streamed(response.status_code, dict(response.headers))
            async with aclosing(lines(response)) as found:
                async for line in found:
                    read.take(line)
        read.check()
        return read


def body_of(messages: str | list[Json], **fields: Any) -> Json:
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    return {"model": "model-a", "messages": messages, **fields}


@asynccontextmanager
async def processes(*command: str) -> AsyncGenerator[Crew]:
    """A supervisor and its workers, whatever becomes of them. All are gone afterwards."""
    python = [sys.executable, "-m", *command]
    async with (
        await anyio.open_process(python, env=CLEAN, stdin=None, stdout=None) as child,
        anyio.create_task_group() as tasks,
    ):
        assert child.stderr is not None
        crew = Crew(child, Log())
        tasks.start_soon(crew.log.read, BufferedByteReceiveStream(child.stderr))
        try:
            yield crew
        finally:
            if child.returncode is None:
                child.terminate()
                with anyio.move_on_after(PATIENCE, shield=True):
                    await child.wait()
            if child.returncode is None:
                child.kill()
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def crew(config: Path, workers: int = 3) -> AsyncGenerator[Crew]:
    """The command, once its workers take requests."""
    serve = ("mcp_bridge", "serve", "--port", "0", "--config", str(config))
    async with supervised(*serve, "--workers", str(workers)) as made:
        yield made


@asynccontextmanager
async def supervised(*command: str) -> AsyncGenerator[Crew]:
    """A supervisor and its workers, once these take requests."""
    async with processes(*command) as made:
        found = await made.log.until(LISTENING.pattern)
        made.url = found[1].removesuffix("/v1")
        pids = set(made.pids.values())
        yield made
        pids |= set(made.pids.values())
    await dead(*pids)
