"""Applications served inside the demo, and stopped in good order however the demo ends."""

import socket
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import anyio
import uvicorn
from starlette.types import ASGIApp

GRACE_SECONDS = 2
"""How long answers that are under way may take to end."""


class Server(uvicorn.Server):
    """uvicorn's server, which leaves signals to the demo and tells when it is ready."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            lifespan="auto",
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self.settled = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_told(self, sockets: list[socket.socket]) -> None:
        # Cancelling uvicorn would leave the application's lifespan open, and its children behind:
        # it only ever ends by `should_exit`.
        with anyio.CancelScope(shield=True):
            try:
                await self.serve(sockets)
            except SystemExit:  # uvicorn's word for a failed start
                pass
            finally:
                self.settled.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()


@asynccontextmanager
async def serving(app: ASGIApp, sockets: Sequence[socket.socket]) -> AsyncGenerator[bool]:
    """Serve on these listening sockets while the block runs.

    Gives False when the application could not start; the log says why.
    """
    server = Server(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.run_until_told, list(sockets))
        try:
            await server.settled.wait()
            yield server.started
        finally:
            server.should_exit = True
