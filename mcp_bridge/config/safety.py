"""What is refused although each setting is valid by itself: openings, and contradictions.

The same checks run for `check`, at the start (after `--host` and `--port`), and at every reload.
"""

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from mcp_bridge.config.settings import ApiKey, InferenceServer, McpServer, Settings
from mcp_bridge.config.shape import Path
from mcp_bridge.config.wording import did_you_mean

Finding = tuple[Path, str]

SCHEMES = ("http", "https", "ws", "wss")


def findings(settings: Settings, broken: Collection[Path]) -> Iterator[Finding]:
    """Every such mistake, with its path.

    `broken` are paths with mistakes of their own: what depends on them is not judged.
    """
    parts = {path[0] for path in broken if path}
    if "inference_server" not in parts:
        yield from _inference_servers(settings.inference_server)
    servers_broken = ("mcp_servers",) in broken
    for name, server in settings.mcp_servers.items():
        path = ("mcp_servers", name)
        if not servers_broken and path not in {at[:2] for at in broken}:
            yield from _server(path, server)
    if not parts & {"security", "network"}:
        yield from _openings(settings)
    if not parts & {"security", "toolsets"}:
        yield from _toolsets_of_keys(settings)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _openings(settings: Settings) -> Iterator[Finding]:
    yield from _public_bind(settings)
    yield from _keys(settings)
    yield from _cors(settings)


def _public_bind(settings: Settings) -> Iterator[Finding]:
    host, security = settings.network.host, settings.security
    if is_loopback(host) or security.auth.enabled or security.allow_public_without_auth:
        return
    yield (
        ("network", "host"),
        f'"{host}" can be reached from other machines, and anyone there could run the tools; '
        "set security.auth.enabled with security.auth.api_keys, "
        "or network.host to 127.0.0.1 (security.allow_public_without_auth serves it anyway)",
    )


def _keys(settings: Settings) -> Iterator[Finding]:
    auth = settings.security.auth
    path: Path = ("security", "auth", "api_keys")
    if auth.enabled and not auth.api_keys:
        yield path, 'security.auth.enabled is true: give at least one {"key": "…"}'
    counts = Counter(key.key.get_secret_value() for key in auth.api_keys)
    seen: set[str] = set()
    for n, key in enumerate(auth.api_keys):
        text = key.key.get_secret_value()
        if wrong := _wrong_key(text):
            yield (*path, n, "key"), wrong
        elif counts[text] > 1 and text in seen:
            yield (*path, n, "key"), "the same key is given twice; give each caller its own"
        seen.add(text)


def _wrong_key(text: str) -> str | None:
    if not text:
        return "a key cannot be empty; make one with: openssl rand -hex 32"
    if not text.isascii():
        return "only ASCII characters can be sent in a header; use letters and digits"
    if not text.isprintable() or " " in text:
        return "spaces and control characters cannot be sent in a header; use letters and digits"
    return None


def _cors(settings: Settings) -> Iterator[Finding]:
    cors = settings.security.cors
    if not cors.enabled:
        return
    if "*" in cors.allow_origins and cors.allow_credentials:
        yield (
            ("security", "cors", "allow_origins"),
            '"*" together with allow_credentials lets every web page act as its visitor; '
            "name the origins, or set allow_credentials to false",
        )


def _toolsets_of_keys(settings: Settings) -> Iterator[Finding]:
    for n, key in enumerate(settings.security.auth.api_keys):
        if key.toolset is not None and key.toolset not in settings.toolsets:
            path = ("security", "auth", "api_keys", n, "toolset")
            yield path, _no_such_toolset(key, settings)


def _no_such_toolset(key: ApiKey, settings: Settings) -> str:
    guess = did_you_mean(key.toolset or "", settings.toolsets)
    hint = f'did you mean "{guess}"?' if guess else "define it under toolsets"
    return f'there is no toolset "{key.toolset}"; {hint}'


def _inference_servers(servers: tuple[InferenceServer, ...]) -> Iterator[Finding]:
    names = Counter(server.name for server in servers if server.name)
    for n, server in enumerate(servers):
        path: Path = ("inference_server", n)
        if not server.base_url:
            yield (
                (*path, "base_url"),
                "missing; give the server's address, such as http://127.0.0.1:11434/v1",
            )
        elif not _is_address(server.base_url, ("http", "https")):
            yield (*path, "base_url"), "expected an address such as http://127.0.0.1:11434/v1"
        if names[server.name] > 1:
            yield (*path, "name"), f'"{server.name}" is another server\'s name too'


def _server(path: Path, server: McpServer) -> Iterator[Finding]:
    if not path[-1]:
        yield path, "a server needs a name"
    kinds = [kind for kind in ("command", "url", "image") if getattr(server, kind) is not None]
    if not kinds:
        yield path, 'set either "command" or "url" (or "image", for docker)'
    elif len(kinds) > 1:
        both = " and ".join(f'"{kind}"' for kind in kinds)
        yield path, f'has {both}; set either "command" or "url" (or "image", for docker)'
    elif server.problem is None:
        yield from _address(path, server)


def _address(path: Path, server: McpServer) -> Iterator[Finding]:
    if server.url is not None and not _is_address(server.url, SCHEMES):
        yield (*path, "url"), "expected an address such as https://host/mcp"
    if server.transport == "stdio" and server.url is not None:
        yield (*path, "transport"), '"stdio" needs "command"; with "url" it is http or sse'
    if server.transport in ("http", "sse", "websocket") and server.url is None:
        yield (*path, "transport"), f'"{server.transport}" needs "url"; a command is stdio'


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text.strip())
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
