"""A body whose compression is undone while it is read."""

import zlib
from collections.abc import Awaitable, Callable

from mcp_bridge.http1.failures import Undecodable

Read = Callable[[], Awaitable[bytes]]

WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
PIECE = 2**20
"""Not more than so much is made of what has arrived at once: a few bytes may become gigabytes."""


def decoded(read: Read, encoding: str) -> Read:
    """The same, decompressed as the header `content-encoding` says."""
    encoding = encoding.strip().lower()
    return read if encoding in ("", "identity") else Decoder(read, encoding).read


class Decoder:
    """Reads the pieces of a body and gives what they were made of."""

    def __init__(self, read: Read, encoding: str) -> None:
        self._read = read
        self._window = WINDOWS.get(encoding)
        self._inflate = zlib.decompressobj(self._window or zlib.MAX_WBITS)
        self._begun = False

    async def read(self) -> bytes:
        """What comes next, never more than `PIECE`; nothing at the end.

        Raises:
            Undecodable: it is something else, or ends too early.
        """
        if self._window is None:
            raise Undecodable("the content-encoding is unknown")
        while not self._inflate.eof:
            piece = self._inflate.unconsumed_tail or await self._read()
            if not piece:
                rest = self._inflate.flush()
                if self._begun and not self._inflate.eof:
                    raise Undecodable("the compressed body ends too early")
                return rest
            if found := self._inflated(piece):
                return found
        while await self._read():  # padding, until the connection can be used again
            pass
        return b""

    def _inflated(self, piece: bytes) -> bytes:
        if not self._begun:
            self._begun = True
            if self._window == zlib.MAX_WBITS and piece[0] & 15 != zlib.DEFLATED:
                # Many servers mean a bare deflate stream, which no such byte begins (RFC 9110,
                # 8.4.1.2; RFC 1950, 2.2).
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return self._inflate.decompress(piece, PIECE)
        except zlib.error as exc:
            raise Undecodable("the body is not compressed as its header says") from exc
