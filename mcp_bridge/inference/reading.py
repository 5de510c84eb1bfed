"""From the bytes of an answer to its parts and the whole: events or one JSON document.

What was asked for does not matter here, for engines answer a streamed question with a whole
document and the other way round, under any content type. The first characters tell which it is.
"""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any, Literal

from mcp_bridge.errors import InferenceError
from mcp_bridge.exact import decode
from mcp_bridge.inference.answer import Answer, Fragment, Opened, Part
from mcp_bridge.inference.failures import broken, excerpt, relayed
from mcp_bridge.inference.fold import Fold
from mcp_bridge.inference.sse import SseReader
from mcp_bridge.inference.transport import Reply
from mcp_bridge.sse import BOM
from mcp_bridge.types import Json

DONE = b"[DONE]"
EVENT_LINES = (b"data", b"event", b"id", b"retry", b":")
LONGEST_START = max(map(len, EVENT_LINES))
NAMED = ("id", "created", "model")
SILENT_SECONDS = 1.0
NOTHING = Part()
"""Something has come, and nothing of it is shown."""
MOST_OF_A_PAGE = 20_000
"""As much of an unreadable answer is kept as is worth looking at."""

Shape = Literal["json", "events", "other"]
Item = Opened | Part | Answer


async def read(
    reply: Reply, shown: Collection[str] | None = None, *, streamed: bool = True
) -> AsyncGenerator[Item]:
    """What gives Opened, the parts of an answer as they come (if `streamed`), and then all of it.

    After Opened a part comes at once. `shown` names the tools whose calls are given out in parts
    (None: all); while others are called an empty part comes now and then, so that whoever counts
    the time can see it pass. A whole document gives one part. The reply is closed with what is
    returned, which is to be begun at once.

    Raises:
        InferenceError: here or later: it is an error, it is nothing that could be an answer, or it
            broke off.
    """
    fold = Fold(reply.server, shown=shown)
    try:
        head = await _head(reply)
        match shape_of(head):
            case "events":
                return _events(head, reply, fold, streamed=streamed)
            case "json":
                document = _document(reply.server, head + await _rest(reply))
                return _whole(document, reply, fold, streamed=streamed)
            case "other":
                raise _unreadable(reply.server, head + await _rest(reply, MOST_OF_A_PAGE))
    except BaseException:
        await reply.aclose()
        raise


async def _whole(
    document: Json, reply: Reply, fold: Fold, *, streamed: bool
) -> AsyncGenerator[Item]:
    try:
        answer = fold.whole(document)
        yield Opened(relayed(reply.headers))
        if streamed:
            calls = fold.take()
            yield as_part(answer, calls.fragments if calls else ())
        yield answer
    finally:
        await reply.aclose()


async def _events(head: bytes, reply: Reply, fold: Fold, *, streamed: bool) -> AsyncGenerator[Item]:
    events, piece, opened = Events(reply.server, fold), head, False
    try:
        while True:
            part = events.hear(piece)
            # While nothing was shown, an error can still have its status.
            if part is not None and (opened or events.failure is None):
                if not opened:
                    opened = True
                    yield Opened(relayed(reply.headers))
                if streamed:
                    yield part
            if events.failure is not None:
                raise events.failure
            if fold.is_done:
                await reply.drain()
                break
            try:
                piece = await reply.__anext__()
            except StopAsyncIteration:
                break
            except InferenceError:
                if not fold.is_complete:  # else a break does no harm
                    raise
                break
        part, answer = events.end(), fold.answer()
        if not opened:
            yield Opened(relayed(reply.headers))
        if streamed and part is not None:
            yield part
        yield answer
    finally:
        await reply.aclose()


