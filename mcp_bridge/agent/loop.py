"""The one loop: every conversation, from every door, streamed or not.

Theory of operation. A conversation is rounds. In each, the model is asked with the client's tools
and ours together; what it says is passed on as it comes. When it has called tools, ours are run at
once, side by side, their messages are appended, and the next round begins. The loop ends when the
model calls nothing, when it calls a tool of the client's (which is handed back; our half of such a
mixed turn is run and kept until the follow-up request), when its answer was cut inside a call, or
when a bound is reached: then one last round with `tool_choice: "none"` lets it sum up.

The loop yields events and never asks whether the answer is streamed: `inference` yields parts only
for a streamed question, the Reply makes chunks only when somebody watches, and a door has Finished
make what it writes. Closing the generator stops the question and the calls that are running.
"""

import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

from mcp_bridge.agent.calls import READ_MORE, CallerSide, CallRunner, MakeAnswerer, Outcome
from mcp_bridge.agent.context import opened
from mcp_bridge.agent.conversation import (
    Ask,
    Conversation,
    assistant_message,
    images_message,
    tool_message,
)
from mcp_bridge.agent.elicitation import (
    Elicitor,
    Put,
    Question,
    Unclear,
    question_text,
    read_answer,
    text_of,
)
from mcp_bridge.agent.events import Asked, Delta, Event, Finished, Started
from mcp_bridge.agent.memory import HiddenTurn, TurnMemory
from mcp_bridge.agent.progress import Display
from mcp_bridge.agent.quarantine import Quarantine, may_be_a_tool, probe, takes_no_tools
from mcp_bridge.agent.record import ConversationRecord, log_conversation
from mcp_bridge.agent.reply import Reply, summed
from mcp_bridge.agent.sampling import Answerers
from mcp_bridge.config.settings import Limits
from mcp_bridge.errors import BridgeError, InferenceError
from mcp_bridge.inference.answer import Answer, ModelCall, Opened, Part
from mcp_bridge.inference.client import Inference
from mcp_bridge.tools.catalog import Entry
from mcp_bridge.tools.source import Answerer
from mcp_bridge.tools.stored import StoredResults
from mcp_bridge.types import Json

MOST_ASKS = 2
"""How often the user is asked the same; then the server hears that nobody answered."""

GAVE_UP = {
    "max_rounds": "I stopped: the limit of rounds with tool calls was reached.",
    "max_calls": "I stopped: the limit of tool calls was reached.",
    "max_seconds": "I stopped: the time for this request was used up.",
    "max_tokens": "I stopped: the token budget of this request was used up.",
    "max_same_failures": "I stopped: the same tool call failed again and again.",
}

NONE: frozenset[str] = frozenset()
Parts = AsyncGenerator[Opened | Part | Answer]


@dataclass(slots=True)
class Turn:
    """One request on its way through the loop."""

    talk: Conversation
    reply: Reply
    began: float = field(default_factory=time.monotonic)
    finish_reason: str | None = None
    finished: bool = False
    tools_ran: int = 0
    started: bool = False
    answer: Answer | None = None
    extension: Json = field(default_factory=dict)
    last_words: tuple[Json, ...] = ()
    spent: Json | None = None

    @property
    def usage(self) -> Json | None:
        """Of all requests that the conversation has gone through."""
        return summed(self.spent, self.reply.usage)

    def last_chunks(self, finish_reason: str) -> tuple[Json, ...]:
        """How its stream ends."""
        usage = self.talk.ask.wants_usage
        last = self.reply.last_chunks(finish_reason, self.extension, usage=usage)
        return (*self.last_words, *last)

    def shown(self, chunks: Sequence[Json]) -> Delta:
        """Chunks of our own, as part of the answer."""
        return Delta(tuple(self.reply.dress(chunk) for chunk in chunks))

    def go_on(self, ask: Ask) -> None:
        """The user's next message is here: from now on another request is answered."""
        self.spent = self.usage
        self.talk.ask = ask
        self.reply = reply_to(self.talk)
        self.started = False


