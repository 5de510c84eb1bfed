"""Chunks that are like the one before, but for their text: passed on without being taken apart.

Most chunks of a stream differ in nothing but a few characters. Once two texts have come in a row,
the bytes around the second one are a Mould: a payload that fits it is the same chunk with another
text, whatever fields it has, so it can be passed on by putting its text between the bytes that the
first one became. What does not fit (a call, a finish reason, usage, another `created`) is read as
ever. The text itself is always read, and so are all texts in which anything is unusual.

The arguments of a tool call come in such pieces too. They are not passed on from here, so the first
piece makes a mould: what fits it goes on with the same call.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import orjson

from mcp_bridge.exact import encode
from mcp_bridge.types import Json

TEXTS = frozenset({"content", "reasoning_content", "reasoning"})
ARGUMENTS = "arguments"
OF_CALLS = re.compile(rb'"(?:arguments|input)"\s*:')
PLAIN = frozenset({"index", "delta", "finish_reason"})
OF_A_CALL = frozenset({"index", "type", "function"})
LITERAL = rb'"(?:[^"\\]|\\.)*"'
PLACES = {
    field: (
        re.compile(rb'"%b"\s*:' % field.encode()),
        re.compile(rb'"%b"\s*:\s*(%b)' % (field.encode(), LITERAL)),
    )
    for field in (*TEXTS, ARGUMENTS)
}
"""How often a field is named in a payload, and where its text is."""

PLACE = "\0text\0"
"""Stands where the text belongs while the rest is encoded; no model writes it."""


class Mould:
    """What is around the text of a run of chunks, as they arrive and as they are passed on.

    `chunk` is the one that the run began with. Its receiver changes it (the head of the answer
    becomes its head) before it passes on the others. `before` ends with the quotation mark that
    the text begins with, and `after` begins with its other one.
    """

    __slots__ = ("after", "before", "begin", "between", "chunk", "end", "field", "frame")

    def __init__(self, chunk: Json, field: str, before: bytes, after: bytes) -> None:
        self.chunk = chunk
        self.field = field
        self.before = before
        self.after = after
        self.begin = b"data: " + before
        self.end = after + b"\n\n"
        self.between = self.end + self.begin
        self.frame: tuple[bytes, bytes, bytes] | None = None

    def run(self, literals: list[bytes]) -> "Run | None":
        """The chunks whose texts are these, as in JSON without the marks; None: one is no text."""
        try:
            # No text in JSON holds a line break: each literal is one of these texts, or none is.
            texts = orjson.loads(b'["' + b'",\n"'.join(literals) + b'"]')
        except orjson.JSONDecodeError:
            return None
        if len(texts) != len(literals) or "" in texts:
            return None
        return Run(self, literals, texts)

    def with_text(self, text: str) -> Json:
        """The chunk with this text."""
        [choice] = self.chunk["choices"]
        return {**self.chunk, "choices": [{**choice, "delta": {self.field: text}}]}

    def framed(self, begin: bytes, end: bytes) -> tuple[bytes, bytes, bytes]:
        """What stands before the first text, between two, and after the last when they go on."""
        before, _, after = encode(self.with_text(PLACE)).partition(encode(PLACE)[1:-1])
        first, last = begin + before, after + end
        return first, last + first, last


class Run:
    """Chunks in a row that are like another one, each with its own text (`literals`: as JSON)."""

    __slots__ = ("literals", "mould", "texts")

    def __init__(self, mould: Mould, literals: list[bytes], texts: list[str]) -> None:
        self.mould = mould
        self.literals = literals
        self.texts = texts

    def encoded(self, begin: bytes, end: bytes) -> bytes:
        """All of them as JSON, each between `begin` and `end`."""
        mould = self.mould
        if mould.frame is None:
            mould.frame = mould.framed(begin, end)
        first, between, last = mould.frame
        return b"".join((first, between.join(self.literals), last))

    def chunks(self) -> list[Json]:
        return [self.mould.with_text(text) for text in self.texts]


def each_of(chunks: Iterable[Json | Run]) -> Iterator[Json]:
    """Chunks one by one, as objects."""
    for chunk in chunks:
        if isinstance(chunk, Run):
            yield from chunk.chunks()
        else:
            yield chunk


class Splicer:
    """Finds such chunks in a stream."""

    def __init__(self) -> None:
        self._mould: Mould | None = None
        self._field: str | None = None

    def whole(self, piece: bytes) -> Run | None:
        """A piece of a stream that is nothing but events like the one before; None: it is not."""
        mould = self._mould
        if mould is None or not (piece.startswith(mould.begin) and piece.endswith(mould.end)):
            return None
        inside = piece[len(mould.begin) : -len(mould.end)]
        if inside.find(b"\n") < 0:
            return mould.run([inside])
        # To look for so many bytes between the texts takes longer than to put all together again.
        skipped, left = len(mould.begin), -len(mould.after)
        literals = [line[skipped:left] for line in piece.split(b"\n")[:-1:2]]
        return mould.run(literals) if mould.between.join(literals) == inside else None

    def run(self, payloads: Sequence[bytes], start: int) -> Run | None:
        """The payloads from `start` on that are like the one before; None: it must be read."""
        mould = self._mould
        if mould is None:
            return None
        before, after = mould.before, mould.after
        literals: list[bytes] = []
        for payload in islice(payloads, start, None):
            if not (payload.startswith(before) and payload.endswith(after)):
                break
            literals.append(payload[len(before) : -len(after)])
        return mould.run(literals) or mould.run(literals[:1])

    def learn(self, payload: bytes, chunk: Json) -> None:
        """A chunk was read and will be shown: the second text in a row makes a mould.

        The first may be given a role, or be parted from what was said before.
        """
        field, before = plain_text(chunk), self._field
        self._field, self._mould = field, None
        if field is not None and field == before:
            self._mould = mould_of(payload, chunk, field)

    def learn_call(self, payload: bytes, chunk: Json) -> None:
        """A chunk of which nothing is shown was read: more of a call's arguments make a mould."""
        self.forget()
        if is_more_of_a_call(chunk):
            self._mould = mould_of(payload, chunk, ARGUMENTS)

    def forget(self) -> None:
        self._field = self._mould = None


