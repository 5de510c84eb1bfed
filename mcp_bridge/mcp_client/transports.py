"""Which transport a server is reached by: one place to choose, one to add another.

Those over a URL are imported when a server needs one: their libraries take 2 MiB of memory.
"""

from contextlib import AbstractAsyncContextManager

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import SourceUnavailable
from mcp_bridge.mcp_client.channel import Channel
from mcp_bridge.mcp_client.stdio import open_stdio


def candidates(settings: McpServer) -> tuple[str, ...]:
    """The transports to try, in this order (T2)."""
    if settings.transport != "auto":
        return (settings.transport,)
    if settings.url is None:
        return ("stdio",)
    if settings.url.startswith(("ws://", "wss://")):
        return ("websocket",)
    path = settings.url.partition("?")[0].rstrip("/")
    return ("sse", "http") if path.endswith("/sse") else ("http", "sse")


def open_channel(
    transport: str, name: str, settings: McpServer
) -> AbstractAsyncContextManager[Channel]:
    """A channel over that transport, to be entered and left by one task.

    Raises:
        SourceUnavailable: the settings do not fit it.
    """
    match transport:
        case "stdio" if settings.command or settings.image:
            return open_stdio(name, settings)
        case "http" if settings.url:
            from mcp_bridge.mcp_client.streamable import open_streamable

            return open_streamable(name, settings)
        case "sse" if settings.url:
            from mcp_bridge.mcp_client.sse import open_sse

            return open_sse(name, settings)
        case "websocket" if settings.url:
            from mcp_bridge.mcp_client.websocket import open_websocket

            return open_websocket(name, settings)
        case _:
            raise SourceUnavailable(
                name,
                f'mcp_servers.{name}: transport "{transport}" needs '
                + ('"command" or "image"' if transport == "stdio" else '"url"'),
            )
