"""From what an engine sends to one Answer: a stream's chunks, or a whole completion.

Both go through the same folding, so that an answer is the same however it was asked for. The
first choice is taken apart (its calls, its finish reason); chunks of others (n > 1) are passed on
as they are and only put together for `Answer.more_choices`. Chunks without choices are never
shown, for some clients die of them: their fields go into the envelope. No I/O and no clock here.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from mcp_bridge.inference.answer import Answer, ModelCall, Part
from mcp_bridge.inference.calls import Calls, mint_id
from mcp_bridge.inference.failures import broken, in_band
from mcp_bridge.inference.splice import ARGUMENTS, Run, Splicer
from mcp_bridge.types import Json

FINISH_REASONS = {
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "malformed_function_call": "stop",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
}
CALL_FIELDS = frozenset({"tool_calls", "function_call"})
CHOICE_FIELDS = frozenset({"index", "delta", "message", "finish_reason", "usage"})
FIRST_WINS = frozenset({"id", "created", "model"})
NOT_ENVELOPE = frozenset({"choices", "usage", "object", "error"})
USUAL = FIRST_WINS | NOT_ENVELOPE


def finish_reason(value: Any) -> str | None:
    """What a server said, in OpenAI's words; what OpenAI has no word for, in lower case."""
    if not isinstance(value, str) or not value:
        return None
    return FINISH_REASONS.get(value.lower(), value.lower())


class Fold:
    """One answer that is arriving. `server` names its sender in errors.

    `shown` names the tools whose calls are given out as they come; None: all are.
    """

    def __init__(
        self,
        server: str = "",
        *,
        mint: Callable[[], str] = mint_id,
        shown: Collection[str] | None = None,
    ) -> None:
        self._server = server
        self._first = _Choice(mint, shown)
        self._others: dict[int, _Choice] = {}
        self._mint = mint
        self._envelope: Json = {}
        self._usage: Json | None = None
        self._chunks: list[Json | Run] = []
        self._splicer = Splicer()
        self._done = False
        self.empty = True
        """Nothing has arrived yet that belongs to an answer."""

    def add(self, chunk: Json) -> None:
        """Take in one chunk of a stream; it becomes ours to change.

        Raises:
            InferenceError: it is an error (L16).
        """
        self._check(chunk)
        self._keep_envelope(chunk)
        choices = chunk.get("choices")
        if not choices or not isinstance(choices, list):
            return
        self.empty = False
        for choice in choices:
            if isinstance(choice, dict):
                self._add_choice(chunk, choice, alone=len(choices) == 1)

    def add_like_before(self, payloads: Sequence[bytes], start: int) -> int:
        """Take in chunks unread that are like the one before but for their text.

        Returns how many of the payloads from `start` on that were.
        """
        run = self._splicer.run(payloads, start)
        if run is None:
            return 0
        self._go_on(run)
        return len(run.texts)

    def goes_on(self, piece: bytes) -> bool:
        """Take in a piece of a stream unread if all of its events are like the one before."""
        run = self._splicer.whole(piece)
        if run is None:
            return False
        self._go_on(run)
        return True

    def _go_on(self, run: Run) -> None:
        if run.mould.field == ARGUMENTS:
            for text in run.texts:
                self._first.calls.go_on(text)
        else:
            self._first.hear(run.mould.field, run.texts)
            self._chunks.append(run)

    def learn(self, payload: bytes, chunk: Json) -> None:
        """Note what a chunk that was added looked like, for those that follow."""
        if self._first.reason is not None:
            self._splicer.forget()
        elif self._chunks and self._chunks[-1] is chunk:
            self._splicer.learn(payload, chunk)
        else:
            self._splicer.learn_call(payload, chunk)

    def done(self) -> None:
        """The stream said `[DONE]`."""
        self._done = True

    @property
    def calls_tools(self) -> bool:
        """Whether there is a call already, given out or not."""
        return bool(self._first.calls)

    @property
    def is_done(self) -> bool:
        """Nothing more is to come."""
        return self._done

    @property
    def is_complete(self) -> bool:
        """The model has said all; only extras (usage, `[DONE]`) can be missing."""
        choices = (self._first, *self._others.values())
        return self._done or all(choice.reason is not None for choice in choices)

    def close(self) -> None:
        """Nothing more will come: give out the calls that waited for arguments."""
        self._first.calls.close()

    def take(self) -> Part | None:
        """What can be shown since the last time, or None."""
        fragments = self._first.calls.take()
        if not fragments and not self._chunks:
            return None
        part = Part(tuple(self._chunks), fragments)
        self._chunks.clear()
        return part

    def answer(self) -> Answer:
        """The whole answer; call `close` first.

        Raises:
            InferenceError: nothing came that could be an answer, or it broke off.
        """
        return self._answer(
            tuple(choice.whole(index) for index, choice in sorted(self._others.items()))
        )

    def _answer(self, more_choices: tuple[Json, ...]) -> Answer:
        first = self._first
        ended = self._done or first.reason is not None
        calls = first.calls.finished(cut=not ended or first.reason in ("length", "content_filter"))
        if first.reason == "error":
            raise broken(self._server, "ended its answer with an error")
        if first.reason is None:
            self._check_something_came(calls)
        return Answer(
            message=first.message(bool(calls)),
            calls=calls,
            finish_reason=first.reason,
            usage=self._last_usage(),
            envelope=self._envelope,
            choice=first.extra,
            more_choices=more_choices,
        )

    def whole(self, completion: Json) -> Answer:
        """The answer that a whole completion holds.

        Raises:
            InferenceError: it is an error, or holds no message.
        """
        self._check(completion)
        choices = completion.get("choices")
        answers = [*filter(_is_answer, choices)] if isinstance(choices, list) else []
        if not answers:
            raise broken(self._server, "answered without a message")
        self._keep_envelope(completion)
        more = []
        for choice in answers:
            self._check(choice)
            # Choices that share an index are one, cut in two (L21).
            if _index(choice) == 0:
                self._keep_usage(choice)
                self._first.add(choice, _said(choice) or {}, whole=True)
            else:
                more.append(choice)
        self.close()
        self._done = True
        return self._answer(tuple(more))

    def _add_choice(self, chunk: Json, choice: Json, *, alone: bool) -> None:
        self._check(choice)
        self._keep_usage(choice)
        said = _said(choice) or {}
        if (index := _index(choice)) != 0:
            self._others.setdefault(index, _Choice(self._mint)).add(choice, said)
            self._chunks.append(chunk if alone else {**chunk, "choices": [choice]})
            return
        shown = self._first.add(choice, said)
        if shown or _has_extra(choice):
            choice["delta"] = shown
            choice["finish_reason"] = None
            choice.pop("message", None)
            self._chunks.append(chunk if alone else {**chunk, "choices": [choice]})

    def _check(self, said: Json) -> None:
        if (error := in_band(self._server, said)) is not None:
            raise error

    def _keep_envelope(self, chunk: Json) -> None:
        if "usage" in chunk:
            self._keep_usage(chunk)
        envelope = self._envelope
        if chunk.keys() <= USUAL and all(map(envelope.get, FIRST_WINS)):
            return  # it says of itself what was said before, as nearly all chunks do
        for key, value in chunk.items():
            if key in NOT_ENVELOPE:
                continue
            if key in FIRST_WINS:
                envelope[key] = envelope.get(key) or value
            elif value is not None or key not in envelope:
                envelope[key] = value

    def _keep_usage(self, holder: Json) -> None:
        usage = holder.pop("usage", None)
        if isinstance(usage, dict) and usage:
            self._usage = usage

    def _last_usage(self) -> Json | None:
        if self._usage is None and isinstance(groq := self._envelope.get("x_groq"), dict):
            usage = groq.get("usage")
            return usage if isinstance(usage, dict) else None
        return self._usage

    def _check_something_came(self, calls: tuple[ModelCall, ...]) -> None:
        """Without a finish reason it is an answer only if it says something (L16)."""
        if self._first.says_something or any(call.complete for call in calls):
            return
        what = "sent an empty stream" if self.empty else "broke off before it said anything"
        raise broken(self._server, what, code="inference_server_empty_answer")


