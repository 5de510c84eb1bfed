"""The web application: its lifetime, every route on one screen, and how errors are answered."""

import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_bridge.admin.metrics import counting
from mcp_bridge.admin.rest import admin_router
from mcp_bridge.api.chat import ChatEndpoint
from mcp_bridge.api.completions import CompletionsEndpoint
from mcp_bridge.api.forward import ForwardEndpoint
from mcp_bridge.api.models import ModelEndpoint, ModelsEndpoint
from mcp_bridge.bridge import Shared, open_bridge
from mcp_bridge.config.follow import Reload, following
from mcp_bridge.config.load import Loaded
from mcp_bridge.errors import BridgeError, RequestError
from mcp_bridge.mcp_server.door import mcp_door
from mcp_bridge.mcp_server.routes import StreamableEntrance, mcp_routes
from mcp_bridge.middleware import Cors, Recorded, Straight
from mcp_bridge.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


def create_app(
    loaded: Loaded,
    reload: Reload | None = None,
    *,
    shared: Shared | None = None,
    metrics: Metrics | None = None,
) -> "Application":
    """The application for a configuration; its lifespan opens the bridge (`app.state.bridge`).

    With `reload`, the files that the configuration came from are watched and SIGHUP is heard: then
    `reload` reads it again, and what does not load changes nothing. `shared` and `metrics` are
    given where several processes serve one address.
    """
    app = Application(title="mcp_bridge", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.loaded = loaded
    app.state.reload = reload
    app.state.shared = shared
    app.state.metrics = metrics = metrics or Metrics()
    openai, mcp = openai_routes(), mcp_routes(lambda scope: scope["app"].state.mcp_door)
    app.router.routes += openai
    app.router.routes.append(Mount("/t/{toolset}", routes=openai_routes()))
    app.router.routes += mcp
    app.include_router(admin_router(metrics))
    app.router.routes.append(Route("/", RedirectResponse("/docs"), methods=["GET"]))
    for kind, handler in ERROR_ANSWERS.items():
        app.add_exception_handler(kind, handler)
    inside = Straight(app.behind, straight_ways([*openai, *mcp]), error_answer)
    app.stand_behind(front(app, metrics, inside), inside)
    return app


class Application(FastAPI):
    """FastAPI behind what happens to every request."""

    def stand_behind(self, front: ASGIApp, inside: ASGIApp) -> None:
        """Let every request go through `front`, which leads to `inside` and that to `behind`.

        `inside` alone is for requests that another process has counted and logged.
        """
        self._front = front
        self.inside = inside

    async def behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI itself."""
        await super().__call__(scope, receive, send)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._front(scope, receive, send)


def front(app: Application, metrics: Metrics, inside: ASGIApp) -> ASGIApp:
    """Every request from the outside in: cleaned, counted, logged, and let through."""
    return Recorded(Cors(inside, app), app, error_answer(BUG), metrics)


def straight_ways(routes: Iterable[BaseRoute]) -> list[Route]:
    """The routes that many requests take, or that hold streams open for long."""
    return [
        route
        for route in routes
        if isinstance(route, Route)
        and (route.path == "/v1/chat/completions" or isinstance(route.endpoint, StreamableEntrance))
    ]


def openai_routes() -> list[BaseRoute]:
    """The door of OpenAI clients. What the bridge has no part in is forwarded."""
    return [
        Route("/v1/chat/completions", ChatEndpoint(), methods=["POST"]),
        Route("/v1/completions", CompletionsEndpoint(), methods=["POST"]),
        Route("/v1/models", ModelsEndpoint(), methods=["GET"]),
        Route("/v1/models/{id:path}", ModelEndpoint(), methods=["GET"]),
        Route("/v1/{path:path}", ForwardEndpoint()),
    ]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open the bridge, and follow its configuration while it runs."""
    loaded: Loaded = app.state.loaded
    shared: Shared | None = app.state.shared
    records = counting(app.state.metrics)
    if shared is not None:
        records = shared.recorded(records)
    async with open_bridge(loaded.settings, records, shared) as bridge:
        app.state.bridge = bridge
        # Left first: its calls are answered while there still is a bridge to answer them.
        async with mcp_door(bridge) as door, following(loaded, app.state.reload, bridge.apply):
            app.state.mcp_door = door
            yield


# Errors

BUG = BridgeError("the bridge failed unexpectedly; its log says more")


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """An error of ours in OpenAI's shape."""
    assert isinstance(error, BridgeError)  # noqa: S101  # registered for it
    return error_answer(error)


async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses: no such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it
    what = f"{request.method} {request.url.path}"
    message = {404: f"there is no {what} here", 405: f"{what}: this method is not allowed"}
    ours = RequestError(
        message.get(error.status_code, str(error.detail)),
        status=error.status_code,
        code={404: "not_found", 405: "method_not_allowed"}.get(error.status_code),
    )
    ours.headers.update(error.headers or {})
    return error_answer(ours)


async def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """A body or parameter of the REST door that does not fit: 400, as everywhere."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it
    first = error.errors()[0]
    where = ".".join(str(step) for step in first["loc"] if step not in ("body", "query", "path"))
    message = f"{where}: {first['msg']}" if where else str(first["msg"])
    return error_answer(RequestError(message, param=where or None, code="invalid_value"))


async def answer_bug(request: Request, error: Exception) -> JSONResponse:
    """Anything else is our mistake. Starlette raises it again, so that the log has it whole."""
    return error_answer(BUG)


def error_answer(error: BridgeError) -> JSONResponse:
    headers = dict(error.headers)
    if error.retryable is not None:
        headers["x-should-retry"] = str(error.retryable).lower()
    if error.status == 401:
        headers.setdefault("www-authenticate", "Bearer")
    return JSONResponse(error.body(), error.status, headers)


ERROR_ANSWERS = {
    BridgeError: answer_error,
    HTTPException: answer_http_error,
    RequestValidationError: answer_invalid,
    Exception: answer_bug,
}
