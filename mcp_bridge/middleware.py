"""What happens to every HTTP request, whichever door it is for. Pure ASGI: nothing is buffered.

It stands in front of FastAPI and not inside of it, so that chat and MCP requests need not pass
through a framework that has no part in them (`Straight`): that was a fifth of their cost.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_bridge.config.settings import Cors as CorsSettings
from mcp_bridge.errors import BridgeError
from mcp_bridge.telemetry import frequent
from mcp_bridge.telemetry.context import REQUEST_ID

logger = logging.getLogger(__name__)

ID = re.compile(r"[\x21-\x7e]{1,200}")
"""A request id that may be repeated in a header and in the log."""

PINGS = frozenset({"/healthz", "/readyz", "/metrics"})


ENDPOINTS = ("/v1/chat/completions/", "/v1/completions/", "/v1/models/")


class RequestLog:
    """Gives each request an id, in and out (`x-request-id`), and writes one line about it.

    What fails unexpectedly before anything was sent is answered with `failed`, and raised again.
    """

    def __init__(self, app: ASGIApp, owner: FastAPI, failed: ASGIApp) -> None:
        self._app = app
        self._owner = owner
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        known = bool(ID.fullmatch(given))
        request_id = given if known else f"req_{secrets.token_hex(16)}"
        scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)
        began = time.monotonic()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                # The client's own id comes back; else the inference server's, where there is one.
                if known or "x-request-id" not in headers:
                    headers["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # it left before its request was whole: there is nobody to answer
        except Exception:  # boundary: the server that runs us logs it whole
            if not status:
                await self._failed(scope, receive, send_with_id)
            raise
        finally:
            self._write(scope, status, time.monotonic() - began)
            REQUEST_ID.reset(token)

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        if scope["path"] in PINGS and not self._pings_are_logged():
            return
        outcome = str(status) if status else "left before the answer"
        frequent.info(
            logger, "%s %s: %s in %.3f s", scope["method"], scope["path"], outcome, seconds
        )

    def _pings_are_logged(self) -> bool:
        bridge = getattr(self._owner.state, "bridge", None)
        return bridge is not None and bool(bridge.settings.logging.log_server_pings)


class CleanPaths:
    """`//` in a path is `/`: clients put one behind a base URL that ends in one.

    A slash behind one of our endpoints is left out, or the request would be forwarded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "//" in scope["path"]:
            scope["path"] = re.sub("/{2,}", "/", scope["path"])
            scope["raw_path"] = re.sub(b"/{2,}", b"/", scope.get("raw_path") or b"")
        if scope["type"] == "http" and scope["path"].endswith(ENDPOINTS):
            scope["path"] = scope["path"].removesuffix("/")
        await self._app(scope, receive, send)


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
