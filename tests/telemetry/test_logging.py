"""What stands in the log, and what never does."""

import io
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from mcp.shared.exceptions import MCPDeprecationWarning

from mcp_bridge.config.settings import Settings
from mcp_bridge.telemetry.context import REQUEST_ID
from mcp_bridge.telemetry.logging import WHOLE_BYTES, pieces, set_up, tear_down
from mcp_bridge.telemetry.redactor import MASK, Redactor, secrets_of
from mcp_bridge.types import Json

Write = Callable[..., io.StringIO]
LIBRARIES = [
    "openai._base_client",
    "httpx2",
    "httpcore2.http11",
    "mcp.client.session",
    "uvicorn.error",
    "uvicorn.access",
    "asyncio",
    "websockets.client",
]
SECRETS = {
    "inference key": "sk-inference-1",
    "inference header": "header-value-2",
    "password in a URL": "url-password-3",
    "value in a query": "query+value/4",
    "variable of a server": 'quoted "value" 5',
    "header of a server": "token-6",
    "argument": "argument-7",
    "key of a caller": "caller-key-8",
    "several lines": "-----BEGIN-----\nline-9\n-----END-----",
}


@pytest.fixture
def log() -> Iterator[Write]:
    """Sets the log up with these `logging` settings and returns what it writes to."""
    before = {name: logging.getLogger(name).level for name in LIBRARIES}

    def write(settings: Settings | None = None, **options: Any) -> io.StringIO:
        stream = io.StringIO()
        set_up(settings or Settings.model_validate({"logging": options}), stream)
        return stream

    yield write
    tear_down()
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def logger(name: str = "mcp_bridge.test") -> logging.Logger:
    return logging.getLogger(name)


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def entry(stream: io.StringIO) -> Json:
    (line,) = lines(stream)
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def secretive(format: str = "text", level: str = "INFO") -> Settings:
    s = SECRETS
    return Settings.model_validate(
        {
            "inference_server": {
                "base_url": f"https://me:{s['password in a URL']}@host/v1",
                "api_key": s["inference key"],
                "headers": {"x-key": s["inference header"]},
            },
            "mcp_servers": {
                "a": {
                    "command": "server",
                    "args": ["--token", s["argument"]],
                    "env": {"A": s["variable of a server"], "PEM": s["several lines"]},
                },
                "b": {
                    "url": "https://host/mcp?b=1&key=query%2Bvalue%2F4",
                    "headers": {"Authorization": f"Bearer {s['header of a server']}"},
                },
            },
            "security": {"auth": {"enabled": True, "api_keys": [{"key": s["key of a caller"]}]}},
            "logging": {"format": format, "log_level": level},
        }
    )


# Text


def test_a_line_says_when_how_bad_where_and_what(log: Write) -> None:
    stream = log()
    logger("mcp_bridge.mcp_client.stdio").warning("%s does not start", "fetch")
    (line,) = lines(stream)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} WARNING mcp_client\.stdio: fetch does not start",
        line,
    )


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_request_id_stands_in_each_line_of_its_request(log: Write, format: str) -> None:
    stream = log(format=format)
    token = REQUEST_ID.set("req-1")
    logger().info("inside")
    REQUEST_ID.reset(token)
    logger().info("outside")
    inside, outside = lines(stream)
    assert "req-1" in inside
    assert "req-1" not in outside


@pytest.mark.parametrize("bad", ["\n", "\r", "\x1b[2J", "\u2028", "\x85", "\u202e", "\0", "\ud800"])
def test_text_from_outside_can_neither_begin_a_line_nor_command_a_terminal(
    log: Write, bad: str
) -> None:
    stream = log()
    token = REQUEST_ID.set(f"id{bad}")
    logger().info("tool %s", f"x{bad}2026-11-25 00:00:00.000 INFO    app: forged")
    REQUEST_ID.reset(token)
    assert len(lines(stream)) == 1
    assert bad not in stream.getvalue().removesuffix("\n")
    assert "forged" in stream.getvalue()


