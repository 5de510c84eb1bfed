"""One round's tool calls, run side by side (L4).

Each call is a task; what happens is put into a Mailbox, so the loop can pass it on while they run.
A failure is a result for the model and never touches its siblings. Anything more around a call (a
scope, a stream, a timeout of its own) would cost as much as the call itself (docs/performance.md).
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import field, replace

from mcp_bridge.agent.convert import Readable, cut, readable
from mcp_bridge.agent.elicitation import Put, Question
from mcp_bridge.agent.events import ToolFinished, ToolProgress, ToolStarted
from mcp_bridge.errors import (
    OutcomeUnknown,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.exact import text_of
from mcp_bridge.inference.answer import ModelCall
from mcp_bridge.tasks import Tasks
from mcp_bridge.tools.arguments import BadArguments, read
from mcp_bridge.tools.catalog import MAX_NAME, Entry, View
from mcp_bridge.tools.runner import ToolCall, ToolRunner
from mcp_bridge.tools.source import Answerer, CallContext
from mcp_bridge.tools.stored import StoredResults
from mcp_bridge.types import Caller, Json, frozen

logger = logging.getLogger(__name__)

ToolEvent = ToolStarted | ToolProgress | ToolFinished
MOST_NAMES = 40
MOST_UNHEARD = 1000
"""Events that may wait for a client that does not read; more progress than that is left out."""

READ_MORE = "Read the rest with read_tool_result("
MakeAnswerer = Callable[[Put], Answerer]
"""Makes the answerer of one call; what it gets takes a question for the user to the loop."""


@frozen
class CallerSide:
    """Whose calls these are, and what surrounds them."""

    caller: Caller
    view: View
    door: str
    vision: bool
    answerer: MakeAnswerer | None = None
    meta: Json = field(default_factory=dict)

    def seeing(self, view: View) -> "CallerSide":
        return replace(self, view=view)


@frozen
class Outcome:
    """How a call ended, in the model's eyes."""

    call: ModelCall
    readable: Readable
    cut: bool = False

    @classmethod
    def refused(cls, call: ModelCall, why: str) -> "Outcome":
        """The answer to a call that was not run."""
        return cls(call, Readable(f"Error: this call was not run: {why}.", is_error=True))


Told = ToolEvent | Outcome | Question
"""What happens while calls run."""


class CallRunner:
    """Runs the calls of a round through the ToolRunner and makes their results readable."""

    def __init__(
        self, runner: ToolRunner, stored: StoredResults, *, cap: int, caps: "Caps", parallel: int
    ) -> None:
        self._runner = runner
        self._stored = stored
        self._cap = cap
        self._caps = caps
        self._parallel = parallel

    async def run(
        self, calls: Sequence[ModelCall], side: CallerSide, seconds: float
    ) -> AsyncGenerator[Told]:
        """Yield what happens, and one Outcome for every call. Closing it cancels the calls."""
        deadline = time.monotonic() + seconds
        crowded = len(calls) > self._parallel
        turns: Turns = asyncio.Semaphore(self._parallel) if crowded else nullcontext()
        mailbox = Mailbox(len(calls))
        jobs = [Job(call, side, deadline, mailbox) for call in calls]
        tasks = Tasks(self._run_one(job, turns) for job in jobs)
        try:
            while (event := await mailbox.next()) is not None:
                yield event
        finally:
            await tasks.end()

    async def _run_one(self, job: "Job", turns: "Turns") -> None:
        try:
            async with turns:
                await self._answer(job)
        except Exception as exc:  # boundary: schemas and results are anybody's
            logger.exception("the call of %s failed unexpectedly", job.call.name)
            job.end(
                Readable(f"Error: it failed unexpectedly: {type(exc).__name__}.", is_error=True)
            )
        finally:
            job.mailbox.one_is_over()

    async def _answer(self, job: "Job") -> None:
        call, side = job.call, job.side
        entry = side.view.find(call.name)
        if entry is None:
            job.end(Readable(unknown(call.name, side.view), is_error=True))
            return
        try:
            arguments = read(call.arguments, entry.tool.input_schema)
        except BadArguments as exc:
            job.end(Readable(f"Error: {exc}", is_error=True))
            return
        job.begin(arguments)
        found, was_cut = await self._call(entry, arguments, job)
        job.end(found, arguments, was_cut=was_cut)

    async def _call(self, entry: Entry, arguments: Json, job: "Job") -> tuple[Readable, bool]:
        side = job.side
        context = CallContext(
            caller=side.caller,
            deadline=job.deadline,
            on_progress=job.progress,
            answerer=side.answerer(job.say) if side.answerer else None,
            meta=side.meta,
        )
        call = ToolCall(side.caller, entry, arguments, job.call.id, side.door, context)
        try:
            found = readable(await self._runner.run(call), vision=side.vision)
        except SourceError as exc:
            found = Readable(f"Error: {explained(exc, entry)}", is_error=True)
        return self._shortened(found, entry, side.caller)

    def _shortened(self, whole: Readable, entry: Entry, caller: Caller) -> tuple[Readable, bool]:
        cap = self._caps.get((entry.source.name, entry.tool.name))
        cap = self._caps.get((entry.source.name, None), self._cap) if cap is None else cap
        if not cap or len(whole.text) <= cap or entry.source is self._stored:
            return whole, False
        key = self._stored.keep(caller, whole.text, cap)

        def notice(offset: int) -> str:
            return (
                f"cut: this result has {len(whole.text)} characters, {cap} are shown. "
                f'{READ_MORE}id="{key}", offset={offset})'
            )

        return replace(whole, text=cut(whole.text, cap, notice)), True


