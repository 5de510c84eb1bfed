"""Folding a stream or a whole answer as the reader of answers does, without a network."""

from collections.abc import Iterable, Iterator
from itertools import count, pairwise
from typing import Any

from mcp_bridge.exact import decode
from mcp_bridge.inference.answer import Answer, Part
from mcp_bridge.inference.fold import Fold
from mcp_bridge.inference.sse import SseReader
from mcp_bridge.types import Json


def new_fold() -> Fold:
    """A fold that numbers the ids it makes up."""
    numbers = count()
    return Fold("it", mint=lambda: f"minted-{next(numbers)}")


def stream_parts(pieces: Iterable[bytes]) -> Iterator[Part | Answer]:
    """The parts of a stream that arrives in these pieces, and the answer."""
    fold, reader = new_fold(), SseReader()
    for piece in pieces:
        for payload in reader.feed(piece):
            add(fold, payload)
        if part := fold.take():
            yield part
    for payload in reader.close():
        add(fold, payload)
    fold.close()
    if part := fold.take():
        yield part
    yield fold.answer()


def add(fold: Fold, payload: bytes) -> None:
    if payload == b"[DONE]":
        fold.done()
    else:
        fold.add(decode(payload))


def streamed(pieces: Iterable[bytes]) -> Answer:
    *_, answer = stream_parts(pieces)
    assert isinstance(answer, Answer)
    return answer


def whole(completion: Json) -> Answer:
    return new_fold().whole(completion)


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """A stream in pieces that end at these places."""
    inside = sorted(place for place in set(places) if 0 < place < len(stream))
    return [stream[begin:end] for begin, end in pairwise([0, *inside, len(stream)])]


def said(message: Json) -> Json:
    """A message without the fields that say nothing, which engines add in one shape only."""
    return {
        key: value
        for key, value in message.items()
        if value not in (None, "", []) or key in ("role", "content")
    }


def shown(parts: Iterable[Any], key: str = "content") -> str:
    """The text that the parts show in one field."""
    chunks = [chunk for part in parts if isinstance(part, Part) for chunk in part.read()]
    return "".join(choice["delta"].get(key, "") for c in chunks for choice in c["choices"])