def test_a_tab_and_other_scripts_stay_readable(log: Write) -> None:
    stream = log()
    logger().info("a\tb, погода, 天気")
    assert "a\tb, погода, 天気" in stream.getvalue()


def test_a_traceback_is_indented_so_that_nothing_in_it_passes_for_another_line(log: Write) -> None:
    stream = log()
    try:
        raise ValueError("first\n2026-11-25 00:00:00.000 INFO    app: forged\x1b[2J")
    except ValueError:
        logger().exception("it failed")
    first, *rest = lines(stream)
    assert first.endswith("ERROR   test: it failed")
    assert "ValueError: first" in stream.getvalue()
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in stream.getvalue()


# JSON


def test_json_holds_the_same_and_the_extra_fields(log: Write) -> None:
    stream = log(format="json")
    logger("mcp_bridge.agent.loop").info("ended\nhere", extra={"rounds": 3, "seconds": 0.5})
    found = entry(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "logger": "mcp_bridge.agent.loop",
        "message": "ended\nhere",
        "rounds": 3,
        "seconds": 0.5,
    }


def test_json_keeps_the_traceback_in_one_field(log: Write) -> None:
    stream = log(format="json")
    try:
        raise ValueError("why")
    except ValueError:
        logger().exception("it failed")
    assert entry(stream)["exception"].splitlines()[-1] == "ValueError: why"


def test_json_takes_whatever_is_given(log: Write) -> None:
    stream = log(format="json")
    extra = {"a": float("nan"), "b": {1: (b"x", None)}, "c": {"set"}, "d": "\ud800"}
    logger().info("odd", extra=extra)
    found = entry(stream)
    assert found["a"] == "nan"
    assert found["b"] == {"1": ["b'x'", None]}


def test_an_extra_field_cannot_replace_what_a_line_always_has(log: Write) -> None:
    stream = log(format="json")
    logger().info("true", extra={"level": "forged", "time": "forged"})
    assert "forged" not in stream.getvalue()


# Levels


def test_trace_is_a_level_below_debug(log: Write) -> None:
    stream = log(log_level="TRACE")
    logger().log(5, "fine detail")
    assert "TRACE" in stream.getvalue()
    stream = log(log_level="DEBUG")
    logger().log(5, "fine detail")
    assert not stream.getvalue()


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_info_of_libraries_is_not_written(log: Write, name: str) -> None:
    stream = log(log_level="INFO")
    logger(name).info("noise")
    logger(name).warning("news")
    assert "noise" not in stream.getvalue()
    assert "news" in stream.getvalue()


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_sets_its_own_level_is_not_written_either(log: Write, name: str) -> None:
    stream = log(log_level="INFO")
    logger(name).setLevel(logging.DEBUG)  # openai does so when OPENAI_LOG is set
    logger(name).debug("request options: …")
    logger(name).info("noise")
    assert not stream.getvalue()


@pytest.mark.parametrize("name", ["openai._base_client", "httpcore2.http11", "websockets.client"])
def test_bodies_and_headers_that_libraries_log_are_written_at_no_level(
    log: Write, name: str
) -> None:
    stream = log(log_level="TRACE")
    logger(name).debug("headers and bodies")
    assert not stream.getvalue()


def test_what_the_mcp_library_says_of_a_failure_is_for_debugging(log: Write) -> None:
    stream = log(log_level="INFO")
    logger("mcp.client.streamable_http").error("Error parsing JSON response")
    assert not stream.getvalue()
    stream = log(log_level="DEBUG")
    logger("mcp.client.streamable_http").error("Error parsing JSON response")
    assert "Error parsing JSON response" in stream.getvalue()


def test_the_log_can_be_quieter_than_warnings(log: Write) -> None:
    stream = log(log_level="ERROR")
    logger().warning("ours")
    logger("mcp").warning("theirs")
    assert not stream.getvalue()


