"""What a stateless client cannot send back: hidden rounds, kept for a while.

When a turn ends with calls for the client, the rounds we ran before it, and our half of a mixed
turn, are not in the client's history. They are kept, and put back when the follow-up request
arrives (DESIGN 3.3). With `tools.restore_history` the same is done for turns that ended in text
(L14).

Theory of operation. A turn is known by the caller, by what came before it, and by what was handed
out. What came before is told by the users' words and the ids of earlier calls, for clients rewrite
the rest: null becomes "", a string a list of parts, fields come and go. What was handed out is
told by its calls: first with their arguments, for engines reuse ids (in the next turn, and when an
answer is made again); and if that finds nothing by the ids alone, for clients write arguments anew.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import orjson

from mcp_bridge.exact import encode, loads, text_of
from mcp_bridge.types import Caller, Json, frozen

MOST_BYTES = 128 * 1024 * 1024
OVERHEAD = 1000
"""What keeping a turn costs beside its text."""

WORTH_TELLING = 0.9
"""A turn that is used is told again when less than this part of its time is left elsewhere."""

Key = tuple[str, str, str]
"""Caller, what came before, what was handed out."""


@frozen
class HiddenTurn:
    """What stands around an assistant message that the client knows only in part.

    `before` are the hidden messages in front of it; `assistant` is it with all its calls (None:
    as the client has it); `answers` are our tool messages for it, and `after` what follows them.
    """

    before: tuple[Json, ...]
    assistant: Json | None = None
    answers: tuple[Json, ...] = ()
    after: tuple[Json, ...] = ()

    @property
    def size(self) -> int:
        return OVERHEAD + len(text_of([self.before, self.assistant, self.answers, self.after]))


@frozen
class Kept:
    """A turn in memory: until when, how large, and the key that leaves out its arguments."""

    turn: HiddenTurn
    until: float
    size: int
    loose: Key


@frozen
class TurnCopy:
    """A turn as another process may keep it, and for how many seconds."""

    key: Key
    loose: Key
    turn: HiddenTurn
    seconds: float


class TurnMemory:
    """Hidden turns in this process, each for `ttl` seconds after it was used last.

    Where others serve beside it, `tell` is given a copy of what is kept for them to `put`.
    """

    def __init__(
        self,
        ttl: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        most_bytes: int = MOST_BYTES,
        tell: Callable[[TurnCopy], None] | None = None,
    ) -> None:
        self._ttl = ttl
        self._clock = clock
        self._most_bytes = most_bytes
        self._tell = tell
        self._turns: OrderedDict[Key, Kept] = OrderedDict()  # the one used longest ago first
        self._latest: dict[Key, Key] = {}  # from a loose key to the newest exact one
        self._size = 0

    def keep(
        self, caller: Caller, conversation: Sequence[Json], said: Json, turn: HiddenTurn
    ) -> None:
        """Keep `turn` for when `said` (the assistant message handed out) comes back."""
        self._forget_old()
        before = UserDigest()
        for message in conversation:
            before.hear(message)
        key = (caller.name, before.value(), exact_signature(said))
        loose = (caller.name, before.value(), signature(said))
        copy = TurnCopy(key, loose, turn, self._ttl)
        self.put(copy)
        if self._tell is not None:
            self._tell(copy)

    def put(self, copy: TurnCopy) -> None:
        """Keep a turn under the keys that it has."""
        self._forget(copy.key)
        kept = Kept(copy.turn, self._clock() + copy.seconds, copy.turn.size, copy.loose)
        self._turns[copy.key] = kept
        self._latest[copy.loose] = copy.key
        self._size += kept.size
        while self._size > self._most_bytes:
            self._forget(next(iter(self._turns)))

    def copies(self) -> Iterator[TurnCopy]:
        """All that is kept now."""
        now = self._clock()
        for key, kept in self._turns.items():
            yield TurnCopy(key, kept.loose, kept.turn, kept.until - now)

    def restore(self, caller: Caller, messages: Sequence[Json]) -> list[Json]:
        """The conversation with every hidden turn that we know put back into it."""
        self._forget_old()
        if not self._turns:
            return list(messages)
        before = UserDigest()
        restored: list[Json] = []
        open_turn: OpenTurn | None = None
        for message in messages:
            if open_turn is not None:
                if message.get("role") == "tool":
                    open_turn.answers.append(message)
                    continue
                restored += open_turn.closed()
            turn = self._find(caller, before, message)
            open_turn = OpenTurn(turn, message) if turn is not None else None
            if open_turn is None:
                restored.append(message)
            before.hear(message)
        return restored if open_turn is None else restored + open_turn.closed()

    def _find(self, caller: Caller, before: "UserDigest", said: Json) -> HiddenTurn | None:
        if said.get("role") != "assistant":
            return None
        key: Key | None = (caller.name, before.value(), exact_signature(said))
        if key not in self._turns:
            key = self._latest.get((caller.name, before.value(), signature(said)))
        if key is None:
            return None
        kept, now = self._turns.pop(key), self._clock()
        self._turns[key] = replace(kept, until=now + self._ttl)
        if self._tell is not None and kept.until - now < WORTH_TELLING * self._ttl:
            self._tell(TurnCopy(key, kept.loose, kept.turn, self._ttl))
        return kept.turn

    def _forget_old(self) -> None:
        now = self._clock()
        while self._turns:
            key, kept = next(iter(self._turns.items()))
            if kept.until > now:
                return
            self._forget(key)

    def _forget(self, key: Key) -> None:
        kept = self._turns.pop(key, None)
        if kept is None:
            return
        self._size -= kept.size
        if self._latest.get(kept.loose) == key:
            del self._latest[kept.loose]


class OpenTurn:
    """A turn that is being put back: its tool messages are still coming in."""

    def __init__(self, turn: HiddenTurn, said: Json) -> None:
        self._turn = turn
        self._assistant = turn.assistant or said
        self.answers: list[Json] = list(turn.answers)

    def closed(self) -> list[Json]:
        """All its messages, the answers in the order of the calls."""
        order = {call.get("id"): n for n, call in enumerate(calls_of(self._assistant))}
        self.answers.sort(key=lambda m: order.get(m.get("tool_call_id"), len(order)))
        return [*self._turn.before, self._assistant, *self.answers, *self._turn.after]


class UserDigest:
    """A running digest of what came before: the users' words, and the ids of earlier calls."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def hear(self, message: Json) -> None:
        if message.get("role") == "user":
            self._hash.update(b"user\0" + words_of(message.get("content")))
        elif calls_of(message):
            self._hash.update(signature(message).encode())

    def value(self) -> str:
        return self._hash.hexdigest()


