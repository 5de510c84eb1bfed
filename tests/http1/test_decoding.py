"""Compressed bodies, in pieces of any size."""

import gzip
import zlib

import pytest

from mcp_bridge.http1.decoding import PIECE, Read, decoded
from mcp_bridge.http1.failures import Undecodable

TEXT = b"what is compressed becomes what it was " * 400


def bare(text: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(text) + made.flush()


def reading(body: bytes, size: int) -> Read:
    left = [body[start : start + size] for start in range(0, len(body), size)]

    async def read() -> bytes:
        return left.pop(0) if left else b""

    return read


async def everything(read: Read) -> bytes:
    found = b""
    while piece := await read():
        assert len(piece) <= PIECE
        found += piece
    assert await read() == b""
    return found


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        (" GZIP ", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare(TEXT)),
        ("gzip", gzip.compress(TEXT) + b"\0\0padding"),
    ],
)
async def test_a_body_is_read_as_it_was(encoding: str, body: bytes, size: int) -> None:
    assert await everything(decoded(reading(body, size), encoding)) == TEXT


async def test_little_that_becomes_much_is_read_in_pieces() -> None:
    much = b"\0" * (5 * PIECE + 3)
    assert await everything(decoded(reading(gzip.compress(much), 100_000), "gzip")) == much


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_nothing_at_all_is_nothing(encoding: str) -> None:
    assert await everything(decoded(reading(b"", 1), encoding)) == b""


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"this is none"),
        ("deflate", b"\xff\xff\xff neither is this"),
        ("gzip", gzip.compress(TEXT)[:-9]),
        ("br", b"abc"),
        ("gzip, gzip", b"abc"),
    ],
)
async def test_what_is_not_compressed_so_is_refused(encoding: str, body: bytes) -> None:
    with pytest.raises(Undecodable):
        await everything(decoded(reading(body, 100), encoding))
