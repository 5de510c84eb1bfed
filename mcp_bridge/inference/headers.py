"""Which headers pass: to an inference server, and from it to the caller.

Ours and the caller's credentials are never mixed up: what opens the bridge must not reach the
server, and what opens the server comes from the settings alone. What belongs to one connection
(RFC 9110, 7.6.1) stays there.
"""

from collections.abc import Iterable
from urllib.parse import quote

Headers = list[tuple[str, str]]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
CREDENTIALS = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "openai-organization",
        "openai-project",
        "x-api-key",
        "x-goog-api-key",
    }
)
ABOUT_THE_BRIDGE = frozenset({"expect", "forwarded", "host", "x-real-ip"})
ABOUT_THE_BRIDGE_PREFIXES = ("x-forwarded-", "x-mcp-")
ABOUT_THE_SERVER = frozenset({"alt-svc", "date", "set-cookie", "strict-transport-security"})
"""Said by the server of itself; a client would take it for the bridge's word, who says its own."""


def sendable(headers: Iterable[tuple[str, str]]) -> Headers:
    """The caller's headers that go to an inference server, lower-case names.

    Header values are ASCII there, so other characters are percent-encoded.
    """
    headers = [(name.lower(), value) for name, value in headers]
    kept_back = HOP_BY_HOP | CREDENTIALS | ABOUT_THE_BRIDGE | _named_by_connection(headers)
    return [
        (name, value if value.isascii() else quote(value, safe=" !#$&'()*+,/:;=?@[]~"))
        for name, value in headers
        if name not in kept_back and not name.startswith(ABOUT_THE_BRIDGE_PREFIXES)
    ]


def returnable(headers: Iterable[tuple[str, str]]) -> Headers:
    """An inference server's headers that go to the caller."""
    headers = list(headers)
    kept_back = HOP_BY_HOP | ABOUT_THE_SERVER | _named_by_connection(headers)
    return [(name, value) for name, value in headers if name.lower() not in kept_back]


def _named_by_connection(headers: Headers) -> frozenset[str]:
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for option in value.split(",")
    )