def signature(said: Json) -> str:
    """What an assistant message is known by: the ids of its calls, or its text."""
    if calls := calls_of(said):
        return digest(sorted(str(call.get("id")) for call in calls))
    return hashlib.sha256(words_of(said.get("content"))).hexdigest()


def exact_signature(said: Json) -> str:
    """The same, with the names and arguments of its calls."""
    if calls := calls_of(said):
        return digest(sorted([str(call.get("id")), *function_of(call)] for call in calls))
    return signature(said)


def calls_of(message: Json) -> list[Json]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def function_of(call: Json) -> tuple[str, str]:
    """Name and arguments, however the client wrote them down again."""
    function = call.get("function")
    if not isinstance(function, dict):
        return "", text_of(call)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments.encode("utf-8", "replace"))
        except ValueError:
            pass
    return str(function.get("name")), canonical(arguments).decode()


def words_of(content: object) -> bytes:
    """What a message says, whether as a string, as parts, or as nothing."""
    if content is None:
        return b"\0"
    if isinstance(content, str):
        return content.strip().encode("utf-8", "replace") + b"\0"
    parts = content if isinstance(content, list) else [content]
    texts = [part_words(part) for part in parts]
    return b"".join(texts).strip() + b"\0"


def part_words(part: object) -> bytes:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"]).encode("utf-8", "replace")
    return canonical(part)


def digest(value: object) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def canonical(value: object) -> bytes:
    """JSON in which the order of keys means nothing."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # huge numbers
        return encode(value)