class Agent:
    """Runs conversations."""

    def __init__(
        self,
        inference: Inference,
        calls: CallRunner,
        answerers: Answerers,
        stored: StoredResults,
        memory: TurnMemory,
        *,
        limits: Limits,
        restore_history: bool = False,
        record: Callable[[ConversationRecord], None] = log_conversation,
    ) -> None:
        self._inference = inference
        self._calls = calls
        self._answerers = answerers
        self._reader = Entry(stored.tools[0].name, stored.tools[0], stored)
        self._memory = memory
        self._quarantine = Quarantine()
        self._limits = limits
        self._restore_history = restore_history
        self._record = record

    async def run(self, ask: Ask) -> AsyncGenerator[Event]:
        """Answer `ask`.

        Raises:
            InferenceError: the inference server failed; `retryable` is False once a tool has run.
        """
        turn = self._begin(ask)
        outcome = "cancelled"
        try:
            while not turn.finished:
                opened, parts = await self._question(turn)
                async with aclosing(parts):
                    if not turn.started:
                        turn.started = True
                        yield Started(opened.headers)
                    async for part in parts:
                        if isinstance(part, Answer):
                            turn.answer = part
                        elif isinstance(part, Part):
                            yield Delta(turn.reply.chunks(part))
                            if time.monotonic() > turn.talk.bounds.late_at:
                                self._cut(turn)
                                break
                if turn.finished:
                    break
                calls, chunks = self._heard(turn)
                if chunks:
                    yield Delta(chunks)
                if calls:
                    async with aclosing(self._run_calls(turn, calls)) as events:
                        async for event in events:
                            yield event
            outcome = turn.finish_reason or "stop"
            yield self._end(turn)
        except BridgeError as exc:
            outcome = "error"
            if turn.tools_ran:
                exc.retryable = False  # an SDK would run the whole turn again (DESIGN 3.13)
            raise
        finally:
            self._record(record_of(turn, outcome))

    def _begin(self, ask: Ask) -> Turn:
        restored = self._memory.restore(ask.caller, ask.body["messages"])
        messages = opened(restored, ask.opening)
        talk = Conversation(ask, messages, self._limits)
        if ask.view.entries and any(map(was_cut, messages)):
            talk.offer(self._reader)
        return Turn(talk, reply_to(talk))

    def _side(self, talk: Conversation) -> CallerSide:
        """Whose the calls of a round are."""
        ask = talk.ask
        vision = self._inference.sees_images(ask.model)
        answerer = self._answerer_for(ask)
        return CallerSide(ask.caller, talk.view, ask.door, vision, answerer, ask.meta)

    def _answerer_for(self, ask: Ask) -> MakeAnswerer:
        def make(put: Put) -> Answerer:
            own = Elicitor(put) if ask.elicits else ask.answerer
            return self._answerers.for_call(ask.model, own, ask.depth)

        return make

    def _cut(self, turn: Turn) -> None:
        """The time is up and the model goes on and on: what it has said must do (L8)."""
        turn.talk.bounds.stopped = "max_seconds"
        turn.extension = extension(turn)
        turn.finished, turn.finish_reason, turn.answer = True, "length", None

    def _heard(self, turn: Turn) -> tuple[list[ModelCall], tuple[Json, ...]]:
        """The calls of a round that has been answered, and the chunks that nobody was shown yet."""
        answer, talk = turn.answer, turn.talk
        assert answer is not None  # noqa: S101  # inference ends every question with one Answer
        talk.bounds.rounds += 1
        chunks = turn.reply.take(answer)
        calls = talk.adopt(answer)
        handed = [call for call in calls if call.name in talk.client_names]
        if not self._decide(turn, answer, calls, handed):
            return [], chunks
        return calls, (*chunks, *turn.reply.hand_out(handed))

    def _decide(
        self, turn: Turn, answer: Answer, calls: list[ModelCall], handed: list[ModelCall]
    ) -> bool:
        """Whether there are calls to see to; settles whether this round is the last."""
        stopped = turn.talk.bounds.stopped
        if stopped:
            turn.extension = extension(turn)
        if stopped and calls and not handed:
            self._give_up(turn, stopped)
            return False
        if calls and not handed and not any(call.complete for call in calls):
            turn.finished, turn.finish_reason = True, "length"
            return False
        if handed or not calls:
            turn.finished, turn.finish_reason = True, reason(answer, handed)
        return bool(calls)

    def _give_up(self, turn: Turn, why: str) -> None:
        """The last round called tools nevertheless: a defined end (L8)."""
        turn.finished, turn.finish_reason = True, "length"
        if not turn.reply.message.get("content"):
            turn.reply.message["content"] = GAVE_UP[why]
            turn.last_words = (turn.reply.say({"content": GAVE_UP[why]}),)

    # The question

    async def _question(self, turn: Turn) -> tuple[Opened, Parts]:
        """Ask the model; when a tool's schema is to blame for a refusal, ask again without it."""
        try:
            return await self._ask(turn)
        except InferenceError as exc:
            if not await self._blame_a_tool(turn, exc):
                raise
        return await self._ask(turn)

    async def _ask(self, turn: Turn) -> tuple[Opened, Parts]:
        ask, view = turn.talk.ask, turn.talk.view
        model = ask.model
        profile = self._inference.profile(model)
        without = NONE
        if self._quarantine.knows(model):
            without = self._quarantine.names(model, view.definitions(profile))
        names: Collection[str] = ()
        if self._inference.parses_text_calls(model):
            names = (view.by_name.keys() - without) | turn.talk.client_names
        parts = await self._inference.chat(
            turn.talk.body(profile, without),
            headers=ask.headers,
            text_calls_for=names,
            shown=turn.talk.client_names,
        )
        opened = await anext(parts)
        assert isinstance(opened, Opened)  # noqa: S101  # inference begins every answer with one
        return opened, parts

    async def _blame_a_tool(self, turn: Turn, exc: InferenceError) -> bool:
        ask = turn.talk.ask
        profile = self._inference.profile(ask.model)
        tools = turn.talk.view.definitions(profile)
        if tools and takes_no_tools(exc) and not turn.talk.client_tools:
            self._quarantine.no_tools(ask.model)
            return True
        refused = self._quarantine.names(ask.model, tools)
        left = [tool for tool in tools if tool["function"]["name"] not in refused]
        # Once an answer has begun, the server has taken the tools: something else went wrong.
        if turn.started or turn.talk.bounds.rounds or not left or not may_be_a_tool(exc):
            return False

        async def accepts(some: Sequence[Json]) -> bool:
            refusal = await self._inference.refusal(probe(ask.body, some), ask.headers)
            return refusal is None or not may_be_a_tool(refusal)

        return await self._quarantine.find(ask.model, left, accepts)

    # The calls

    async def _run_calls(self, turn: Turn, calls: list[ModelCall]) -> AsyncGenerator[Event]:
        """Run our calls, append their messages, and show them to those who asked to see."""
        talk = turn.talk
        ours = [call for call in calls if call.name not in talk.client_names]
        allowed, refused = self._within_bounds(turn, ours)
        outcomes = {outcome.call.id: outcome for outcome in refused}
        turn.tools_ran += len(allowed)
        seconds = talk.bounds.seconds_left()
        display = Display(talk.ask.progress, mixed=turn.finished)
        async with aclosing(self._calls.run(allowed, self._side(talk), seconds)) as events:
            async for event in events:
                if isinstance(event, Outcome):
                    outcomes[event.call.id] = event
                    continue
                if isinstance(event, Question):
                    async with aclosing(self._ask_the_user(turn, event, display)) as told:
                        async for one in told:
                            yield one
                    continue
                yield event
                if chunks := display.show(event):
                    yield turn.shown(chunks)
        if chunks := display.end():
            yield turn.shown(chunks)
        self._append(turn, calls, [outcomes[call.id] for call in ours])

    async def _ask_the_user(
        self, turn: Turn, question: Question, display: Display
    ) -> AsyncGenerator[Event]:
        """End the turn with the question, and go on here when the next message is in."""
        if turn.finished:
            question.answer({"action": "cancel"})  # the turn ends with calls for the client
            return
        if chunks := display.pause():
            yield turn.shown(chunks)
        problem = ""
        for _ in range(MOST_ASKS):
            text = question_text(question, problem)
            yield Delta(turn.reply.take(Answer({"role": "assistant", "content": text})))
            usage = turn.talk.ask.wants_usage
            asked = Asked(
                partial(turn.reply.completion, "stop", {}),
                partial(turn.reply.last_chunks, "stop", {}, usage=usage),
            )
            yield asked
            turn.go_on(asked.next)
            yield Started({})
            try:
                said = text_of(asked.next.body["messages"][-1])
                question.answer(read_answer(said, question.params))
                break
            except Unclear as exc:
                problem = str(exc)
        else:
            question.answer({"action": "cancel"})
        if chunks := display.go_on():
            yield turn.shown(chunks)

    def _within_bounds(
        self, turn: Turn, calls: list[ModelCall]
    ) -> tuple[list[ModelCall], list[Outcome]]:
        """The calls that may run, and answers for those that may not."""
        bounds = turn.talk.bounds
        left = 0 if bounds.stopped else self._limits.max_calls - bounds.calls
        whole = [call for call in calls if call.complete]
        allowed = whole[: max(0, left)]
        bounds.calls += len(whole)
        refused = [Outcome.refused(c, "a limit is reached") for c in whole[max(0, left) :]]
        refused += [
            Outcome.refused(c, "the call was cut off by the token limit; make it shorter")
            for c in calls
            if not c.complete
        ]
        return allowed, refused

    def _append(self, turn: Turn, calls: list[ModelCall], outcomes: list[Outcome]) -> None:
        """Add a round to the conversation, or keep it when the client's calls ended the turn."""
        talk = turn.talk
        for outcome in outcomes:
            talk.note(outcome)
            if outcome.cut:
                talk.offer(self._reader)
        assert turn.answer is not None  # noqa: S101  # it holds the calls
        said = assistant_message(turn.answer, calls)
        answers = [tool_message(outcome) for outcome in outcomes]
        images = images_message(outcomes)
        if turn.finished:
            self._keep(turn, said, answers, images)
            return
        talk.messages += [said, *answers, *images]
        talk.bounds.check(turn.usage)

    # What is kept for the follow-up request

    def _keep(self, turn: Turn, said: Json, answers: list[Json], after: list[Json]) -> None:
        """Remember what the client will not send back, until it sends its tools' results."""
        talk = turn.talk
        if not talk.hidden and not answers:
            return
        handed = {"role": "assistant", "tool_calls": turn.reply.calls}
        hidden = HiddenTurn(talk.hidden, said, tuple(answers), tuple(after))
        self._memory.keep(talk.ask.caller, talk.ask.body["messages"], handed, hidden)

    def _end(self, turn: Turn) -> Finished:
        talk, reply = turn.talk, turn.reply
        finish = turn.finish_reason or "stop"
        if self._restore_history and talk.hidden and not reply.calls:
            self._memory.keep(
                talk.ask.caller,
                talk.ask.body["messages"],
                reply.message,
                HiddenTurn(talk.hidden, assistant=said_last(turn.answer)),
            )
        return Finished(
            partial(reply.completion, finish, turn.extension),
            partial(turn.last_chunks, finish),
        )


