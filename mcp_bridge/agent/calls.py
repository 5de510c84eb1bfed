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
from dataclasses import field, replace
from functools import cached_property

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
        mailbox = Mailbox()
        jobs = [Job(call, side, deadline, mailbox) for call in calls]
        if len(jobs) > self._parallel:
            turns = asyncio.Semaphore(self._parallel)
            work = [self._run_in_turn(job, turns) for job in jobs]
        else:
            begun = [(job, self._begun(job)) for job in jobs]
            work = [self._run(job, call) for job, call in begun if call is not None]
        mailbox.running = len(work)
        tasks = Tasks(work)
        try:
            while await mailbox.has_mail():
                while mailbox.told:
                    yield mailbox.told.popleft()
        finally:
            await tasks.end()

    async def _run_in_turn(self, job: "Job", turns: asyncio.Semaphore) -> None:
        async with turns:
            if (call := self._begun(job)) is not None:
                await self._run(job, call)
            else:
                job.mailbox.one_is_over()

    def _begun(self, job: "Job") -> ToolCall | None:
        """The call as it can be made, or None when it cannot, which the model hears."""
        call, side = job.call, job.side
        entry = side.view.find(call.name)
        if entry is None:
            job.fail(unknown(call.name, side.view))
            return None
        try:
            arguments = read(call.arguments, entry.tool)
        except BadArguments as exc:
            job.fail(f"Error: {exc}")
            return None
        except Exception as exc:  # boundary: a schema is anybody's
            job.fail_unexpectedly(exc)
            return None
        job.begin(arguments)
        answerer = job if side.answerer else None
        context = CallContext(side.caller, job.deadline, job.progress, answerer, side.meta)
        return ToolCall(side.caller, entry, arguments, call.id, side.door, context)

    async def _run(self, job: "Job", call: ToolCall) -> None:
        try:
            result = await self._runner.run(call)
            job.end(*self._shortened(readable(result, vision=job.side.vision), call))
        except SourceError as exc:
            why = Readable(f"Error: {explained(exc, call.entry)}", is_error=True)
            job.end(*self._shortened(why, call))
        except Exception as exc:  # boundary: a result is anybody's
            job.fail_unexpectedly(exc)
        finally:
            job.mailbox.one_is_over()

    def _cap_of(self, entry: Entry) -> int:
        server = entry.source.name
        own = self._caps.get((server, entry.tool.name))
        return self._caps.get((server, None), self._cap) if own is None else own

    def _shortened(self, whole: Readable, call: ToolCall) -> tuple[Readable, bool]:
        """What the model reads, and whether that is not all."""
        entry = call.entry
        cap = self._cap_of(entry) if self._caps else self._cap
        if not cap or len(whole.text) <= cap or entry.source is self._stored:
            return whole, False
        key = self._stored.keep(call.caller, whole.text, cap)

        def notice(offset: int) -> str:
            return (
                f"cut: this result has {len(whole.text)} characters, {cap} are shown. "
                f'{READ_MORE}id="{key}", offset={offset})'
            )

        return replace(whole, text=cut(whole.text, cap, notice)), True


Caps = dict[tuple[str, str | None], int]
"""Caps on results that differ from the general one, by (server, tool) and (server, None)."""


class Mailbox:
    """What calls that run tell the loop, in order, and how many of them still run."""

    def __init__(self) -> None:
        self.told: deque[Told] = deque()
        self.running = 0
        self._wake: asyncio.Future[None] | None = None

    def put(self, *told: Told) -> None:
        self.told.extend(told)
        self._ring()

    @property
    def is_full(self) -> bool:
        return len(self.told) >= MOST_UNHEARD

    def one_is_over(self) -> None:
        self.running -= 1
        if not self.running:
            self._ring()

    async def has_mail(self) -> bool:
        """Wait until something is told; False: all calls are over, and all of it was taken."""
        while self.running and not self.told:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return bool(self.told)

    def _ring(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)


class Job:
    """One call on its way: tells the loop how it goes, and has its server's questions answered."""

    def __init__(
        self, call: ModelCall, side: CallerSide, deadline: float, mailbox: Mailbox
    ) -> None:
        self.call = call
        self.side = side
        self.deadline = deadline
        self.mailbox = mailbox
        self.say = mailbox.put
        self._arguments: Json = {}
        self._began: float | None = None

    def begin(self, arguments: Json) -> None:
        self._arguments = arguments
        self._began = time.monotonic()
        self.say(ToolStarted(self.call.id, self.call.name, arguments))

    def progress(self, progress: float, total: float | None, message: str | None) -> None:
        if not self.mailbox.is_full:
            self.say(ToolProgress(self.call.id, self.call.name, progress, total, message))

    def end(self, found: Readable, was_cut: bool) -> None:
        call, now = self.call, time.monotonic()
        seconds = 0.0 if self._began is None else now - self._began
        self.say(
            ToolFinished(call.id, call.name, self._arguments, found.text, found.is_error, seconds),
            Outcome(call, found, was_cut),
        )

    def fail(self, why: str) -> None:
        """End it with an error that the model can read."""
        self.end(Readable(why, is_error=True), False)

    def fail_unexpectedly(self, exc: Exception) -> None:
        logger.error("the call of %s failed unexpectedly", self.call.name, exc_info=exc)
        self.fail(f"Error: it failed unexpectedly: {type(exc).__name__}.")

    # As the call's Answerer: the real one is made when it is asked, for few servers ask anything.

    @cached_property
    def _answerer(self) -> Answerer:
        assert self.side.answerer is not None  # noqa: S101  # without one nobody answers
        return self.side.answerer(self.say)

    def capabilities(self) -> Json:
        return self._answerer.capabilities()

    async def answer(self, source: str, method: str, params: Json) -> Json:
        return await self._answerer.answer(source, method, params)


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