class Events:
    """The events of a stream on their way into a fold. `failure` is what breaks the answer off."""

    def __init__(self, server: str, fold: Fold) -> None:
        self._server = server
        self._fold = fold
        self._reader = SseReader()
        self._is_between_events = False
        self._silent_until = -math.inf
        self.failure: InferenceError | None = None

    def hear(self, piece: bytes) -> Part | None:
        """What there is to show when this piece has come."""
        fold = self._fold
        if not (self._is_between_events and fold.goes_on(piece)):
            self.failure = _fold(self._reader.feed(piece), fold, self._server)
            self._is_between_events = self._reader.is_between_events
        part = fold.take()
        if part is None and fold.calls_tools and time.monotonic() > self._silent_until:
            self._silent_until = time.monotonic() + SILENT_SECONDS
            return NOTHING
        return part

    def end(self) -> Part | None:
        """What is left to show when no more will come.

        Raises:
            InferenceError: the rest breaks the answer off.
        """
        if not self._fold.is_done:
            failure = _fold(self._reader.close(), self._fold, self._server)
            if failure is not None:
                raise failure
        self._fold.close()
        return self._fold.take()


def _fold(payloads: list[bytes], fold: Fold, server: str) -> InferenceError | None:
    """Take events in; returns what broke the answer off, with all that came before it folded."""
    at = 0
    while at < len(payloads):
        if taken := fold.add_like_before(payloads, at):
            at += taken
            continue
        payload = payloads[at]
        at += 1
        if payload.strip() == DONE:
            fold.done()
            return None
        try:
            chunk = decode(payload)
        except ValueError:
            # Others than JSON are no chunks (`data: ping`); what comes after the end may be cut.
            if payload.lstrip().startswith((b"{", b"[")) and not fold.is_complete:
                return broken(server, f"sent a chunk that is not JSON: {excerpt(payload)}")
            continue
        if isinstance(chunk := _unwrapped(chunk), dict):
            try:
                fold.add(chunk)
            except InferenceError as exc:
                return exc
            fold.learn(payload, chunk)
    return None


async def _head(pieces: AsyncIterator[bytes]) -> bytes:
    """The beginning, as much as tells the shape."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(_start(head)) >= LONGEST_START:
            break
    return head


async def _rest(pieces: AsyncIterator[bytes], most: int | None = None) -> bytes:
    rest: list[bytes] = []
    size = 0
    async for piece in pieces:
        rest.append(piece)
        size += len(piece)
        if most is not None and size > most:
            break
    return b"".join(rest)


def _start(head: bytes) -> bytes:
    # OpenRouter sends white space while it waits for a whole answer.
    return head.removeprefix(BOM).lstrip()


def shape_of(head: bytes) -> Shape:
    """What an answer is that begins so. Nothing at all is a stream without events."""
    start = _start(head)
    if start.startswith((b"{", b"[")):
        return "json"
    return "events" if not start or start.startswith(EVENT_LINES) else "other"


def _document(server: str, body: bytes) -> Json:
    try:
        value = decode(body.removeprefix(BOM))
    except ValueError as exc:
        raise broken(server, f"answered with broken JSON: {excerpt(body)}") from exc
    if not isinstance(value := _unwrapped(value), dict):
        raise broken(server, f"answered with JSON that is no completion: {excerpt(body)}")
    return value


def _unwrapped(value: Any) -> Any:
    """Gemini puts an error into a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _unreadable(server: str, body: bytes) -> InferenceError:
    return broken(server, f"answered with neither JSON nor events: {excerpt(body)}")


def as_part(answer: Answer, fragments: tuple[Fragment, ...]) -> Part:
    """A whole answer as the one part of a stream."""
    head: Json = {"object": "chat.completion.chunk"}
    head |= {key: answer.envelope[key] for key in NAMED if key in answer.envelope}
    said = {key: value for key, value in answer.message.items() if key != "role" and value}
    choices: list[Json] = []
    if said or answer.choice:
        choices.append({"index": 0, "delta": said, **answer.choice, "finish_reason": None})
    choices += [_as_delta(choice) for choice in answer.more_choices]
    chunks = tuple({**head, "choices": [choice]} for choice in choices)
    return Part(chunks, fragments)


def _as_delta(choice: Json) -> Json:
    """A choice beyond the first as it would be streamed: its calls are numbered."""
    rest = {key: value for key, value in choice.items() if key != "message"}
    message = dict(choice.get("message") or {})
    if isinstance(calls := message.get("tool_calls"), list):
        message["tool_calls"] = [{"index": n, **call} for n, call in enumerate(calls)]
    return {**rest, "delta": message}