class _Choice:
    """One choice that is arriving."""

    def __init__(self, mint: Callable[[], str], shown: Collection[str] | None = None) -> None:
        self.calls = Calls(mint, shown)
        self.reason: str | None = None
        self.extra: Json = {}
        self._content: list[str] = []
        self._texts: dict[str, list[str]] = {}
        """Other strings that grow, such as `reasoning_content`."""
        self._rest: Json = {}

    @property
    def text(self) -> str:
        return "".join(self._content)

    @property
    def says_something(self) -> bool:
        return bool(self._content or any(self._texts.get("refusal", ())))

    def hear(self, field: str, texts: list[str]) -> None:
        """Take in texts that are passed on as they came."""
        (self._content if field == "content" else self._texts.setdefault(field, [])).extend(texts)

    def add(self, choice: Json, said: Json, *, whole: bool = False) -> Json:
        """Take in what a choice says; returns what there is to show of it."""
        shown: Json = {}
        for key, value in said.items():
            if key == "content" and isinstance(value, str):
                if value:
                    self._content.append(value)
                    shown[key] = value
            elif key == "role":
                continue  # always "assistant", whatever a gateway calls it
            elif key in CALL_FIELDS:
                self._add_calls(key, value, whole=whole)
            elif key == "content":
                self._add_parts(value, shown)
            else:
                self._add_field(key, value, shown)
        self.reason = finish_reason(choice.get("finish_reason")) or self.reason
        if not choice.keys() <= CHOICE_FIELDS:
            for key, value in choice.items():
                if key not in CHOICE_FIELDS:
                    self.extra[key] = _merged(self.extra.get(key), value)
        return shown

    def message(self, has_calls: bool) -> Json:
        """The assistant's message without its calls."""
        rest = {**self._rest, **{key: "".join(texts) for key, texts in self._texts.items()}}
        text: str | None = self.text
        if not text and (has_calls or rest.get("refusal")):
            text = None
        return {"role": "assistant", "content": text, **rest}

    def whole(self, index: int) -> Json:
        """As a choice of a whole completion."""
        self.calls.close()
        calls = self.calls.finished(cut=self.reason is None)
        message = self.message(bool(calls))
        if calls:
            message["tool_calls"] = [_call_item(call) for call in calls]
        return {
            "index": index,
            "message": message,
            "finish_reason": self.reason,
            **self.extra,
        }

    def _add_calls(self, key: str, value: Any, *, whole: bool) -> None:
        if key == "function_call":
            self.calls.add_legacy(value)
        elif whole:
            self.calls.add_whole(value)
        else:
            self.calls.add(value)

    def _add_field(self, key: str, value: Any, shown: Json) -> None:
        if isinstance(value, str):
            self._texts.setdefault(key, []).append(value)
        elif value is not None or not (key in self._rest or key in self._texts):
            self._rest[key] = _merged(self._rest.get(key), value)
        if value:
            shown[key] = value

    def _add_parts(self, value: Any, shown: Json) -> None:
        """Content as a list of parts, as Mistral's thinking models send it."""
        for part in value if isinstance(value, list) else ():
            match part:
                case str() if part:
                    self._show(shown, "content", part)
                case dict() if part.get("type") in ("thinking", "reasoning"):
                    self._show(shown, "reasoning_content", _part_text(part))
                case {"type": "image_url"}:
                    self._add_field("images", [part], shown)
                case dict() if text := _part_text(part):
                    self._show(shown, "content", text)
                case dict():
                    self._add_field("content_parts", [part], shown)

    def _show(self, shown: Json, key: str, text: str) -> None:
        if text:
            into = self._content if key == "content" else self._texts.setdefault(key, [])
            into.append(text)
            shown[key] = shown.get(key, "") + text


