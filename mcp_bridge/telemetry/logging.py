"""The log: one line for each thing that happened, on standard error, as text or as JSON.

Only standard error: the standard output of `mcp-bridge stdio` belongs to the protocol. Our own
loggers write from `logging.log_level` on; other libraries are quieter, for their INFO says what we
say better, and their DEBUG holds whole bodies and headers.
"""

import asyncio
import json
import logging
import re
import select
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, tzinfo
from typing import TextIO

from mcp_bridge.config.settings import Settings
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.telemetry.redactor import Redactor
from mcp_bridge.types import Json

HANDLER = "mcp_bridge"
OURS = "mcp_bridge"
OUR_CHILDREN = f"{OURS}."
TRACE = 5
BATCH_SECONDS = 0.05
WHOLE_BYTES = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512
"""As much as is written to a pipe without another process's words in between."""

TALKATIVE = ("openai", "httpcore2", "hpack", "h2", "websockets")
"""Their DEBUG holds bodies or headers: it is not written at any level."""

ECHO = "mcp.client.streamable_http"
"""It logs, with tracebacks, the failures that `mcp_client.connection` says in words."""

UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What could end a line, command a terminal, or turn the order of its characters around."""

SOURCE = logging._srcfile
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


def set_up(settings: Settings, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Write the log as the settings say. Called again, as after a reload, it starts afresh.

    `worker` tells the lines of several processes apart that write to the same place.
    """
    logging.addLevelName(TRACE, "TRACE")
    level = logging.getLevelNamesMapping()[settings.logging.log_level]
    others = level_of_others(level)
    kind = JsonLines if settings.logging.format == "json" else TextLines
    lines = kind(Redactor.of(settings), worker)
    handler = Batching(stream or sys.stderr, lines, _Worth(others), alone=worker is None)
    handler.name = HANDLER
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.name == HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(others)
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(True)
    ask_for_less(True)


def ask_for_less(less: bool) -> None:
    """Leave out of each record what no line shows: finding it out takes a third of the time.

    As the standard library's logging HOWTO has it, under "Optimization".
    """
    logging._srcfile = None if less else SOURCE  # the one that is not public
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = not less
    if hasattr(logging, "logAsyncioTasks"):  # from Python 3.12 on
        logging.logAsyncioTasks = not less