def reply_to(talk: Conversation) -> Reply:
    ask = talk.ask
    return Reply(ask.model, talk.client_names, talk.custom_names, watched=ask.streamed)


def said_last(answer: Answer | None) -> Json | None:
    """What the last round said alone: the client has it together with the rounds before it."""
    content = answer.message.get("content") if answer else None
    return {"role": "assistant", "content": content} if content else None


def reason(answer: Answer, handed: list[ModelCall]) -> str:
    """The finish reason that is true, whatever the server said (L5)."""
    if handed:
        return "tool_calls" if all(call.complete for call in handed) else "length"
    said = answer.finish_reason or "stop"
    return "stop" if said == "tool_calls" else said


def record_of(turn: Turn, outcome: str) -> ConversationRecord:
    ask, bounds = turn.talk.ask, turn.talk.bounds
    return ConversationRecord(
        caller=ask.caller.name,
        model=ask.model,
        door=ask.door,
        outcome=outcome,
        stopped=bounds.stopped,
        rounds=bounds.rounds,
        calls=bounds.calls,
        seconds=time.monotonic() - turn.began,
        usage=turn.usage,
    )


def was_cut(message: Json) -> bool:
    """Whether a tool message tells the model to read on with `read_tool_result`."""
    content = message.get("content")
    return message.get("role") == "tool" and isinstance(content, str) and READ_MORE in content


def extension(turn: Turn) -> Json:
    """Why the loop ended at a bound, for those who look."""
    bounds = turn.talk.bounds
    return {
        "mcp_bridge": {
            "stopped": bounds.stopped,
            "rounds": bounds.rounds,
            "tool_calls": bounds.calls,
        }
    }
