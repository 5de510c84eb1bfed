"""The settings as the operator may see them: every secret is `**********`.

Secrets also stand where a setting is no secret by itself: in a URL, or as an argument after
`--token`. These are hidden by what they look like.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from mcp_bridge.config.settings import McpServer, Settings
from mcp_bridge.types import Json

HIDDEN = "**********"
SECRET_WORD = re.compile(r"api.?key|auth|bearer|credential|passw|pat\b|secret|token", re.IGNORECASE)


def redacted(settings: Settings) -> Json:
    """JSON without a secret in it. Passwords in URLs and arguments are hidden, too."""
    data: Json = settings.model_dump(mode="json", by_alias=False)
    for shown, server in zip(data["inference_server"], settings.inference_server, strict=True):
        shown["base_url"] = without_secrets(server.base_url)
    for name, entry in settings.mcp_servers.items():
        data["mcp_servers"][name] |= _entry(entry)
    return data


def _entry(server: McpServer) -> Json:
    shown: Json = {"args": list(hidden_arguments(server.args)), "problem": server.problem}
    if server.url is not None:
        shown["url"] = without_secrets(server.url)
    return shown


def without_secrets(url: str) -> str:
    """That URL without its password and without the values of its query."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return HIDDEN
    login = f"{HIDDEN}@" if "@" in parts.netloc else ""
    query = [(key, HIDDEN) for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return urlunsplit(parts._replace(netloc=login + host, query=urlencode(query, safe="*")))


def hidden_arguments(args: Iterable[str]) -> Iterable[str]:
    """The arguments with what looks like a secret hidden: `--token x`, `API_KEY=x`, URLs."""
    after_flag = False
    for arg in args:
        yield HIDDEN if after_flag and not arg.startswith("-") else _hidden(arg)
        after_flag = arg.startswith("-") and "=" not in arg and bool(SECRET_WORD.search(arg))


def _hidden(arg: str) -> str:
    name, equals, value = arg.partition("=")
    if "://" in name:
        return without_secrets(arg)
    if equals and SECRET_WORD.search(name):
        return f"{name}={HIDDEN}"
    if "://" in value:
        return f"{name}={without_secrets(value)}"
    header, colon, _ = arg.partition(":")
    return f"{header}: {HIDDEN}" if colon and SECRET_WORD.search(header) else arg
