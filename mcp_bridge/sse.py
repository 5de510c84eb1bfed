"""The lines of server-sent events, read as bytes: what both readers of events stand on.

Bytes, because a piece of the network may end anywhere: inside a character, inside a line end,
inside the byte order mark. Lines can be cut in bytes, for in UTF-8 a line end is never part of
another character. There is no limit on a line.
"""

BOM = b"\xef\xbb\xbf"


class EventLines:
    """Cuts a stream into lines, whatever the pieces it arrives in, and whatever ends a line."""

    def __init__(self) -> None:
        self._tail: list[bytes] = []
        """The unfinished last line, in pieces: joined once, however long it gets."""
        self._after_cr = False
        self.at_start = True
        """Nothing has come yet, so a byte order mark may. Who reads a piece himself unsets it."""

    @property
    def is_at_a_line(self) -> bool:
        """Whether a line begins with the next piece."""
        return not (self._tail or self._after_cr)

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that this piece completes, without their ends."""
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if piece.find(b"\n") < 0 and piece.find(b"\r") < 0:
            if piece:
                self._tail.append(piece)
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = self._from_the_start(b"".join([*self._tail, piece])).splitlines()
        self._tail.clear()
        if not piece.endswith((b"\n", b"\r")):
            self._tail.append(lines.pop())
        return lines

    def rest(self) -> list[bytes]:
        """The line that the end of the stream has left without an end, if there is one."""
        last = self._from_the_start(b"".join(self._tail))
        self._tail.clear()
        return [last] if last else []

    def _from_the_start(self, text: bytes) -> bytes:
        if self.at_start:
            self.at_start = False
            return text.removeprefix(BOM)
        return text