def tear_down() -> None:
    """Undo `set_up`, for tests and for programs that embed the bridge."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if handler.name == HANDLER]:
        handler.flush()
        root.removeHandler(handler)
    ask_for_less(False)
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def level_of_others(level: int) -> int:
    """The level from which libraries write: one step quieter than we are."""
    if level <= TRACE:
        return logging.DEBUG
    return logging.INFO if level <= logging.DEBUG else max(level, logging.WARNING)


def visible(text: str) -> str:
    """The text on one line, with what is not to be trusted in a terminal written as an escape."""
    if text.isprintable():  # none of that is, and most texts are
        return text
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # boundary: `logging` would print the arguments as they are
        return f"{record.msg} {record.args}"


def _trace(record: logging.LogRecord) -> str | None:
    """The traceback, or the stack that was asked for."""
    if not (record.exc_info or record.exc_text or record.stack_info):
        return None
    parts = [record.stack_info or ""]
    if record.exc_info and record.exc_info[0]:
        parts.append("".join(traceback.format_exception(*record.exc_info)))
    elif record.exc_text:
        parts.append(record.exc_text)
    return "\n".join(part for part in parts if part) or None


class TextLines(logging.Formatter):
    """`2026-11-25 20:51:12.123 INFO    mcp_client.stdio [req-1] message`, tracebacks indented.

    Where several workers write, `w0` and the like stand before the logger's name. `form` and
    `zone`: how a time is written, and where (None: here).
    """

    form = "%Y-%m-%d %H:%M:%S"
    zone: tzinfo | None = None

    def __init__(self, redact: Redactor, worker: int | None = None) -> None:
        super().__init__()
        self._redact = redact
        self._worker = worker
        self._place = "" if worker is None else f"w{worker} "
        self._this_second = 0, ""

    def format(self, record: logging.LogRecord) -> str:
        return self.line(
            record.created,
            record.levelname,
            record.name,
            _message(record),
            self._extra(record),
            _trace(record),
        )

    def line(  # so many, for an object that held them would cost a tenth of a line
        self,
        created: float,
        level: str,
        name: str,
        message: str,
        extra: Json | None,
        trace: str | None = None,
    ) -> str:
        """The line that says this, without secrets."""
        request = f" [{given}]" if (given := REQUEST_ID.get()) else ""
        said = self._redact(f"{name.removeprefix(OUR_CHILDREN)}{request}: {message}")
        line = f"{self._time(created)} {level.ljust(7)} {self._place}{visible(said)}"
        if trace is None:
            return line
        # Indented, so that a message with line breaks cannot pass for another entry.
        indented = (f"    {visible(text)}" for text in self._redact(trace).splitlines())
        return "\n".join([line, *indented])

    def _extra(self, record: logging.LogRecord) -> Json | None:
        """The fields that were given as `extra`, where they are shown."""
        return None

    def _time(self, created: float) -> str:
        """A time, with milliseconds. Many lines are of the same second, which is written once."""
        second = int(created)
        known, written = self._this_second
        if second != known:
            written = datetime.fromtimestamp(second, self.zone).strftime(self.form)
            self._this_second = second, written
        return f"{written}.{str(int((created - second) * 1000)).zfill(3)}"


class JsonLines(TextLines):
    """The same as a JSON object in each line, with the fields that were given as `extra`."""

    form = "%Y-%m-%dT%H:%M:%S"
    zone = UTC

    def line(
        self,
        created: float,
        level: str,
        name: str,
        message: str,
        extra: Json | None,
        trace: str | None = None,
    ) -> str:
        found: Json = self._redact.json(extra) if extra else {}
        found["time"] = f"{self._time(created)}Z"
        found["level"] = level.lower()
        found["logger"] = name
        found["message"] = self._redact(message)
        if (request := REQUEST_ID.get()) is not None:
            found["request_id"] = self._redact(request)
        if self._worker is not None:
            found["worker"] = self._worker
        if trace is not None:
            found["exception"] = self._redact(trace)
        return json.dumps(found)

    def _extra(self, record: logging.LogRecord) -> Json | None:
        return {key: value for key, value in vars(record).items() if key not in STANDARD}


class Batching(logging.StreamHandler[TextIO]):
    """Writes the lines of a short while together, off the path of the requests they are about.

    Warnings, and what is said outside of a running loop, are written at once. When it is not
    `alone`, other processes write to the same pipe: only what is short enough stays whole there.
    """

    def __init__(
        self, stream: TextIO, lines: TextLines, worth: "_Worth", *, alone: bool = True
    ) -> None:
        super().__init__(stream)
        self.setFormatter(lines)
        self._worth = worth
        self._alone = alone
        self._lines: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        return self._worth.filter(record) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # boundary: a record that cannot be written must not stop its writer
            self.handleError(record)
            return
        self._lines.append(line + self.terminator)
        if record.levelno >= logging.WARNING or not self._will_be_written():
            self.flush()

    def take(self, logger: str, message: str, args: tuple[object, ...], extra: Json | None) -> bool:
        """Write INFO without a record. False when that cannot be: then only the usual way is right.

        Nobody may have changed what this handler writes, and how. That nobody else reads what the
        logger says is known by who calls this.
        """
        lines = self.formatter
        if self.filters or self.level > logging.INFO or not isinstance(lines, TextLines):
            return False
        try:
            line = lines.line(time.time(), "INFO", logger, message % args, extra)
        except Exception:  # boundary: the usual way says what is wrong with it
            return False
        self._lines.append(line + self.terminator)
        if not self._will_be_written():
            self.flush()
        return True

    def _will_be_written(self) -> bool:
        """Whether a running loop will do it soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(BATCH_SECONDS, self._batch_is_over)
        return True

    def _batch_is_over(self) -> None:
        self._loop = None
        self.flush()

    def flush(self) -> None:
        with self.lock or nullcontext():
            lines = self._lines[:]
            del self._lines[: len(lines)]  # what another thread adds meanwhile stays
            try:
                for text in ["".join(lines)] if self._alone else pieces(lines):
                    self.stream.write(text)
                    super().flush()
            except OSError:
                pass  # whoever read the log is gone, or the disk is full: the work goes on


def pieces(lines: Iterable[str]) -> Iterator[str]:
    """The lines joined as far as a pipe takes them in one piece (POSIX); a longer line is alone."""
    piece, size = "", 0
    for line in lines:
        length = len(line.encode(errors="replace"))
        if piece and size + length > WHOLE_BYTES:
            yield piece
            piece, size = "", 0
        piece, size = piece + line, size + length
    yield piece


class _Worth(logging.Filter):
    """Which records are worth a line.

    The loggers' own levels do most of it; but a library may set its own (openai does, when
    OPENAI_LOG is set).
    """

    def __init__(self, others: int) -> None:
        super().__init__()
        self._others = others

    def filter(self, record: logging.LogRecord) -> bool:
        if _is_of(record, OURS):
            return True
        if record.name == "py.warnings" and "MCPDeprecationWarning" in record.getMessage():
            return False  # we speak both protocol eras on purpose
        if _is_of(record, ECHO) and self._others > logging.INFO:
            return False
        if any(_is_of(record, name) for name in TALKATIVE):
            return record.levelno >= max(self._others, logging.INFO)
        return record.levelno >= self._others


def _is_of(record: logging.LogRecord, name: str) -> bool:
    return record.name == name or record.name.startswith(f"{name}.")
