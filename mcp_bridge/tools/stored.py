"""Results that were too long for the model, and the tool that reads the rest of them (L20).

`read_tool_result` is a source like any other, so its calls take the same road. It is offered only
when something was cut, and a caller reads only what was cut for that caller.
"""

import secrets
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterator
from sys import getsizeof

from mcp_bridge.tools.source import CallContext, Tool, text_result
from mcp_bridge.types import Caller, Json, frozen

NAME = "mcp_bridge"
READ = "read_tool_result"
MOST_BYTES = 64 * 1024 * 1024
JOINER = "\u200d"
MOST_JOINED = 16
"""Characters that are looked at for a place to cut; longer ones are no text."""

DEFINITION: Json = {
    "name": READ,
    "description": "Read more of a tool result that was cut because it was too long. "
    "Use the id and the offset that the notice in the cut result names.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "id": {"type": "string", "description": "The id in the notice."},
            "offset": {
                "type": "integer",
                "minimum": 0,
                "description": "The character to begin at.",
            },
        },
        "required": ["id"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True},
}


@frozen
class Stored:
    """A text, how much of it is given at once, and until when it is kept."""

    text: str
    page: int
    until: float


@frozen
class ResultCopy:
    """A text as another process may keep it, for whom, and for how many seconds."""

    caller: str
    id: str
    text: str
    page: int
    seconds: float


class StoredResults:
    """Keeps cut results for `ttl` seconds, at most `most_bytes` of them, the oldest going first.

    `page` is the most that is read at once; 0: as much as was shown of the cut result. Where others
    serve beside it, `tell` is given a copy of what is kept for them to `put`.
    """

    name = NAME
    parallel = True

    def __init__(
        self,
        page: int,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        most_bytes: int = MOST_BYTES,
        tell: Callable[[ResultCopy], None] | None = None,
    ) -> None:
        self._page = page
        self._ttl = ttl
        self._clock = clock
        self._most_bytes = most_bytes
        self._tell = tell
        self._results: OrderedDict[tuple[str, str], Stored] = OrderedDict()
        self._size = 0
        self.tools = (Tool(NAME, READ, DEFINITION),)

    def keep(self, caller: Caller, text: str, cap: int) -> str:
        """Keep a text that was cut to `cap`; returns the id under which `caller` reads it."""
        page = min(cap, self._page or cap)
        copy = ResultCopy(caller.name, secrets.token_hex(8), text, page, self._ttl)
        self.put(copy)
        if self._tell is not None:
            self._tell(copy)
        return copy.id

    def put(self, copy: ResultCopy) -> None:
        """Keep a text under the id that it has."""
        key, until = (copy.caller, copy.id), self._clock() + copy.seconds
        if (before := self._results.pop(key, None)) is not None:
            self._size -= getsizeof(before.text)
        self._results[key] = Stored(copy.text, copy.page, until)
        self._size += getsizeof(copy.text)
        while len(self._results) > 1 and (self._size > self._most_bytes or self._oldest_is_over()):
            _, gone = self._results.popitem(last=False)
            self._size -= getsizeof(gone.text)

    def copies(self) -> Iterator[ResultCopy]:
        """All that is kept now."""
        now = self._clock()
        for (caller, id), kept in self._results.items():
            yield ResultCopy(caller, id, kept.text, kept.page, kept.until - now)

    def _oldest_is_over(self) -> bool:
        return next(iter(self._results.values())).until <= self._clock()

    async def call(self, name: str, arguments: Json, context: CallContext) -> Json:
        """Answer with one page of a stored result."""
        found = self._results.get((context.caller.name, str(arguments.get("id"))))
        if found is None or found.until <= self._clock():
            return text_result(
                "There is no result with this id any more. Call the tool again if you need it.",
                is_error=True,
            )
        return page_of(found, arguments.get("offset"))


def page_of(stored: Stored, offset: object) -> Json:
    """The part of a result that begins at `offset`, and where to go on."""
    whole = len(stored.text)
    start = max(0, int(offset)) if isinstance(offset, int | float) else 0
    if start >= whole:
        return text_result(
            f"This result has {whole} characters: there is nothing at offset {start}.",
            is_error=True,
        )
    end = max(boundary(stored.text, start + stored.page), start + 1)
    rest = f"go on with offset {end}" if end < whole else "this is the end"
    return text_result(
        f"{stored.text[start:end]}\n\n[characters {start} to {end} of {whole}; {rest}]"
    )


def boundary(text: str, at: int) -> int:
    """Where to cut a text at or a little before `at`: not inside what is read as one character."""
    if at >= len(text):
        return len(text)
    for place in range(at, max(at - MOST_JOINED, 0), -1):
        if not joined(text[place - 1], text[place]):
            return place
    return at


def joined(one: str, other: str) -> bool:
    """Whether two characters are read as one: an accent, a skin tone, a joiner, a line end."""
    return (
        JOINER in (one, other)
        or (one, other) == ("\r", "\n")
        or unicodedata.category(other) in ("Mn", "Mc", "Me", "Sk")
    )
