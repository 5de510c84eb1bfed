"""Server-sent events of MCP servers. There is no limit on an event: a result of any size arrives.

Beside its data an event may carry an id and a time, with which a stream that broke is taken up
again where it was (`Last-Event-ID`). An id counts when its event is complete.
"""

from mcp_bridge.sse import EventLines
from mcp_bridge.types import frozen

LONGEST_RETRY = 10
"""More digits of milliseconds are no time that anybody means."""


@frozen
class Event:
    """One event. Its data may be empty: such ones only carry an id."""

    data: bytes
    name: bytes = b"message"


class EventReader:
    """Cuts a stream into its events, whatever the pieces it arrives in.

    `last_id`: the id of the last event that had one. `retry`: the seconds after which the server
    wants to be asked again, if it has said so. `heard`: whether there was an event with data.
    """

    def __init__(self, last_id: str = "", retry: float | None = None) -> None:
        self.last_id = last_id
        self.retry = retry
        self.heard = False
        self._lines = EventLines()
        self._data: list[bytes] = []
        self._name = b""
        self._id: bytes | None = None

    def again(self) -> "EventReader":
        """A reader for the stream that takes this one's place."""
        return EventReader(self.last_id, self.retry)

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        return self._events(self._lines.feed(piece))

    def close(self) -> list[Event]:
        """What is left when the stream has ended without the last event's blank line."""
        return self._events([*self._lines.rest(), b""])

    def _events(self, lines: list[bytes]) -> list[Event]:
        found: list[Event] = []
        for line in lines:
            if line:
                self._take(line)
            elif self._data or self._id is not None:
                found.append(self._complete())
            else:
                self._name = b""
        return found

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        # One space after the colon belongs to the format, and some servers leave it out.
        value = value.removeprefix(b" ")
        match field:
            case b"data":
                self._data.append(value)
            case b"event":
                self._name = value
            case b"id" if b"\0" not in value:
                self._id = value
            case b"retry" if value.isdigit() and len(value) < LONGEST_RETRY:
                self.retry = int(value) / 1000

    def _complete(self) -> Event:
        if self._id is not None:
            self.last_id = self._id.decode(errors="replace")
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        event = Event(data, self._name or b"message")
        self.heard = self.heard or bool(data)
        self._data.clear()
        self._name, self._id = b"", None
        return event
