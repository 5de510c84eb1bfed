"""One worker: `python -m mcp_bridge.workers.run DESCRIPTOR`, started by the supervisor.

The descriptor is its connection to the supervisor: the job comes in, "ready" goes out, "alive" is
asked and said, and when it ends, the supervisor has ended, and so does the worker.
"""

import asyncio
import logging
import os
import pickle
import re
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import anyio.abc
import anyio.from_thread
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from mcp_bridge import serve
from mcp_bridge.app import Application, create_app
from mcp_bridge.config.load import Loaded, load
from mcp_bridge.telemetry.logging import set_up
from mcp_bridge.telemetry.metrics import Metrics, Together
from mcp_bridge.workers.crew import Crew
from mcp_bridge.workers.job import ALIVE, READY, Job, counts_in, metrics_in
from mcp_bridge.workers.pipe import Broken, Pipe, adopt, read_at_once
from mcp_bridge.workers.taking import Counts, Taker

logger = logging.getLogger(__name__)

WORKER_HEADER = b"x-mcp-bridge-worker"
"""Names the worker that a client's connection has come to."""

OWN = re.compile(r"/+(t/+[^/]+/+)?v1(/|$)|/healthz$")
"""The paths that every worker answers itself: the OpenAI door, and whether it lives."""


def main() -> None:
    """Work until a signal or the end of the supervisor."""
    supervisor = socket.socket(fileno=int(sys.argv[1]))
    try:
        job = Job.unpacked(read_at_once(supervisor))
    except EOFError:
        return
    for descriptor in (supervisor.fileno(), job.inside, *job.sockets):
        os.set_inheritable(descriptor, False)  # no MCP server may keep them open after us
    set_up(job.loaded.settings, worker=job.number)
    sys.exit(0 if Worker(job, supervisor).serve() else 1)


class Worker:
    """An application among others."""

    def __init__(self, job: Job, supervisor: socket.socket) -> None:
        self._job = job
        self._supervisor = supervisor
        self._name = WORKER_HEADER, str(job.number).encode()
        self._pipe: Pipe | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._counts = Counts(counts_in(job.directory), job.number, job.of)
        self._crew = Crew(job)
        together = Together(metrics_in(job.directory), self._crew.pids)
        self._app = create_app(
            job.loaded, self._reload, shared=self._crew, metrics=Metrics(together)
        )
        self._app.router.lifespan_context = self._lifespan(self._app.router.lifespan_context)

    def serve(self) -> bool:
        """Serve until the end; False when it could not start."""
        sockets = [socket.socket(fileno=descriptor) for descriptor in self._job.sockets]
        among = serve.Among(self._front, self._take, self._crew.drained)
        return serve.serve(self._app, sockets, self._ready, among)

    def _lifespan(
        self, around: Callable[[FastAPI], AbstractAsyncContextManager[object]]
    ) -> Callable[[Application], AbstractAsyncContextManager[None]]:
        @asynccontextmanager
        async def lifespan(app: Application) -> AsyncGenerator[None]:
            async with (
                anyio.create_task_group() as tasks,
                around(app),
                self._crew.running(app),
            ):
                self._tasks = tasks
                self._pipe = await adopt(self._supervisor)
                tasks.start_soon(self._end_with, self._pipe)
                yield
                tasks.cancel_scope.cancel()

        return lifespan

    def _take(
        self,
        sockets: list[socket.socket],
        protocol: Callable[[], asyncio.Protocol],
        connections: Callable[[], int],
    ) -> Callable[[], None]:
        assert self._tasks is not None  # noqa: S101  # the lifespan has begun
        taker = Taker(sockets, protocol, lambda: self._counts.have(connections()), self._tasks)
        return taker.close

    async def _end_with(self, supervisor: Pipe) -> None:
        while await supervisor.receive() is not None:
            with suppress(Broken):  # then there is nothing more to receive
                supervisor.put(ALIVE)
        os.kill(os.getpid(), signal.SIGTERM)
        logger.error("the supervisor has ended, so this worker ends")
        if self._job.is_keeper:
            shutil.rmtree(self._job.directory, ignore_errors=True)

    def _ready(self) -> None:
        if self._pipe is not None:
            self._pipe.put(READY)

    def _reload(self) -> Loaded:
        """Read the configuration again. Who starts later begins with it, too."""
        again = load(self._job.path, overrides=self._job.overrides or None)
        set_up(again.settings, worker=self._job.number)
        if self._job.is_keeper and self._pipe is not None:
            anyio.from_thread.run_sync(self._pipe.put, pickle.dumps(again))
        return again

    async def _front(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What comes from a client: answered here, or by the keeper."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message["headers"] = [*message.get("headers", ()), self._name]
            await send(message)

        own = scope["type"] == "http" and OWN.match(scope["path"])
        if own or self._job.is_keeper:
            await self._app(scope, receive, named)
        else:
            await self._crew.to_keeper(scope, receive, named)


if __name__ == "__main__":
    main()
