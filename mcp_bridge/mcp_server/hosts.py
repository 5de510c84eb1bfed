"""Which Host and Origin headers are let in (X8).

A web page may make a browser send requests to this machine, under a name that it has pointed here
(DNS rebinding). Such requests carry the page's name as Host, or its origin; neither is ours.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from mcp_bridge.config.settings import Settings
from mcp_bridge.errors import RequestError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
ANYWHERE = frozenset({"", "0.0.0.0", "::", "[::]"})  # noqa: S104  # addresses to listen on, no hosts


REMEMBERED = 1000


class Hosts:
    """Lets requests in as `check` does, and remembers what it has let in while settings stay."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._let_in: set[tuple[str | None, str | None]] = set()

    def check(self, headers: Mapping[str, str], settings: Settings) -> None:
        """Raises:
        RequestError: as `check`.
        """
        if settings is not self._settings or len(self._let_in) > REMEMBERED:
            self._settings, self._let_in = settings, set()
        seen = headers.get("host"), headers.get("origin")
        if seen not in self._let_in:
            check(headers, settings)
            self._let_in.add(seen)


def check(headers: Mapping[str, str], settings: Settings) -> None:
    """Let the request in.

    Raises:
        RequestError: 421 or 403, with what the operator may add to the configuration.
    """
    host = headers.get("host", "")
    if not is_allowed(host, hosts(settings)):
        raise RequestError(
            f"the Host header {host!r} is not known here: if clients reach the bridge under this "
            f"name, add it to network.allowed_hosts, for instance {suggested(host)!r}",
            code="unknown_host",
            status=421,
        )
    origin = headers.get("origin")
    if origin and not is_allowed(origin, origins(settings)):
        raise RequestError(
            f"requests from the web page {origin!r} are not let in: if you trust it, add it to "
            "network.allowed_origins",
            code="unknown_origin",
            status=403,
        )


def hosts(settings: Settings) -> tuple[str, ...]:
    """Loopback, the address that we listen on, and what the configuration adds."""
    listening = settings.network.host
    if ":" in listening and not listening.startswith("["):
        listening = f"[{listening}]"
    own = () if listening in ANYWHERE else (listening,)
    return (*LOOPBACK, *own, *settings.network.allowed_hosts)


def origins(settings: Settings) -> tuple[str, ...]:
    """Pages on loopback, what the configuration adds, and the pages that CORS lets in anyhow."""
    own = tuple(f"{scheme}://{host}" for scheme in ("http", "https") for host in LOOPBACK)
    cors = settings.security.cors
    shared = cors.allow_origins if cors.enabled else ()
    return (*own, *settings.network.allowed_origins, *shared)


def is_allowed(given: str, allowed: Iterable[str]) -> bool:
    """Whether a host or an origin is one of these. One without a port stands for every port."""
    names = {given.lower(), without_port(given.lower()), "*"}
    return any(one.lower().removesuffix(":*").rstrip("/") in names for one in allowed)


def without_port(given: str) -> str:
    """`name:80` and `https://name:80` without their port."""
    scheme, found, rest = given.rpartition("://")
    try:
        parsed = urlsplit(f"//{rest}")
        port = parsed.port
    except ValueError:
        return given
    bare = rest if port is None else rest.removesuffix(f":{port}")
    return f"{scheme}{found}{bare}"


def suggested(host: str) -> str:
    return f"{without_port(host)}:*" if host else "bridge:*"
