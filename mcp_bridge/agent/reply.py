"""The one message that a caller gets, made of as many rounds as it takes (L1).

A Reply owns what must be one: id, created, model, the role, the finish reason, the usage. Rounds
in which our tools ran leave no trace but their text. The same Reply makes the chunks of a stream
and the whole completion, so both say the same.
"""

import time
import uuid
from typing import Any

from mcp_bridge.agent.conversation import call_item, rest_of
from mcp_bridge.inference import fold
from mcp_bridge.inference.answer import Answer, Fragment, ModelCall, Part
from mcp_bridge.inference.splice import Run
from mcp_bridge.types import Json

JOIN = "\n\n"
TEXTS = ("content", "reasoning_content", "reasoning")
OURS = frozenset({"id", "object", "created", "model", "choices", "usage", "error"})
CHOICE = frozenset({"index", "delta", "finish_reason"})
JSON_CALL, TEXT_CALL = ("function", "arguments"), ("custom", "input")
"""What a kind of call is called, and where it has what the model wrote."""


class Reply:
    """Collects rounds; `handed` says by name whether a call belongs to the client.

    `custom` are those of the client's tools that take free text instead of JSON. `watched`: it is
    streamed; else nobody sees what a round's end adds.
    """

    def __init__(
        self,
        model: str,
        handed: frozenset[str],
        custom: frozenset[str] = frozenset(),
        *,
        watched: bool = True,
    ) -> None:
        self._handed = handed
        self._custom = custom
        self._watched = watched
        self._head: Json = {
            "id": "",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._named = False
        self._roles: set[int] = set()  # choices whose role was given
        self._ended: set[int] = set()  # choices beyond the first that gave a finish reason
        self._tails: dict[str, str] = {}  # the last character that was said in a field
        self._streamed: set[str] = set()  # fields of this round's message that were streamed
        self._extras: set[str] = set()  # other fields of the choice that were streamed
        self._given: dict[str, int] = {}  # calls handed out: id -> index
        self._begun: set[str] = set()  # calls handed out with some of their arguments
        self.message: Json = {"role": "assistant", "content": None}
        self.calls: list[Json] = []
        self.usage: Json | None = None
        self._envelope: Json = {}
        self._choice: Json = {}
        self._more_choices: tuple[Json, ...] = ()

    # While a round streams

    def chunks(self, part: Part) -> tuple[Json | Run, ...]:
        """What of this part the caller sees, as finished chunks."""
        if not part.fragments and len(part.chunks) == 1 and isinstance(part.chunks[0], Run):
            return part.chunks  # as nearly always: more of a text that has begun
        shown: list[Json | Run] = [
            chunk if isinstance(chunk, Run) else self._models(chunk)
            for chunk in part.chunks
            if isinstance(chunk, Run) or not self._is_over(chunk)
        ]
        shown += [
            self._call_chunk(fragment)
            for fragment in part.fragments
            if fragment.name in self._handed
        ]
        return tuple(shown)

    def _is_over(self, chunk: Json) -> bool:
        """Whether it comes after the end of its choice, as some engines end a choice twice."""
        return all(index_of(choice) in self._ended for choice in chunk["choices"])

    def say(self, delta: Json) -> Json:
        """A chunk of our own with this delta."""
        return self.dress({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    def dress(self, chunk: Json) -> Json:
        """Make a chunk of our own (with `choices`) part of this answer."""
        for choice in chunk["choices"]:
            self._speak(choice["delta"], goes_on=frozenset())
        return self._headed(chunk)

    def _models(self, chunk: Json) -> Json:
        """Make a chunk of the model's part of this answer."""
        for choice in chunk["choices"]:
            if not isinstance(choice.get("delta"), dict):
                choice["delta"] = choice.pop("message", None) or {}
            delta = choice["delta"]
            if index_of(choice) == 0:
                self._speak(delta, goes_on=self._streamed)
                self._streamed.update(field for field, value in delta.items() if value)
                self._extras.update(choice.keys() - CHOICE)
            else:
                self._end(choice)
        return self._headed(chunk)

    def _speak(self, delta: Json, goes_on: set[str] | frozenset[str]) -> None:
        """Part a text from what was said before, unless its field goes on."""
        for field in TEXTS:
            text = delta.get(field)
            if isinstance(text, str) and text:
                if field not in goes_on:
                    delta[field] = text = parting(self._tails.get(field, "")) + text
                self._tails[field] = text[-1]

    def _end(self, choice: Json) -> None:
        """Note the end of a choice beyond the first, and say it in OpenAI's words."""
        choice["finish_reason"] = fold.finish_reason(choice.get("finish_reason"))
        if choice["finish_reason"]:
            self._ended.add(choice["index"])

    def _headed(self, chunk: Json) -> Json:
        if not self._named:
            self._name(chunk)
        chunk.update(self._head)
        for choice in chunk["choices"]:
            choice.setdefault("finish_reason", None)
            choice["delta"].pop("role", None)
            if (index := index_of(choice)) not in self._roles:
                self._roles.add(index)
                choice["delta"] = {"role": "assistant", **choice["delta"]}
        return chunk

    def _name(self, source: Json) -> None:
        """Take id, created and model from the first answer; later ones must not change them."""
        self._named = True
        for key, kind in (("id", str), ("created", int), ("model", str)):
            value = source.get(key)
            if isinstance(value, kind) and value:
                self._head[key] = value
        if not self._head["id"]:
            self._head["id"] = f"chatcmpl-{uuid.uuid4().hex}"

    def _call_chunk(self, fragment: Fragment) -> Json:
        kind, field = TEXT_CALL if fragment.name in self._custom else JSON_CALL
        piece: Json = {field: fragment.arguments}
        items: list[Json] = []
        if fragment.id in self._given:
            items.append({"index": self._given[fragment.id], kind: piece})
        else:
            items += self._without_arguments()
            index = self._given[fragment.id] = len(self._given)
            function = {"name": fragment.name, **piece}
            items.append({"index": index, "id": fragment.id, "type": kind, kind: function})
        if fragment.arguments.strip() or kind == "custom":
            self._begun.add(fragment.id)
        return self.say({"tool_calls": items})

    def _without_arguments(self) -> list[Json]:
        """What ends the last call if it has none: the openai package reads it at the next one."""
        last = next(reversed(self._given), None)
        if last is None or last in self._begun:
            return []
        self._begun.add(last)
        return [{"index": self._given[last], "function": {"arguments": "{}"}}]

    # When a round has ended

    def take(self, answer: Answer) -> tuple[Json, ...]:
        """Add a whole answer; returns chunks for what of it was not streamed."""
        if not self._named:
            self._name(answer.envelope)
        said = {field: value for field, value in answer.message.items() if field != "role"}
        chunks = self._not_streamed(said) if self._watched else ()
        for field, value in said.items():
            self.message[field] = joined(self.message.get(field), value, parted=field in TEXTS)
        for field in TEXTS:
            if text := said.get(field):
                self._tails[field] = text[-1]
        self._streamed.clear()
        self.usage = summed(self.usage, answer.usage)
        self._envelope.update({k: v for k, v in answer.envelope.items() if k not in OURS})
        self._choice = grown(self._choice, answer.choice)
        self._more_choices = answer.more_choices
        return chunks

    def _not_streamed(self, said: Json) -> tuple[Json, ...]:
        missing = {f: value for f, value in said.items() if value and f not in self._streamed}
        if not missing:
            return ()
        return (self._models({"choices": [{"index": 0, "delta": missing}]}),)

    def hand_out(self, calls: list[ModelCall]) -> tuple[Json, ...]:
        """Give the client its calls; returns chunks for what was not streamed already."""
        chunks: list[Json] = []
        for call in calls:
            empty = "" if call.name in self._custom else "{}"
            arguments = call.arguments if call.arguments.strip() else empty
            self.calls.append(call_item(call, arguments))
            if call.id not in self._given or (call.id not in self._begun and arguments):
                chunks.append(self._call_chunk(Fragment(0, call.id, call.name, arguments)))
            if extra := rest_of(call):
                at = self._given[call.id]
                chunks.append(self.say({"tool_calls": [{"index": at, **extra}]}))
        return tuple(chunks)

    def completion(self, finish_reason: str, extension: Json) -> Json:
        """The whole answer; `extension` holds fields of our own."""
        message = dict(self.message)
        if self.calls:
            message["tool_calls"] = self.calls
        elif message["content"] is None and not message.get("refusal"):
            message["content"] = ""
        choice = {
            "index": 0,
            "message": message,
            **self._choice,
            "finish_reason": finish_reason,
        }
        whole = {
            **self._head,
            "object": "chat.completion",
            "choices": [choice, *map(ended, self._more_choices)],
            **self._envelope,
            **extension,
        }
        if self.usage is not None:
            whole["usage"] = self.usage
        return whole

    def last_chunks(self, finish_reason: str, extension: Json, *, usage: bool) -> tuple[Json, ...]:
        """How a stream ends: the finish reason with all that was not said yet, then the usage."""
        left = {k: v for k, v in self._choice.items() if k not in self._extras | CHOICE}
        choice: Json = {"index": 0, "delta": {}, **left, "finish_reason": finish_reason}
        last = self.dress({"choices": [choice], **self._envelope, **extension})
        chunks = (*self._ends_of_others(), last)
        if not usage or self.usage is None:
            return chunks
        return (*chunks, {**self._head, "choices": [], "usage": self.usage})

    def _ends_of_others(self) -> list[Json]:
        """For choices beyond the first (n > 1) that did not end, or did not come, in the stream."""
        chunks: list[Json] = []
        for choice in map(ended, self._more_choices):
            index, reason = index_of(choice), choice["finish_reason"]
            if index in self._ended:
                continue
            delta = as_delta(choice.get("message") or {}) if index not in self._roles else {}
            part = {"index": index, "delta": delta, "finish_reason": reason}
            chunks.append(self._headed({"choices": [part]}))
        return chunks


def index_of(choice: Json) -> int:
    """The choice's number, put right where an engine left it out."""
    if not isinstance(choice.get("index"), int):
        choice["index"] = 0
    return int(choice["index"])


def ended(choice: Json) -> Json:
    """A whole choice beyond the first, with a finish reason in OpenAI's words."""
    return {**choice, "finish_reason": fold.finish_reason(choice.get("finish_reason")) or "stop"}


def as_delta(message: Json) -> Json:
    """A whole message as one delta of a stream."""
    calls = message.get("tool_calls")
    numbered = [{"index": n, **call} for n, call in enumerate(calls)] if calls else None
    said = {key: value for key, value in message.items() if key not in ("role", "tool_calls")}
    return {**said, "tool_calls": numbered} if numbered else said


def parting(tail: str) -> str:
    """What stands between a text that ends so and the next one."""
    return JOIN if tail and tail != "\n" else ""


def joined(old: Any, new: Any, *, parted: bool) -> Any:
    """One value from those of two rounds: texts and lists grow, the rest is replaced."""
    if isinstance(old, str) and isinstance(new, str) and old and new:
        return old + (parting(old[-1]) if parted else "") + new
    if isinstance(old, list) and isinstance(new, list):
        return old + new
    return old if new is None or new == "" else new


def grown(old: Json, new: Json) -> Json:
    """Fields of a choice over rounds: lists inside them, such as logprobs, grow."""
    if not old:
        return new
    whole = dict(old)
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            whole[key] = grown(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            whole[key] = before + value
        elif value is not None or before is None:
            whole[key] = value
    return whole


def summed(old: Json | None, new: Json | None) -> Json | None:
    """Usage added up over rounds, whatever its fields are (L17)."""
    if old is None or new is None:
        return new if old is None else old
    total = dict(old)
    for key, value in new.items():
        before = total.get(key)
        if number(value) and number(before):
            total[key] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            total[key] = summed(before, value)
        elif value is not None or before is None:
            total[key] = value
    return total


def number(value: object) -> bool:
    return type(value) is int or type(value) is float