def plain_text(chunk: Json) -> str | None:
    """The field of a chunk that holds one text and nothing else that grows or ends."""
    said = only(chunk)
    return said[0] if said and said[0] in TEXTS and isinstance(said[1], str) else None


def is_more_of_a_call(chunk: Json) -> bool:
    """Whether a chunk holds more arguments of a call that has begun, and nothing else."""
    said = only(chunk)
    if said is None or said[0] != "tool_calls":
        return False
    calls = said[1]
    if not isinstance(calls, list) or len(calls) != 1 or not isinstance(calls[0], dict):
        return False
    call = calls[0]
    function = call.get("function")
    if not isinstance(function, dict) or len(function) != 1 or ARGUMENTS not in function:
        return False
    return isinstance(call.get("index"), int) and call.keys() <= OF_A_CALL


def only(chunk: Json) -> tuple[str, Any] | None:
    """What the only choice of a chunk says, if that is one thing and ends nothing."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    delta = choice.get("delta")
    if not isinstance(delta, dict) or len(delta) != 1:
        return None
    if choice.get("index") or choice.get("finish_reason"):
        return None
    if not choice.keys() <= PLAIN and any(choice[key] for key in choice.keys() - PLAIN):
        return None
    return next(iter(delta.items()))


def mould_of(payload: bytes, chunk: Json, field: str) -> Mould | None:
    """The bytes around the text, if there is no doubt where it stands."""
    if b"\n" in payload:
        return None  # it came in several lines
    if field in TEXTS and OF_CALLS.search(payload):
        return None  # a call goes on beside the text; what is shown of the chunk does not tell
    names, place_of = PLACES[field]
    place = place_of.search(payload)
    if place is None or len(names.findall(payload)) != 1:
        return None
    return Mould(chunk, field, payload[: place.start(1) + 1], payload[place.end(1) - 1 :])
