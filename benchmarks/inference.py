"""An inference server that is never the limit: its answers are bytes that were made beforehand.

    python -m benchmarks.inference --port 9099

The model's name says which answer: `text-20` and `text-200` (tokens; the second in few writes),
`one-call`, `four-calls`, `chain` (they call the echo tools that they are offered, and go on when
the results are in the request), `paced` (a chunk every 20 ms, each with the time it left) and
`idle` (one chunk, then silence). `mixed` calls a tool of the bridge's and one of the client's;
those that begin with `ill-` fail, each in its way. Each is streamed or whole, as the request says.
What a bridge must not get wrong is refused with a 400: tools that were not offered, results that
are missing.
"""

import argparse
import asyncio
import heapq
import itertools
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import httptools
import uvloop

from benchmarks.scenarios import (
    ECHOED,
    IDLE,
    ILL,
    LONG,
    MIXED,
    PACE_SECONDS,
    PACED,
    SILENT,
    TABLE,
    TOKEN,
    Scenario,
    echo_of,
)

GOLDEN = 0.618034
"""Parts of a circle that are this much apart are spread evenly, however many there are."""

BURST_PIECE = 50
"""Chunks in one write of a burst."""

USAGE = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
ARGUMENTS = ('{"te', 'xt": "hel', "lo from ", 'the model"}')
DONE = b"data: [DONE]\n\n"
MODEL = re.compile(rb'"model":\s*"([^"]*)"')
HEADERS = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nx-request-id: bench\r\n%b\r\n\r\n"
STREAM = HEADERS % (b"text/event-stream", b"transfer-encoding: chunked")
END = b"0\r\n\r\n"

Calls = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as it goes out: its writes, one each time the loop comes round."""

    writes: tuple[bytes, ...]
    tools: tuple[str, ...] = ()
    """What must be offered for this answer to make sense."""


class Answers:
    """Every answer that is known: by model, whether it is streamed, and the results so far."""

    def __init__(self) -> None:
        self._made: dict[tuple[bytes, bool, bool, int], Written] = {}
        for scenario in (*TABLE, MIXED, LONG):
            done = 0
            for calls in scenario.calls:
                self._add(scenario, done, calls)
                done += len(calls)
            self._add(scenario, done, ())

    def _add(self, scenario: Scenario, results: int, calls: Calls) -> None:
        model = scenario.model.encode()
        tools = tuple({echo_of(server) for server in calls})
        for usage in (False, True):
            key = (model, True, usage, results)
            self._made[key] = Written(_streamed(scenario, calls, results, usage), tools)
            whole = Written((_whole(scenario, calls, results),), tools)
            self._made[model, False, usage, results] = whole

    def find(self, model: bytes, body: bytes) -> Written:
        """The answer to a request."""
        streamed = _says(body, b"stream", b"true")
        usage = streamed and _says(body, b"include_usage", b"true")
        results = body.count(b'"tool_call_id"')
        found = self._made.get((model, streamed, usage, results))
        if found is None:
            return _refused(f"no answer for model {model.decode()} after {results} results")
        if body.count(ECHOED.encode()) < results:
            return _refused("a tool's result is not what the tool said")
        for tool in found.tools:
            if b'"%b"' % tool.encode() not in body:
                return self._renamed(found, body)
        return found

    def _renamed(self, answer: Written, body: bytes) -> Written:
        """The same answer for a bridge that gives the tools names of its own."""
        writes = answer.writes
        for tool in answer.tools:
            name = tool.encode()
            offered = re.search(rb'"name":\s*"([^"]*%b[^"]*)"' % name, body)
            if offered is None:
                return _refused(f"the tool {tool} was not offered")
            writes = tuple(_chunks_renamed(write, name, offered[1]) for write in writes)
        return Written(writes)


def _says(body: bytes, key: bytes, value: bytes) -> bool:
    return b'"%b":%b' % (key, value) in body or b'"%b": %b' % (key, value) in body


def _chunks_renamed(write: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a name, and correct the lengths that HTTP has in front."""
    head, between, rest = (
        write.partition(b"\r\n\r\n") if write[:4] == b"HTTP" else (b"", b"", write)
    )
    if b"content-length" in head:
        rest = rest.replace(b'"%b"' % old, b'"%b"' % new)
        head = re.sub(rb"content-length: \d+", b"content-length: %d" % len(rest), head)
        return head + between + rest
    renamed = b""
    while rest:
        size, _, after = rest.partition(b"\r\n")
        piece, rest = after[: int(size, 16)], after[int(size, 16) + 2 :]
        renamed += _chunk(piece.replace(b'"%b"' % old, b'"%b"' % new))
    return head + between + renamed


# What is said


