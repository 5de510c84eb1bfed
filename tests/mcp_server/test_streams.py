"""One connection that carries lines or frames."""

import json
import math
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from mcp_bridge.mcp_server.streams import serve
from mcp_bridge.types import Json
from tests.mcp_server.running import PATIENCE
from tests.mcp_server.test_stdio import INITIALIZE


async def test_a_cancelled_request_is_not_waited_for_at_the_end() -> None:
    called = anyio.Event()
    said: list[Json] = []

    async def hang(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method == "tools/call":
            called.set()
            await anyio.sleep_forever()
        return await call_next(ctx)

    async def messages() -> AsyncGenerator[str]:
        yield message("initialize", INITIALIZE, 0)
        yield message("notifications/initialized", {})
        yield message("tools/call", {"name": "hang"}, 1)
        await called.wait()
        yield message("notifications/cancelled", {"requestId": 1})

    async def send(text: str) -> None:
        said.append(json.loads(text))

    server: Server[Any] = Server("x")
    server.middleware.append(hang)
    with anyio.fail_after(PATIENCE):
        await serve(server, messages(), send, last_seconds=math.inf)
    assert [answer.get("id") for answer in said] == [0]


def message(method: str, params: Json, number: int | None = None) -> str:
    identity = {} if number is None else {"id": number}
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **identity})