Turns = AbstractAsyncContextManager[None]
"""What a call holds while it runs."""

Caps = dict[tuple[str, str | None], int]
"""Caps on results that differ from the general one, by (server, tool) and (server, None)."""


class Mailbox:
    """What calls that run tell the loop, in order, and how many of them still run."""

    def __init__(self, running: int) -> None:
        self._running = running
        self._told: deque[Told] = deque()
        self._wake: asyncio.Future[None] | None = None

    def put(self, event: Told) -> None:
        self._told.append(event)
        self._ring()

    @property
    def is_full(self) -> bool:
        return len(self._told) >= MOST_UNHEARD

    def one_is_over(self) -> None:
        self._running -= 1
        self._ring()

    async def next(self) -> Told | None:
        """What was told next; None when all calls are over."""
        while not self._told:
            if not self._running:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._told.popleft()

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class Job:
    """One call on its way: tells the loop how it goes."""

    def __init__(
        self, call: ModelCall, side: CallerSide, deadline: float, mailbox: Mailbox
    ) -> None:
        self.call = call
        self.side = side
        self.deadline = deadline
        self.mailbox = mailbox
        self.say = mailbox.put
        self._began = time.monotonic()

    def begin(self, arguments: Json) -> None:
        self._began = time.monotonic()
        self.say(ToolStarted(self.call.id, self.call.name, arguments))

    def progress(self, progress: float, total: float | None, message: str | None) -> None:
        if not self.mailbox.is_full:
            self.say(ToolProgress(self.call.id, self.call.name, progress, total, message))

    def end(self, found: Readable, arguments: Json | None = None, *, was_cut: bool = False) -> None:
        seconds = time.monotonic() - self._began
        id, name = self.call.id, self.call.name
        self.say(ToolFinished(id, name, arguments or {}, found.text, found.is_error, seconds))
        self.say(Outcome(self.call, found, was_cut))


def unknown(name: str, view: View) -> str:
    """What a model reads that called a tool which is not there, or not for this caller (L7)."""
    there_is_none = f"Error: there is no tool {name[: 2 * MAX_NAME]!r}."
    close = view.close_matches(name)
    if close:
        return f"{there_is_none} Did you mean {', '.join(close)}?"
    names = list(view.by_name)
    shown = ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")
    return f"{there_is_none} There are: {shown or 'no tools'}."


def explained(exc: SourceError, entry: Entry) -> str:
    """What a model should know and do about a source that could not answer."""
    said = exc.message if exc.message.endswith((".", "!", "?")) else f"{exc.message}."
    match exc:
        case OutcomeUnknown():
            return (
                f"{said} The outcome is unknown: the call may have taken effect. "
                "Check before you repeat it."
            )
        case SourceTimeout() if not entry.tool.repeatable:
            return f"{said} It may have taken effect nevertheless."
        case SourceUnavailable():
            return f"{said} Nothing was done. Go on without this tool."
        case SourceRefused():
            data = f": {text_of(exc.data)}" if exc.data is not None else ""
            return f"{exc.message} (error {exc.rpc_code}){data}"
        case _:
            return said
