"""Requests that pass through as they are: bytes in, bytes out, credentials exchanged."""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from mcp_bridge.exact import decode
from mcp_bridge.inference.headers import Headers, returnable, sendable
from mcp_bridge.inference.transport import Endpoint, Reply

BODILESS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS"})
"""Methods that have a body only if they announce one."""


@dataclass(slots=True)
class Outgoing:
    """A request on its way through. `body` is None when there is none."""

    method: str
    path: str
    query: str
    headers: Headers
    body: AsyncIterator[bytes] | bytes | None

    @classmethod
    async def of(
        cls,
        method: str,
        path: str,
        query: str,
        headers: Iterable[tuple[str, str]] | Mapping[str, str],
        body: AsyncIterator[bytes] | bytes,
    ) -> "Outgoing":
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        given = [(name.lower(), value) for name, value in pairs]
        sent = with_encoding(sendable(given))
        if not isinstance(body, bytes) and not announces_body(method, dict(given)):
            body = await whole(body)  # empty, but the client's connection is watched behind it
        if isinstance(body, bytes):
            sent = without_length(sent)
        return cls(method, path.lstrip("/"), query, sent, body or None)

    async def send(self, endpoint: Endpoint, model: str | None) -> Reply:
        """Send it to this server.

        Raises:
            InferenceError: it is out of reach, or did not answer in time.
        """
        body = self.body
        if model is None and body is not None and endpoint.address.names_deployment(self.path):
            body = body if isinstance(body, bytes) else await self._read(body)
            model = model_in(body)
        url = endpoint.address.full(self.path, self.query, model)
        return await endpoint.forward(self.method, url, self.headers, body)

    async def _read(self, body: AsyncIterator[bytes]) -> bytes:
        """Read the body whole, for whichever server is asked."""
        self.body, self.headers = await whole(body), without_length(self.headers)
        return self.body


class Forwarded:
    """The answer to a request that was passed on. Iterating gives the body's raw bytes."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.status = reply.status
        self.headers: Headers = returnable(reply.header_list)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._reply


def announces_body(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request has a body, by its headers."""
    if "transfer-encoding" in headers:
        return True
    return headers.get("content-length", "0" if method in BODILESS else "") != "0"


def with_encoding(headers: Headers) -> Headers:
    """The HTTP client asks for compression by itself; a caller that did not must not get it."""
    if any(name == "accept-encoding" for name, _ in headers):
        return headers
    return [*headers, ("accept-encoding", "identity")]


def without_length(headers: Headers) -> Headers:
    """They are sent with a body whose length is known."""
    return [(name, value) for name, value in headers if name != "content-length"]


async def whole(body: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in body])


def model_in(body: bytes) -> str | None:
    """The model that a JSON body names."""
    try:
        value = decode(body)
    except ValueError:
        return None
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) else None
