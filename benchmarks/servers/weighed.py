"""The bridge as it is served, which says on SIGUSR2 how much memory it uses.

    python -m benchmarks.servers.weighed FILE serve --config …

What a process holds (RSS) has holes, which become more whenever a moment is busier than all before
it, and are filled before it grows. What is alive is told by the allocators, Python's and C's.
"""

import ctypes
import gc
import os
import re
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

from mcp_bridge.cli import main

OBJECTS = re.compile(rb"^# bytes in allocated blocks\s*=\s*([\d,]+)", re.MULTILINE)
"""Where Python says what its small objects take; all others are C's."""


FIELDS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class Malloc(ctypes.Structure):
    """What `mallinfo2` tells (malloc.h): in blocks of the heap, and in blocks of their own."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in FIELDS)


LIBC = ctypes.CDLL(None)
LIBC.mallinfo2.restype = Malloc


def in_use() -> int:
    """Bytes that are in use, once what waits for the collector is gone."""
    gc.collect()
    malloc = LIBC.mallinfo2()
    return int(malloc.uordblks + malloc.hblkhd) + of_objects()


def of_objects() -> int:
    """Bytes of Python's small objects, which it tells nobody but standard error."""
    before = os.dup(2)
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(before, 2)
            os.close(before)
        told.seek(0)
        found = OBJECTS.search(told.read())
    assert found is not None
    return int(found[1].replace(b",", b""))


def tell(file: Path, *_: object) -> None:
    """Write it into a file, which is whole as soon as it is there."""
    written = file.with_suffix(".new")
    written.write_text(str(in_use()))
    written.replace(file)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, partial(tell, Path(sys.argv.pop(1))))
    main()
