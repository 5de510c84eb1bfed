"""What one question to a model brings back: parts while it streams, then one whole answer."""

from collections.abc import Mapping
from dataclasses import field

from mcp_bridge.inference.splice import Run, each_of
from mcp_bridge.types import Json, frozen


@frozen
class Opened:
    """The inference server accepted the question. Always the first part.

    `headers` are the ones to relay (rate limits, request id), lower-case names.
    """

    headers: Mapping[str, str]


@frozen
class Fragment:
    """A piece of one tool call, cleaned of the engines' quirks.

    `position` counts the calls of this answer from 0. `id` and `name` are complete and the same in
    every fragment of a call; `arguments` is the text that is new.
    """

    position: int
    id: str
    name: str
    arguments: str


@frozen
class Part:
    """What arrived together: chunks to show, and pieces of tool calls.

    Each chunk is a `chat.completion.chunk` as it came (its `id`, `created` and `model` too: the
    loop overwrites them), less what the whole answer tells: `usage`, the role, tool calls and
    finish reasons. Chunks with nothing left to show are not here. They are the receiver's to
    change. A Run are chunks like one before them, which are changed with that one.
    """

    chunks: tuple[Json | Run, ...] = ()
    fragments: tuple[Fragment, ...] = ()

    def read(self) -> tuple[Json, ...]:
        """The chunks as objects, each with its own text."""
        return tuple(each_of(self.chunks))


@frozen
class ModelCall:
    """A tool call that the model made. `arguments` is the text exactly as the model wrote it.

    `complete` is False when the answer was cut inside it: it must never be executed (L5). `extra`
    holds fields that must go back with it (Gemini's `extra_content`).
    """

    id: str
    name: str
    arguments: str
    complete: bool = True
    extra: Json = field(default_factory=dict)


@frozen
class Answer:
    """A whole answer. Always the last part, exactly once.

    `message` is the assistant's message without `tool_calls`: `role`, `content` (str or None) and
    every other field it had. `finish_reason` is what the server said in OpenAI's words (`stop`,
    `length`, `tool_calls`, `content_filter`), None when it said nothing. `envelope` holds the
    answer's other top-level fields (`id`, `created`, `model`, `timings`, …), `choice` the choice's
    other fields (`logprobs`, …). `more_choices` are the raw choices beyond the first (n > 1).
    """

    message: Json
    calls: tuple[ModelCall, ...] = ()
    finish_reason: str | None = None
    usage: Json | None = None
    envelope: Json = field(default_factory=dict)
    choice: Json = field(default_factory=dict)
    more_choices: tuple[Json, ...] = ()
