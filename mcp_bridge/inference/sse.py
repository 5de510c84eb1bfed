"""The payloads of an engine's server-sent events.

Only the payloads of `data:` matter on these streams; ids, event names, retry times and comments
are skipped.
"""

from mcp_bridge.sse import EventLines


class SseReader:
    """Cuts a stream into the payloads of its events, whatever the pieces it arrives in."""

    def __init__(self) -> None:
        self._lines = EventLines()
        self._data: list[bytes] = []

    @property
    def is_between_events(self) -> bool:
        """Whether an event begins with the next piece."""
        return not self._data and self._lines.is_at_a_line

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that this piece completes."""
        if (whole := self._whole_events(piece)) is not None:
            return whole
        return self._payloads(self._lines.feed(piece))

    def _whole_events(self, piece: bytes) -> list[bytes] | None:
        """The payloads of a piece that is nothing but whole events of one line, as most are."""
        if not self.is_between_events:
            return None
        if not piece.startswith(b"data: ") or not piece.endswith(b"\n\n") or piece.find(b"\r") >= 0:
            return None
        payloads = piece[6:-2].split(b"\n\ndata: ")
        if piece.count(b"\n") != 2 * len(payloads):
            return None
        self._lines.at_start = False
        return payloads

    def close(self) -> list[bytes]:
        """What is left when the stream ends without the last event's blank line."""
        return self._payloads([*self._lines.rest(), b""])

    def _payloads(self, lines: list[bytes]) -> list[bytes]:
        found = []
        data = self._data
        for line in lines:
            if not line:
                if data:
                    found.append(data[0] if len(data) == 1 else b"\n".join(data))
                    data.clear()
            elif line.startswith(b"data:"):
                # One space after the colon belongs to the format, and some servers leave it out.
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        return found
