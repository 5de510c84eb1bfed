"""What a conversation tells the door that asked, in this order:

Started, then any number of Delta, ToolStarted, ToolProgress, ToolFinished, and one Finished.
An error ends it by being raised. A conversation that may ask its user can end a turn with Asked
instead of Finished, and begins again with Started when the answer is here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcp_bridge.inference.splice import Run
from mcp_bridge.types import Json, frozen

if TYPE_CHECKING:
    from mcp_bridge.agent.conversation import Ask


@frozen
class Started:
    """The inference server accepted the first question; `headers` are relayed to the caller."""

    headers: Mapping[str, str]


@frozen
class Delta:
    """Finished `chat.completion.chunk` objects that belong on the wire now, in order.

    None: the model says what nobody is shown.
    """

    chunks: tuple[Json | Run, ...]


@frozen
class ToolStarted:
    """One of our tools begins."""

    id: str
    name: str
    arguments: Json


@frozen
class ToolProgress:
    """A tool tells how far it is."""

    id: str
    name: str
    progress: float
    total: float | None
    message: str | None


@frozen
class ToolFinished:
    """A tool has ended; `text` is what the model reads, `seconds` how long it took."""

    id: str
    name: str
    arguments: Json
    text: str
    is_error: bool
    seconds: float


Completion = Callable[[], Json]
LastChunks = Callable[[], tuple[Json, ...]]


@frozen
class Finished:
    """The end of an answer.

    What makes the whole `chat.completion`, and the last chunks of a stream (finish reason, usage):
    a door needs one of them.
    """

    completion: Completion
    last_chunks: LastChunks


@dataclass(slots=True, eq=False)
class Asked:
    """A tool's server asks the user: the turn ends like with Finished, its last text the question.

    Whoever has the user's next message says `go_on` with it, and drives the conversation on.
    """

    completion: Completion
    last_chunks: LastChunks
    _next: "Ask | None" = None

    def go_on(self, ask: "Ask") -> None:
        self._next = ask

    @property
    def next(self) -> "Ask":
        assert self._next is not None  # noqa: S101  # nobody drives it on without the answer
        return self._next


Event = Started | Delta | ToolStarted | ToolProgress | ToolFinished | Finished | Asked