def _delta(delta: dict[str, Any], finish: str | None = None) -> bytes:
    chunk = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _usage() -> bytes:
    chunk = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000}
    chunk |= {"model": "bench", "choices": [], "usage": USAGE}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    """A chunk of HTTP."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _call(server: str, position: int, results: int) -> dict[str, Any]:
    arguments = "".join(ARGUMENTS)
    function = {"name": echo_of(server), "arguments": arguments}
    return {"id": f"call_{results + position}", "type": "function", "function": function}


def _call_events(server: str, position: int, results: int) -> list[bytes]:
    call = _call(server, position, results)
    first = {**call, "index": position, "function": {**call["function"], "arguments": ""}}
    events = [_delta({"tool_calls": [first]})]
    for piece in ARGUMENTS:
        more = {"index": position, "function": {"arguments": piece}}
        events.append(_delta({"tool_calls": [more]}))
    return events


def _streamed(scenario: Scenario, calls: Calls, results: int, usage: bool) -> tuple[bytes, ...]:
    events = [_delta({"role": "assistant", "content": None if calls else ""})]
    for position, server in enumerate(calls):
        events += _call_events(server, position, results)
    if not calls:
        events += [_delta({"content": TOKEN})] * scenario.tokens
    events.append(_delta({}, "tool_calls" if calls else "stop"))
    if usage:
        events.append(_usage())
    events.append(DONE)
    together = BURST_PIECE if scenario.tokens > 100 else 1
    pieces = [
        b"".join(map(_chunk, events[at : at + together])) for at in range(0, len(events), together)
    ]
    pieces[0] = STREAM + pieces[0]
    pieces[-1] += END
    return tuple(pieces)


def _whole(scenario: Scenario, calls: Calls, results: int) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": TOKEN * scenario.tokens}
    if calls:
        made = [_call(server, n, results) for n, server in enumerate(calls)]
        message = {"role": "assistant", "content": None, "tool_calls": made}
    choice = {"index": 0, "message": message, "logprobs": None}
    choice["finish_reason"] = "tool_calls" if calls else "stop"
    completion = {"id": "chatcmpl-bench", "object": "chat.completion", "created": 1_700_000_000}
    completion |= {"model": "bench", "choices": [choice], "usage": USAGE}
    return _json(completion)


def _json(value: Any, status: bytes = b"200 OK") -> bytes:
    body = json.dumps(value).encode()
    length = b"content-length: %d" % len(body)
    return (HEADERS % (b"application/json", length)).replace(b"200 OK", status) + body


def _refused(message: str) -> Written:
    return Written((_json({"error": {"message": message}}, b"400 Bad Request"),))


def _models() -> bytes:
    names = dict.fromkeys(scenario.model for scenario in (*TABLE, PACED, IDLE, MIXED, LONG))
    names |= dict.fromkeys((*ILL, SILENT))
    return _json({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


def _failures() -> dict[bytes, tuple[bytes, bool]]:
    """What models that are ill write, and whether they hang up then."""
    begun = STREAM + _chunk(_delta({"content": TOKEN})) * 5
    broken = {"error": {"message": "the model is broken", "type": "server_error"}}
    busy = {"error": {"message": "too many requests", "type": "rate_limit_error"}}
    page = HEADERS % (b"application/json", b"content-length: 10") + b"<html>502<"
    return {
        b"ill-cut": (begun, True),
        b"ill-500": (_json(broken, b"500 Internal Server Error"), False),
        b"ill-429": (_json(busy, b"429 Too Many Requests"), False),
        b"ill-garbage": (page, False),
        b"ill-nothing": (b"", True),
        SILENT.encode(): (b"", False),
    }


FAILURES = _failures()


# HTTP


class Pacer:
    """Calls at exact times, and spreads streams evenly over the time between two chunks.

    The timers of the event loop are whole milliseconds: the chunks of several streams would come at
    once, and the later ones would wait for the earlier.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._streams = itertools.count()

    def start(self) -> float:
        """When the next stream begins: now, and a part of the pace later than the others."""
        number = next(self._streams)
        if number == 0:
            threading.Thread(target=self._run, daemon=True).start()
        return time.monotonic() + PACE_SECONDS * (number * GOLDEN % 1)

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (when, next(self._numbers), call))
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, call = heapq.heappop(self._due)
                self._loop.call_soon_threadsafe(call)


class Connection(asyncio.Protocol):
    """One connection of a client."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, answers: Answers, models: bytes, pacer: Pacer
    ) -> None:
        self._loop = loop
        self._answers = answers
        self._models = models
        self._pacer = pacer
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body: list[bytes] = []
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._body)
        self._body.clear()
        if not self._url.partition(b"?")[0].endswith(b"/chat/completions"):
            self._transport.write(self._models)
            return
        found = MODEL.search(body)
        model = found[1] if found else b""
        if model == PACED.model.encode():
            self._paced(self._pacer.start(), PACED.tokens)
        elif model == IDLE.model.encode():
            self._transport.write(STREAM + _chunk(_delta({"content": TOKEN})))
        elif model in FAILURES:
            self._fail(*FAILURES[model])
        else:
            self._write(self._answers.find(model, body).writes, 0)

    def _write(self, writes: tuple[bytes, ...], at: int) -> None:
        self._transport.write(writes[at])
        if at + 1 < len(writes):
            self._loop.call_soon(self._write, writes, at + 1)

    def _fail(self, data: bytes, hang_up: bool) -> None:
        self._transport.write(data)
        if hang_up:
            self._transport.close()

    def _paced(self, due: float, left: int) -> None:
        """Say how late it is, again and again."""
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(_chunk(_delta({}, "stop") + DONE) + END)
            return
        piece = _chunk(_delta({"content": f"{TOKEN}{time.monotonic_ns()};"}))
        self._transport.write(STREAM + piece if left == PACED.tokens else piece)
        due += PACE_SECONDS
        self._pacer.call_at(due, lambda: self._paced(due, left - 1))


async def serve(port: int, host: str = "127.0.0.1") -> asyncio.Server:
    """Listen; the caller closes it."""
    loop = asyncio.get_running_loop()
    answers, models, pacer = Answers(), _models(), Pacer(loop)
    return await loop.create_server(
        lambda: Connection(loop, answers, models, pacer), host, port, backlog=4096
    )


async def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.inference", description=__doc__)
    parser.add_argument("--port", type=int, default=9099)
    server = await serve(parser.parse_args().port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
