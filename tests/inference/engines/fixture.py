"""What a fixture is, and the few words that fixtures are written with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_bridge.types import Json


@dataclass(frozen=True)
class Call:
    """A tool call that must be found. `id` None: the engine gave none that can be used."""

    id: str | None
    name: str
    arguments: str
    complete: bool = True
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """The answer, however it was asked for.

    `message` is the assistant's message without its calls and without fields that say nothing
    (null, empty). `streamed` and `whole` replace fields where an engine itself says different
    things in the two, such as usage that it only counts in whole answers.
    """

    content: str | None = None
    fields: Json = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    finish_reason: str | None = "stop"
    usage: Json | None = None
    streamed: Mapping[str, Any] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> Json:
        return {"role": "assistant", "content": self.content, **self.fields}


@dataclass(frozen=True)
class ExpectedError:
    """The error that the answer ends in. `shown` is the text that came before it."""

    status: int
    message: str
    code: str | None
    shown: str = ""


@dataclass(frozen=True)
class Fixture:
    """One answer of one engine: streamed, whole, and what it means."""

    name: str
    stream: bytes
    whole: Json | None
    expect: Expected | ExpectedError


@dataclass(frozen=True)
class Refusal:
    """An answer with an error status, and the error that the caller is told."""

    name: str
    status: int
    body: bytes
    message: str
    type: str
    code: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


DONE = "data: [DONE]"


def sse(*events: Json | str, end: str = "\n\n") -> bytes:
    """A stream: objects become `data:` events, strings stand as they are."""
    return "".join(
        (event if isinstance(event, str) else f"data: {compact(event)}") + end for event in events
    ).encode()


def compact(value: Any) -> str:
    """JSON as engines write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def calling(index: int | None, id: str | None, name: str | None, arguments: Any) -> Json:
    """An item of `tool_calls`, without what is None."""
    function = {"name": name, "arguments": arguments}
    item = {"index": index, "id": id, "type": "function" if id else None}
    made: Json = {key: value for key, value in item.items() if value is not None}
    made["function"] = {key: value for key, value in function.items() if value is not None}
    return made


def usage(prompt: int, completion: int, **more: Any) -> Json:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }
