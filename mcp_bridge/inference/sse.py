"""Server-sent events, read as bytes.

Only the payloads of `data:` matter on these streams; ids, event names, retry times and comments
are skipped. Bytes, because a piece of the network may end anywhere: inside a character, inside a
line end, inside the byte order mark. Lines can be cut in bytes, for in UTF-8 a line end is never
part of another character.
"""

BOM = b"\xef\xbb\xbf"


class SseReader:
    """Cuts a stream into the payloads of its events, whatever the pieces it arrives in."""

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        """The unfinished last line, in pieces: joined once, however long it gets."""
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[bytes]:
        """The payloads of the events that this piece completes."""
        if (whole := self._whole_events(piece)) is not None:
            return whole
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if b"\n" not in piece and b"\r" not in piece:
            self._tail.append(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        if self._tail:
            piece = b"".join([*self._tail, piece])
            self._tail.clear()
        if self._at_start:
            self._at_start = False
            piece = piece.removeprefix(BOM)
        lines = piece.splitlines()
        if not piece.endswith((b"\n", b"\r")):
            self._tail.append(lines.pop())
        return self._payloads(lines)

    def _whole_events(self, piece: bytes) -> list[bytes] | None:
        """The payloads of a piece that is nothing but whole events of one line, as most are."""
        if self._tail or self._data or self._after_cr or self._at_start:
            return None
        if not piece.startswith(b"data: ") or not piece.endswith(b"\n\n") or b"\r" in piece:
            return None
        payloads = piece[6:-2].split(b"\n\ndata: ")
        return payloads if piece.count(b"\n") == 2 * len(payloads) else None

    def close(self) -> list[bytes]:
        """What is left when the stream ends without the last event's blank line."""
        last = b"".join(self._tail)
        self._tail.clear()
        return self._payloads([last.removeprefix(BOM), b""])

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