def test_setting_up_again_replaces_what_was_there(log: Write) -> None:
    before = log(log_level="DEBUG")
    after = log(log_level="WARNING")
    logger().info("less")
    logger().warning("more")
    assert not before.getvalue()
    assert [line.rpartition(" ")[2] for line in lines(after)] == ["more"]


# What is not worth a line


def test_warnings_go_to_the_log_except_the_protocol_era_we_speak_on_purpose(log: Write) -> None:
    stream = log()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        set_up(Settings(), stream)  # again, for `catch_warnings` has reset where warnings go
        warnings.warn("sampling is deprecated", MCPDeprecationWarning, stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert "something else" in stream.getvalue()
    assert "sampling is deprecated" not in stream.getvalue()


# Secrets


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("name", ["", "mcp_bridge.api", *LIBRARIES, "somebody.else"])
def test_no_logger_can_write_a_secret(log: Write, name: str, format: str) -> None:
    stream = log(secretive(format))
    for secret in SECRETS.values():
        logger(name).warning("plain %s", secret)
        logger(name).warning("repr %r", {"key": secret})
        logger(name).warning("json %s", json.dumps(secret), extra={"field": {"deep": [secret]}})
        try:
            raise ValueError(secret)
        except ValueError:
            logger(name).exception("raised")
    written = stream.getvalue()
    assert MASK in written
    for secret in SECRETS.values():
        for spelled in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1]):
            assert spelled not in written


@pytest.mark.parametrize("kind", SECRETS)
def test_every_kind_of_secret_is_known(kind: str) -> None:
    assert SECRETS[kind] in secrets_of(secretive())
    assert SECRETS[kind] not in Redactor.of(secretive())(f"before {SECRETS[kind]} after")


def test_a_percent_encoded_secret_is_known_too() -> None:
    assert Redactor(["query+value/4"])("GET /?key=query%2Bvalue%2F4") == f"GET /?key={MASK}"


def test_a_secret_that_contains_another_is_hidden_whole() -> None:
    assert Redactor(["secret", "secret-and-more"])("x secret-and-more y") == f"x {MASK} y"


def test_short_values_are_not_blacked_out() -> None:
    settings = Settings.model_validate(
        {"mcp_servers": {"a": {"command": "x", "env": {"DEBUG": "true", "N": "1"}}}}
    )
    assert Redactor.of(settings)("it is true that 1 is 1") == "it is true that 1 is 1"


def test_a_record_that_cannot_be_formatted_is_written_without_its_secrets(
    log: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own would raise
    stream = log(secretive())
    logger().warning("%d tries", SECRETS["inference key"])
    assert "tries" in stream.getvalue()
    assert SECRETS["inference key"] not in stream.getvalue() + capsys.readouterr().err


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_line_names_its_worker_where_there_are_several(format: str) -> None:
    stream = io.StringIO()
    set_up(Settings.model_validate({"logging": {"format": format}}), stream, worker=2)
    logger().warning("hello")
    (line,) = lines(stream)
    assert json.loads(line)["worker"] == 2 if format == "json" else " w2 test: hello" in line


def test_lines_that_share_a_pipe_are_joined_as_long_as_it_keeps_them_whole() -> None:
    short, long = "x" * 999 + "\n", "y" * 5000 + "\n"
    joined = list(pieces([short] * 9 + [long, short]))
    assert "".join(joined) == short * 9 + long + short
    assert all(len(piece) <= WHOLE_BYTES or piece == long for piece in joined)
    assert len(joined) < 11


@pytest.mark.parametrize("worker", [None, 1])
def test_a_log_that_nobody_reads_any_more_stops_no_work(worker: int | None) -> None:
    read, write = os.pipe()
    with open(write, "w") as stream:
        set_up(Settings(), stream, worker=worker)
        os.close(read)
        logger().error("is anybody there?")
        tear_down()
        with suppress(BrokenPipeError):
            stream.close()
