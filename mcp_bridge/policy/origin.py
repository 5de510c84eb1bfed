"""Which web pages may ask: a browser sends requests in the name of whoever visits a page (X1).

CORS only keeps a page from reading the answer; the request itself, a tool call, would be carried
out. With authentication a page has no key to send. Without it, the page's origin decides.
"""

from urllib.parse import urlsplit

from mcp_bridge.config.safety import is_loopback
from mcp_bridge.config.settings import Settings
from mcp_bridge.errors import RequestError


def check_origin(origin: str | None, settings: Settings) -> None:
    """Let programs in (they send no `Origin`), pages of this machine, and those in the settings.

    Raises:
        RequestError: 403, a page from somewhere else asks.
    """
    if origin is None or settings.security.auth.enabled or _is_ours(origin):
        return
    cors = settings.security.cors
    allowed = (*settings.network.allowed_origins, *(cors.allow_origins if cors.enabled else ()))
    if origin not in allowed and "*" not in allowed:
        raise RequestError(
            f"pages of {origin} may not use this bridge: enable security.auth, or add the origin "
            "to network.allowed_origins",
            code="origin_not_allowed",
            status=403,
        )


def _is_ours(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)
