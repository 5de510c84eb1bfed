"""HTTP as the streamable transport uses it: header fields, bodies, refusals and answers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send

from mcp_bridge.mcp_server.messages import refusal_of
from mcp_bridge.types import Json

RawHeaders = Sequence[tuple[bytes, bytes]]

JSON, EVENTS = "application/json", "text/event-stream"
JSON_HEADER = (b"content-type", b"application/json")


class Fields(dict[str, str]):
    """The header fields of a request, by their names in lower case: the first of each name.

    Values come without the optional white space around them (RFC 9110, 5.5), which httptools keeps.
    """

    repeated: frozenset[str]
    """The names of fields that came more than once."""

    def __init__(self, raw: RawHeaders) -> None:
        super().__init__(
            {k.decode("latin-1"): v.decode("latin-1").strip(" \t") for k, v in reversed(raw)}
        )
        self.repeated = frozenset()
        if len(self) < len(raw):
            counted = Counter(name.decode("latin-1") for name, _ in raw)
            self.repeated = frozenset(name for name, count in counted.items() if count > 1)


class Refusal(Exception):
    """A request that is refused before anybody is asked: its HTTP status and its error."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        data: Any = None,
        request_id: int | str | None = None,
        headers: RawHeaders = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        error: Json = {"code": code, "message": message}
        self.body = refusal_of(request_id, error if data is None else {**error, "data": data})


def accepts(fields: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether the client takes JSON, and whether it takes events (RFC 9110, 12.5.1)."""
    return _accepted(fields.get("accept", ""))


@lru_cache(maxsize=256)
def _accepted(given: str) -> tuple[bool, bool]:
    kinds = [kind.partition(";")[0].strip().lower() for kind in given.split(",")]
    anything = "*/*" in kinds
    json = anything or JSON in kinds or "application/*" in kinds
    return json, anything or EVENTS in kinds or "text/*" in kinds


def is_json(fields: Mapping[str, str]) -> bool:
    """Whether the body is said to be JSON."""
    return fields.get("content-type", "").partition(";")[0].strip().lower() == JSON


async def read_body(receive: Receive, fields: Mapping[str, str], limit: int) -> bytes | None:
    """The whole body; None: it is longer than `limit` bytes.

    Raises:
        ClientDisconnect: the client left before it had sent everything.
    """
    announced = fields.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        return None
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            return None
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def respond(send: Send, status: int, body: bytes, headers: RawHeaders = ()) -> None:
    """A whole answer; one without a body says no more than its status."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [JSON_HEADER, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
