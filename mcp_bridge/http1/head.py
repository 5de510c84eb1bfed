"""What is sent before a body: the request line and the headers (RFC 9112, 3 and 5)."""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from mcp_bridge.http1.failures import BadUrl
from mcp_bridge.proxy import PORTS

NOT_IN_A_TARGET = re.compile(r"[\x00-\x20\x7f]")
NOT_IN_A_NAME = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server is: the part of its URL that a connection is made to."""

    scheme: str
    host: str
    """As it is looked up: ASCII, without the brackets of IPv6."""

    port: int
    login: str | None = None
    """The value of the header for a user and a password in the URL."""

    @classmethod
    def of(cls, url: str) -> "Origin":
        """The origin of a URL.

        Raises:
            BadUrl: it is none that HTTP can use.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            host = host if host.isascii() else host.encode("idna").decode()
        except ValueError as exc:
            raise BadUrl("it cannot be read as a URL") from exc
        if parts.scheme not in PORTS or not host or NOT_IN_A_TARGET.search(host):
            raise BadUrl("it is no http:// or https:// URL")
        return cls(parts.scheme, host, port or PORTS[parts.scheme], login_of(parts))

    @property
    def is_secure(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """Host and port, as CONNECT names them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def host_header(self) -> str:
        usual = self.port == PORTS[self.scheme]
        return self.authority.removesuffix(f":{self.port}") if usual else self.authority

    def target(self, url: str) -> str:
        """The path and the query of a URL at this origin, as a request line has them.

        Raises:
            BadUrl: it holds what would end the line.
        """
        parts = urlsplit(url)
        found = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if NOT_IN_A_TARGET.search(found):
            raise BadUrl("it holds a character that no URL can have")
        return found if found.isascii() else quote(found, safe="/?:@!$&'()*+,;=~%-._#[]")


def login_of(parts: SplitResult) -> str | None:
    """The header for the user and the password that a URL names (RFC 7617)."""
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {b64encode(pair.encode()).decode()}"


def request_line(method: str, target: str) -> bytes:
    """The first line of a request.

    Raises:
        ValueError: the method is none.
    """
    if not is_name(method):
        raise ValueError("the method is none that HTTP has")
    return f"{method} {target} HTTP/1.1\r\n".encode("ascii")


def is_name(text: str) -> bool:
    """Whether a method or a header may be named so."""
    return bool(text) and NOT_IN_A_NAME.search(text) is None


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers as they are sent.

    Raises:
        ValueError: one holds what would end its line, or is not ASCII.
    """
    lines = [f"{name}: {value}\r\n" for name, value in headers]
    text = "".join(lines)
    if text.count("\n") + text.count("\r") != 2 * len(lines) or "\0" in text:
        raise ValueError("a header holds what would end its line")
    return text.encode("ascii")
