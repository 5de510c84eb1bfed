"""The load: users that ask one question after the other, each on a connection of its own.

    python -m benchmarks.load

A process that reads plans as lines of JSON and writes what it measured as lines of JSON. Raw
sockets, for it shares its core with the inference server and must never be the limit. Each answer
is checked: by counting, and the first one of each user word by word.
"""

import asyncio
import json
import math
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import anyio
import httptools
import uvloop
from anyio.abc import TaskGroup

from benchmarks.scenarios import PACE_SECONDS, TOKEN

STAMP = re.compile(TOKEN.encode() + rb"(\d+);")
USER = b"@user@"
"""Stands in a body for the number of the user."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send and how often.

    `tokens`: a chat answer with so many; `contains`: any answer with this text. `hold`: open a
    stream for each user and keep it until the next line is read.
    """

    host: str
    port: int
    path: str
    headers: dict[str, str]
    body: str
    users: int
    count: int
    stream: bool = False
    tokens: int | None = None
    contains: str | None = None
    stamped: bool = False
    hold: bool = False
    patience: float = 30.0
    """Seconds after which it ends, whatever has happened."""

    @property
    def request(self) -> bytes:
        body = self.body.encode()
        lines = [f"POST {self.path} HTTP/1.1", f"host: {self.host}:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += ["content-type: application/json"]
        return "\r\n".join(lines).encode() + b"\r\ncontent-length: @length@\r\n\r\n" + body

    def request_of(self, user: int) -> bytes:
        """The request of one user, with its length right."""
        head, _, body = self.request.partition(b"\r\n\r\n")
        body = body.replace(USER, str(user).encode())
        return head.replace(b"@length@", str(len(body)).encode()) + b"\r\n\r\n" + body


@dataclass(slots=True)
class Spread:
    """How a measured time spreads, in milliseconds."""

    p50: float = math.nan
    p99: float = math.nan
    longest: float = math.nan

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Spread":
        if not seconds:
            return cls()
        ordered = sorted(seconds)
        at = (len(ordered) // 2, min(len(ordered) - 1, int(len(ordered) * 0.99)), -1)
        return cls(*(ordered[n] * 1000 for n in at))


@dataclass(slots=True)
class Measured:
    """What came of a plan."""

    answers: int = 0
    errors: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    latency: Spread = field(default_factory=Spread)
    first: Spread = field(default_factory=Spread)
    """Until the first chunk with text."""
    delay: Spread = field(default_factory=Spread)
    """From when a chunk left the inference server until it was here."""
    chunks: int = 0

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds if self.seconds else math.nan


def problem_of(body: bytes, plan: Plan, *, closely: bool) -> str | None:
    """What is wrong with an answer, or None."""
    if plan.contains is not None:
        return None if plan.contains.encode() in body else "not the answer that was expected"
    if plan.stream and not body.rstrip().endswith(b"data: [DONE]"):
        return "the stream has no [DONE] at its end"
    if b'"error":' in body:
        return "an error"
    if plan.tokens is not None and body.count(TOKEN.encode()) != plan.tokens:
        return f"{body.count(TOKEN.encode())} words instead of {plan.tokens}"
    return _read_closely(body, plan) if closely else None


def _read_closely(body: bytes, plan: Plan) -> str | None:
    try:
        text, finish = text_of(body, plan.stream)
    except (ValueError, KeyError, IndexError, TypeError) as exc:
        return f"not a completion: {exc!r}"
    if finish != ["stop"]:
        return f"its finish reasons are {finish}"
    if plan.tokens is not None and not plan.stamped and text != TOKEN * plan.tokens:
        return "its text is another"
    return None


def text_of(body: bytes, stream: bool) -> tuple[str, list[str]]:
    """The text of an answer and its finish reasons."""
    if not stream:
        choice = json.loads(body)["choices"][0]
        return choice["message"]["content"], [choice["finish_reason"]]
    text, finish = "", []
    for line in body.splitlines():
        if not line.startswith(b"data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            text += choice["delta"].get("content") or ""
            if choice.get("finish_reason"):
                finish.append(choice["finish_reason"])
    return text, finish


class Run:
    """A plan that is under way."""

    def __init__(self, plan: Plan, tasks: TaskGroup) -> None:
        self.plan = plan
        self.tasks = tasks
        self.left = plan.count
        self.users = plan.users
        self.measured = Measured()
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.delays: list[float] = []
        self.over = asyncio.Event()
        self.first_seen = 0

    def result(self, seconds: float) -> Measured:
        measured = self.measured
        measured.seconds = seconds
        measured.latency = Spread.of(self.latencies)
        measured.first = Spread.of(self.firsts)
        measured.delay = Spread.of(self.delays)
        measured.chunks = len(self.delays)
        return measured

    def seen(self) -> None:
        """A stream that is held has begun."""
        self.first_seen += 1
        if self.plan.hold and self.first_seen == self.plan.users:
            self.over.set()

    def wrong(self, problem: str) -> None:
        self.measured.errors += 1
        if len(self.measured.problems) < 3:
            self.measured.problems.append(problem)

    def leave(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.over.set()


class User(asyncio.Protocol):
    """Asks, reads, checks, and asks again; connects again when the server has hung up."""

    def __init__(self, run: Run, number: int) -> None:
        self._run = run
        self._request = run.plan.request_of(number)
        self._closely = True
        self._asking = False
        self._gone = False
        self._began = 0.0
        self._first = 0.0
        self._body: list[bytes] = []
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        plan = self._run.plan
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, plan.host, plan.port)
        except OSError as exc:
            self._run.wrong(f"no connection: {exc}")
            self._leave()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._parser = httptools.HttpResponseParser(self)
        self._ask()

    def close(self) -> None:
        self._gone = True
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        self._gone = True
        self._run.leave()

    def _ask(self) -> None:
        assert self._transport is not None
        if self._run.left <= 0:
            self._leave()
            self._transport.close()
            return
        if self._transport.is_closing():
            return  # connection_lost connects again
        self._run.left -= 1
        self._asking = True
        self._first = 0.0
        self._body.clear()
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._run.wrong(f"not HTTP: {exc!r}")
            self._asking = False
            self._transport.abort()

    def on_body(self, data: bytes) -> None:
        self._body.append(data)
        if not self._first and TOKEN.encode() in data:
            self._first = time.perf_counter()
            self._run.seen()
        if self._run.plan.stamped:
            now = time.monotonic_ns()
            self._run.delays += [(now - int(stamp)) / 1e9 for stamp in STAMP.findall(data)]

    def on_message_complete(self) -> None:
        run, ended, body = self._run, time.perf_counter(), b"".join(self._body)
        self._asking = False
        problem = problem_of(body, run.plan, closely=self._closely)
        if self._parser.get_status_code() != 200:
            problem = f"status {self._parser.get_status_code()}: {body[:200].decode('latin-1')}"
        if problem is None:
            run.measured.answers += 1
            run.latencies.append(ended - self._began)
            if self._first:
                run.firsts.append(self._first - self._began)
        else:
            run.wrong(problem)
        self._closely = False
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone:
            return
        if self._asking:
            self._asking = False
            self._run.wrong("the connection was closed in the middle of an answer")
        self._run.tasks.start_soon(self.connect)


Hold = Callable[[Measured], Awaitable[object]]


async def carry_out(plan: Plan, hold: Hold | None = None) -> Measured:
    """Do what a plan says. `hold` is told when all streams have begun; they end when it returns."""
    async with anyio.create_task_group() as tasks:
        run = Run(plan, tasks)
        users = [User(run, number) for number in range(plan.users)]
        began = time.perf_counter()
        for user in users:
            await user.connect()
            if plan.stamped:
                await anyio.sleep(PACE_SECONDS / plan.users)
        with anyio.move_on_after(plan.patience) as patience:
            await run.over.wait()
        if patience.cancelled_caught:
            run.wrong(f"not over after {plan.patience:g} s")
        measured = run.result(time.perf_counter() - began)
        if hold is not None:
            await hold(measured)
        for user in users:
            user.close()
    return measured


def say(measured: Measured) -> None:
    print(json.dumps(asdict(measured)), flush=True)


async def main() -> None:
    """Carry out plans, one by one, until there are no more."""
    lines = anyio.wrap_file(sys.stdin)

    async def until_the_next_line(measured: Measured) -> None:
        say(measured)
        await lines.readline()

    while line := await lines.readline():
        plan = Plan(**json.loads(line))
        if plan.hold:
            await carry_out(plan, until_the_next_line)
        else:
            say(await carry_out(plan))


if __name__ == "__main__":
    uvloop.run(main())
