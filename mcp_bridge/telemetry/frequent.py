"""The lines that every request and every tool call writes, at a third of what `logging` takes.

A record of the standard library and its way through loggers, locks and filters cost more than the
line itself. Where nobody but our own handler reads a record, none is made. Everybody else (the
handlers of a program that embeds us, a logger's filter, a factory of records) gets one as always.
"""

import logging

from mcp_bridge.telemetry.logging import Batching
from mcp_bridge.types import Json


def info(logger: logging.Logger, message: str, *args: object, extra: Json | None = None) -> None:
    """What `logger.info` does."""
    if not logger.isEnabledFor(logging.INFO):
        return
    reader = only_reader(logger)
    if reader is None or not reader.take(logger.name, message, args, extra):
        logger.info(message, *args, extra=extra, stacklevel=2)


def only_reader(logger: logging.Logger) -> Batching | None:
    """Our handler, where nobody else reads what this logger says, nor changes it on its way."""
    if logger.filters or logging.getLogRecordFactory() is not logging.LogRecord:
        return None
    readers = logger.handlers
    while logger.propagate and logger.parent is not None:
        logger = logger.parent
        if logger.handlers:
            readers = [*readers, *logger.handlers]
    (reader,) = readers if len(readers) == 1 else (None,)
    return reader if isinstance(reader, Batching) else None
