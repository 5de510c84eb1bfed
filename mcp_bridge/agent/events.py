"""What a conversation tells the door that asked, in this order:

Started, then any number of Delta, ToolStarted, ToolProgress, ToolFinished, and one Finished.
An error ends it by being raised.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mcp_bridge.types import Json


@dataclass(frozen=True, slots=True)
class Started:
    """The inference server accepted the first question; `headers` are relayed to the caller."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Delta:
    """Finished `chat.completion.chunk` objects that belong on the wire now, in order."""

    chunks: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """One of our tools begins."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class ToolProgress:
    """A tool tells how far it is."""

    id: str
    name: str
    progress: float
    total: float | None
    message: str | None


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool has ended; `text` is what the model reads, `seconds` how long it took."""

    id: str
    name: str
    arguments: Json
    text: str
    is_error: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole `chat.completion`, and the last chunks of a stream (finish reason, usage)."""

    completion: Json
    last_chunks: tuple[Json, ...]


Event = Started | Delta | ToolStarted | ToolProgress | ToolFinished | Finished
