"""Lines that are written without a record say what they would say with one."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcp_bridge.config.settings import Settings
from mcp_bridge.telemetry import frequent
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.telemetry.logging import HANDLER, set_up, tear_down
from mcp_bridge.types import Json

SECRET = 'sk-a "quoted" secret'
TIME = re.compile(r"\d{4}-\d\d-\d\d.\d\d:\d\d:\d\d\.\d{3}Z?")
logger = logging.getLogger("mcp_bridge.test")
Write = Callable[..., io.StringIO]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Sets the log up, with these `logging` settings, where nobody else reads it."""

    def write(worker: int | None = None, **options: Any) -> io.StringIO:
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # there are pytest's own
        stream = io.StringIO()
        server = {"base_url": "http://host/v1", "api_key": SECRET}
        settings = {"logging": options, "inference_server": server}
        set_up(Settings.model_validate(settings), stream, worker=worker)
        return stream

    yield write
    tear_down()


class Kept(logging.Handler):
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def ours() -> logging.Handler:
    (handler,) = [one for one in logging.getLogger().handlers if one.name == HANDLER]
    return handler


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("worker", [None, 3])
@pytest.mark.parametrize("request_id", [None, "req-1", f"req\n{SECRET}\x1b"])
@pytest.mark.parametrize(
    ("message", "args", "extra"),
    [
        ("plain", (), None),
        ("100 %", (), None),
        ("%s after %d rounds and %.3f s", ("stop", 2, 0.5), {"rounds": 2, "why": None}),
        ("%s", (f"before {SECRET} after",), {"field": {"deep": [SECRET, float("nan"), b"x"]}}),
        ("%r of %s", (SECRET, json.dumps(SECRET)), {SECRET: SECRET}),
        ("%s", ("x\n2026-11-25 00:00:00.000 INFO    app: forged\u2028\ud800\tпогода",), None),
        ("%d tries", (SECRET,), None),
        ("%s and %s", ("one",), {"time": "forged"}),
    ],
)
def test_a_line_is_the_one_that_a_record_would_have_become(
    log: Write,
    format: str,
    worker: int | None,
    request_id: str | None,
    message: str,
    args: tuple[object, ...],
    extra: Json | None,
) -> None:
    def written(info: Callable[..., None]) -> str:
        stream = log(worker, format=format)
        assert frequent.only_reader(logger) is ours()
        token = REQUEST_ID.set(request_id)
        info(message, *args, extra=extra)
        REQUEST_ID.reset(token)
        return TIME.sub("TIME", stream.getvalue())

    line = written(lambda *said, extra: frequent.info(logger, *said, extra=extra))
    assert line == written(logger.info)
    assert line.count("\n") == 1 and SECRET not in line and "TIME" in line


@pytest.mark.parametrize("quiet", ["level of the log", "level of the logger", "all of logging"])
def test_what_is_not_wanted_is_not_written(log: Write, quiet: str) -> None:
    stream = log(log_level="WARNING" if quiet == "level of the log" else "INFO")
    if quiet == "level of the logger":
        logger.setLevel(logging.ERROR)
    if quiet == "all of logging":
        logging.disable(logging.INFO)
    try:
        frequent.info(logger, "too much")
    finally:
        logging.disable(logging.NOTSET)
        logger.setLevel(logging.NOTSET)
    assert not stream.getvalue()


@pytest.mark.parametrize("place", ["", "mcp_bridge", "mcp_bridge.test"])
def test_the_handler_of_a_program_that_embeds_us_gets_a_record(log: Write, place: str) -> None:
    stream, kept = log(), Kept()
    logging.getLogger(place).addHandler(kept)
    try:
        frequent.info(logger, "%s rounds", 2, extra={"rounds": 2})
    finally:
        logging.getLogger(place).removeHandler(kept)
    (record,) = kept.records
    assert (record.name, record.levelno, record.args) == ("mcp_bridge.test", logging.INFO, (2,))
    assert vars(record)["rounds"] == 2
    assert stream.getvalue().endswith("2 rounds\n")


def test_a_record_names_the_place_that_speaks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        frequent.info(logger, "here")
    assert caplog.records[0].funcName == "test_a_record_names_the_place_that_speaks"


def test_a_logger_that_keeps_what_it_says_to_itself_is_heard_there_only(log: Write) -> None:
    stream, kept = log(), Kept()
    logger.addHandler(kept)
    logger.propagate = False
    try:
        frequent.info(logger, "private")
    finally:
        logger.removeHandler(kept)
        logger.propagate = True
    assert len(kept.records) == 1
    assert not stream.getvalue()


@pytest.mark.parametrize("whose", ["logger", "handler"])
def test_a_filter_is_asked(log: Write, whose: str) -> None:
    stream = log()
    filtered = logger if whose == "logger" else ours()
    asked: list[logging.LogRecord] = []

    def refuse(record: logging.LogRecord) -> bool:
        asked.append(record)
        return False

    filtered.addFilter(refuse)
    try:
        frequent.info(logger, "refused")
    finally:
        filtered.removeFilter(refuse)
    assert [record.getMessage() for record in asked] == ["refused"]
    assert not stream.getvalue()


def test_the_level_and_the_formatter_of_the_handler_count(log: Write) -> None:
    stream = log()
    ours().setFormatter(logging.Formatter("mine: %(message)s"))
    frequent.info(logger, "hello")
    ours().setLevel(logging.WARNING)
    frequent.info(logger, "less")
    assert stream.getvalue() == "mine: hello\n"


def test_what_a_factory_of_records_adds_is_shown(log: Write) -> None:
    def traced(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.trace = "trace-1"
        return record

    stream = log(format="json")
    logging.setLogRecordFactory(traced)
    try:
        frequent.info(logger, "hello")
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    assert json.loads(stream.getvalue())["trace"] == "trace-1"


async def test_lines_with_and_without_a_record_keep_their_order(log: Write) -> None:
    stream = log()
    frequent.info(logger, "one")
    logger.info("two")
    frequent.info(logger, "three")
    assert not stream.getvalue(), "a running loop writes them together, soon"
    logger.warning("four")
    written = [line.rpartition(" ")[2] for line in stream.getvalue().splitlines()]
    assert written == ["one", "two", "three", "four"]
