"""What happens to every HTTP request, whichever door it is for. Pure ASGI: nothing is buffered.

It stands in front of FastAPI and not inside of it, so that chat and MCP requests need not pass
through a framework that has no part in them (`Straight`): that was a fifth of their cost.
"""

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_bridge.config.settings import Cors as CorsSettings
from mcp_bridge.errors import BridgeError
from mcp_bridge.telemetry import frequent
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.telemetry.metrics import OTHER, Metrics

logger = logging.getLogger(__name__)

ID_HEADER = b"x-request-id"
ID = re.compile(rb"[\x21-\x7e]{1,200}")
"""A request id that may be repeated in a header and in the log."""

PINGS = frozenset({"/healthz", "/readyz", "/metrics"})


ENDPOINTS = ("/v1/chat/completions/", "/v1/completions/", "/v1/models/")


class Recorded:
    """Gives each request an id, in and out (`x-request-id`), counts it, and writes a line about it.

    Its path is cleaned first. What fails unexpectedly before anything was sent is answered with
    `failed`, and raised again.
    """

    def __init__(self, app: ASGIApp, owner: Starlette, failed: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._owner = owner
        self._failed = failed
        self._metrics = metrics
        self._known: Mapping[Any, str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clean(scope)
        given = first(scope["headers"], ID_HEADER)
        known = given is not None and ID.fullmatch(given) is not None
        request_id = given.decode() if given and known else f"req_{os.urandom(16).hex()}"
        scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        began = time.monotonic()
        status, streams = 0, 0

        def noticing(message: Message) -> Awaitable[None]:  # no coroutine more for each chunk
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                identify(headers, request_id, known)
                if is_stream(headers):
                    streams = 1
                    self._metrics.stream(1)
            return send(message)

        try:
            await self._app(scope, receive, noticing)
        except ClientDisconnect:
            pass  # it left before its request was whole: there is nobody to answer
        except Exception:  # boundary: the server that runs us logs it whole
            if not status:
                await self._failed(scope, receive, noticing)
            raise
        finally:
            if streams:
                self._metrics.stream(-1)
            self._record(scope, status, time.monotonic() - began)
            REQUEST_ID.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method, path = scope["method"], scope["path"]
        if path not in PINGS or self._pings_are_logged():
            outcome = str(status) if status else "left before the answer"
            frequent.info(logger, "%s %s: %s in %.3f s", method, path, outcome, seconds)
        if self._known is None:
            self._known = dict(paths_of(self._owner.routes))
        self._metrics.request(method, template(scope, self._known), status, seconds)

    def _pings_are_logged(self) -> bool:
        bridge = getattr(self._owner.state, "bridge", None)
        return bridge is not None and bool(bridge.settings.logging.log_server_pings)


def first(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The value of the first header of this name, which is in lower case."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def identify(headers: list[tuple[bytes, bytes]], request_id: str, known: bool) -> None:
    """Add the id. The client's own comes back; else the inference server's, where there is one."""
    if first(headers, ID_HEADER) is None:
        headers.append((ID_HEADER, request_id.encode()))
    elif known:
        MutableHeaders(raw=headers)["x-request-id"] = request_id


def is_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    kind = first(headers, b"content-type") or b""
    return kind.partition(b";")[0].strip().lower() == b"text/event-stream"


def template(scope: Scope, known: Mapping[Any, str]) -> str:
    """The path of the route that took the request, for a path itself may be anything."""
    path = getattr(scope.get("route"), "path", None) or known.get(scope.get("endpoint"))
    return path if isinstance(path, str) else OTHER


def paths_of(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[tuple[Any, str]]:
    """The endpoints and the paths of plain routes, which FastAPI does not note in the scope."""
    for route in routes:
        if isinstance(route, Route):
            yield route.endpoint, prefix + route.path
        elif isinstance(route, Mount):
            yield from paths_of(route.routes or (), prefix + route.path)


def clean(scope: Scope) -> None:
    """`//` in a path is `/`: clients put one behind a base URL that ends in one.

    A slash behind one of our endpoints is left out, or the request would be forwarded.
    """
    if "//" in scope["path"]:
        scope["path"] = re.sub("/{2,}", "/", scope["path"])
        scope["raw_path"] = re.sub(b"/{2,}", b"/", scope.get("raw_path") or b"")
    if scope["path"].endswith(ENDPOINTS):
        scope["path"] = scope["path"].removesuffix("/")


class Cors:
    """The browser's rules as `security.cors` says now: a reload changes them, too."""

    def __init__(self, app: ASGIApp, owner: FastAPI) -> None:
        self._app = app
        self._owner = owner
        self._made: tuple[CorsSettings, ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        bridge = getattr(self._owner.state, "bridge", None)
        if scope["type"] != "http" or bridge is None or not bridge.settings.security.cors.enabled:
            await self._app(scope, receive, send)
            return
        await self._for(bridge.settings.security.cors)(scope, receive, send)

    def _for(self, settings: CorsSettings) -> ASGIApp:
        if self._made is None or self._made[0] is not settings:
            app = CORSMiddleware(
                self._app,
                allow_origins=settings.allow_origins,
                allow_methods=settings.allow_methods,
                allow_headers=settings.allow_headers,
                allow_credentials=settings.allow_credentials,
                expose_headers=("x-request-id", "retry-after", "mcp-session-id"),
            )
            self._made = settings, app
        return self._made[1]


class Straight:
    """Leads requests for some routes straight to their endpoints, past the framework's layers."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Sequence[Route],
        refused: Callable[[BridgeError], ASGIApp],
    ) -> None:
        self._app = app
        self._by_path = {route.path: route for route in routes if "{" not in route.path}
        self._by_pattern = [route for route in routes if "{" in route.path]
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._find(scope) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["endpoint"] = route.endpoint
        try:
            await route.app(scope, receive, send)
        except BridgeError as exc:  # the endpoint has sent nothing then
            await self._refused(exc)(scope, receive, send)

    def _find(self, scope: Scope) -> Route | None:
        """The route of a request. One with another method is the framework's to refuse."""
        route = self._by_path.get(scope["path"])
        if route is not None:
            return route if not route.methods or scope["method"] in route.methods else None
        for route in self._by_pattern:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route
        return None