def _said(choice: Any) -> Json | None:
    """What a choice says: in a stream its delta, in a whole answer its message, or the reverse."""
    if not isinstance(choice, dict):
        return None
    said = choice.get("delta") or choice.get("message")
    return said if isinstance(said, dict) else None


def _is_answer(choice: Any) -> bool:
    """Whether a whole choice answers: with a message, or with why there is none (Gemini)."""
    return bool(_said(choice)) or (
        isinstance(choice, dict) and finish_reason(choice.get("finish_reason")) is not None
    )


def _index(choice: Json) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _has_extra(choice: Json) -> bool:
    if choice.keys() <= CHOICE_FIELDS:
        return False
    return any(value for key, value in choice.items() if key not in CHOICE_FIELDS)


def _part_text(part: Json) -> str:
    """The text inside a part of content, however deep Mistral put it."""
    for key in ("text", "thinking", "reasoning", "content"):
        match part.get(key):
            case str(text):
                return text
            case list(parts):
                return "".join(_part_text(item) for item in parts if isinstance(item, dict))
    return ""


GROWING = frozenset({"text", "summary", "data", "thinking", "transcript"})
"""Strings inside objects that arrive in pieces: `reasoning_details`, `audio`."""


def _merged(old: Any, new: Any) -> Any:
    """Lists grow (by `index`, where items have one), objects merge, else the last one holds."""
    match old, new:
        case _, None:
            return old
        case list(), list():
            return _merged_lists(old, new)
        case dict(), dict():
            return {**old, **{key: _grown(key, old.get(key), new[key]) for key in new}}
        case _:
            return new


def _grown(key: str, old: Any, new: Any) -> Any:
    if key in GROWING and isinstance(old, str) and isinstance(new, str):
        return old + new
    return _merged(old, new)


def _merged_lists(old: list[Any], new: list[Any]) -> list[Any]:
    merged = list(old)
    for item in new:
        at = _same_place(merged, item)
        if at is None:
            merged.append(item)
        else:
            merged[at] = _merged(merged[at], item)
    return merged


def _same_place(items: list[Any], item: Any) -> int | None:
    """Where OpenRouter's `reasoning_details` go on: the item with the same index and type."""
    if not isinstance(item, dict) or not isinstance(item.get("index"), int):
        return None
    for at, old in enumerate(items):
        if isinstance(old, dict) and old.get("index") == item["index"]:
            if item.get("type") in (None, old.get("type")):
                return at
    return None


def _call_item(call: ModelCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function, **call.extra}
