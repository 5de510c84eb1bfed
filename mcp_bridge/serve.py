"""Serving the application: what a signal does, and the end."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import HANDLED_SIGNALS

logger = logging.getLogger(__name__)

GRACE_SECONDS = 1.5
"""How long answers that are under way may take to end; the rest of 3 seconds is for what does not,
and for MCP servers, side by side."""

CLOSING_SECONDS = 0.3
"""How much of that is for telling MCP clients that theirs will not come."""

HANG_UP_SECONDS = 1
"""How long requests may take to end once their connections are closed; then they are cancelled."""

POLL_SECONDS = 0.05

LONGEST_HEAD = 2**18
"""Bytes of a request's line and headers; clients' cookies and tokens take a few thousand."""

TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep idle connections, so that none is closed while a request is sent."""


@dataclass(frozen=True, slots=True)
class Among:
    """What is different for one of several processes that serve one address.

    `front` takes the requests before the application does. `take` is given the sockets, what makes
    the protocol of a connection, and how many there are; it takes them by turns with the others,
    until what it returns is called. `drained` returns when the others need this one no more.
    """

    front: ASGIApp
    take: Callable[
        [list[socket.socket], Callable[[], asyncio.Protocol], Callable[[], int]],
        Callable[[], None],
    ]
    drained: Callable[[], Awaitable[None]]


def serve(
    app: FastAPI,
    sockets: list[socket.socket],
    on_start: Callable[[], None],
    among: Among | None = None,
) -> bool:
    """Serve until a signal ends it; `on_start` is called when requests are taken.

    Returns False when the application could not start (the log says why).
    """
    config = uvicorn.Config(
        among.front if among else app,
        interface="asgi3",
        lifespan="on",
        http=BoundedHttp,
        log_config=None,
        access_log=False,  # the application writes one line about each request
        server_header=False,
        timeout_graceful_shutdown=HANG_UP_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ws_max_size=app.state.loaded.settings.limits.max_request_bytes,
    )
    # Or each SSE stream of MCP would end with the signal, before its call is answered.
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # it has none
    server = _Server(config, app, on_start, among)
    try:
        server.run(sockets)
    except SystemExit:  # uvicorn's word for a failed start
        return False
    return server.started


def spare_the_collector() -> None:
    """Keep what was imported out of the garbage collector's rounds, which become rarer.

    Measured, its rounds over modules that never change were a fifth of a request's CPU time. Rarer
    than this, sessions that have ended would pile up: they hold each other in circles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which would keep the headers of a request however many come.

    They come before any key is checked, so whoever can connect could fill the memory with them.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head: int | None = None
        """How much of a head has arrived that is not complete; None outside of a head."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head is None or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > LONGEST_HEAD:
            self.transport.write(TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()


class _Server(uvicorn.Server):
    """uvicorn's server, for which a signal is a normal end: the exit code is 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        on_start: Callable[[], None],
        among: Among | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._on_start = on_start
        self._among = among
        self._take_no_more: Callable[[], None] = lambda: None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but anyio knows its loop also in callbacks, such as those of pipes.

        By itself it knows the loop in tasks only, once sniffio is installed. Then whatever a
        callback sets off (a server's request, its progress) would fail.
        """
        options = {"loop_factory": self.config.get_loop_factory()}
        anyio.run(self.serve, sockets, backend_options=options)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._among is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self._take_no_more = self._among.take(
                sockets or [], self._protocol, lambda: len(self.server_state.connections)
            )
        if self.started:
            spare_the_collector()
            self._on_start()

    def _protocol(self) -> asyncio.Protocol:
        return BoundedHttp(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but answers that are under way have their time before anything is closed.

        uvicorn would close WebSockets in the middle of calls, and wait for streams that only we
        can end. What does not end in time sees its client leave, and cleans up.
        """
        for server in self.servers:
            server.close()
        self._take_no_more()
        with anyio.move_on_after(GRACE_SECONDS):
            await self._app.state.mcp_door.drain(GRACE_SECONDS - CLOSING_SECONDS)
            while self.server_state.tasks and not self.force_exit:  # noqa: ASYNC110  # as uvicorn's
                await anyio.sleep(POLL_SECONDS)
            if self._among is not None:
                await self._among.drained()
        self._app.state.bridge.stop()  # they end while the rest of the connections does
        if self.server_state.tasks:
            self._hang_up()
        await super().shutdown(sockets)

    def _hang_up(self) -> None:
        connections = list(self.server_state.connections)
        logger.warning("stopping: %d connections are closed in the middle", len(connections))
        for connection in connections:
            connection.transport.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but signals that were obeyed are not raised again at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
