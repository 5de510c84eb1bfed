"""Conversations that wait for their user: kept, recognised, and ended in time."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from mcp_bridge.agent.conversation import Ask
from mcp_bridge.agent.events import Asked, Event, Finished
from mcp_bridge.agent.waiting import MOST_WAITING, Waiting
from mcp_bridge.tasks import Tasks
from mcp_bridge.types import Caller, Json
from tests.mcp_client.running import PATIENCE

TTL = 60.0
WHICH = "Which? (question 00ff)"


def said(text: str) -> Json:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


class Loop:
    """A loop that asks once and then says what it was answered. One call runs all the while."""

    def __init__(self, *, crashes: bool = False) -> None:
        self.crashes = crashes
        self.ended = anyio.Event()
        self.call_stopped = anyio.Event()

    async def run(self, ask: Ask) -> AsyncGenerator[Event]:
        tasks = Tasks([self._call()])
        await anyio.lowlevel.checkpoint()  # it begins
        try:
            asked = Asked(lambda: said(WHICH), tuple)
            yield asked
            yield Finished(lambda: said(asked.next.body["messages"][-1]["content"]), tuple)
        finally:
            self.ended.set()
            await tasks.end()

    async def _call(self) -> None:
        if self.crashes:
            raise LookupError("a mistake of ours")
        try:
            await anyio.sleep_forever()
        finally:
            self.call_stopped.set()


def user(text: str) -> Json:
    return {"role": "user", "content": text}


FIRST = [user("Paint it.")]
SECOND = [*FIRST, {"role": "assistant", "content": WHICH}, user("red")]


def ask(messages: list[Json], name: str = "ada") -> Ask:
    return Ask({"model": "m", "messages": messages}, Caller(name))


async def texts(waiting: Waiting, given: Ask, loop: Loop, ttl: float = TTL) -> list[str]:
    """What a request is told."""
    found: list[str] = []
    with anyio.fail_after(PATIENCE):
        async with aclosing(waiting.run(given, loop.run, ttl)) as events:
            async for event in events:
                assert isinstance(event, Asked | Finished)
                found.append(event.completion()["choices"][0]["message"]["content"])
    return found


@asynccontextmanager
async def hosted() -> AsyncGenerator[Waiting]:
    async with anyio.create_task_group() as tasks:
        yield Waiting(tasks)
        tasks.cancel_scope.cancel()


async def test_the_answer_drives_the_conversation_on_and_then_its_calls_end() -> None:
    loop = Loop()
    async with hosted() as waiting:
        assert await texts(waiting, ask(FIRST), loop) == [WHICH]
        assert not loop.call_stopped.is_set()
        assert await texts(waiting, ask(SECOND), Loop()) == ["red"]
        with anyio.fail_after(PATIENCE):
            await loop.call_stopped.wait()


@pytest.mark.parametrize(
    "given",
    [
        ask(SECOND, "bob"),
        ask([user("Draw it."), *SECOND[1:]]),
        ask([*FIRST, {"role": "assistant", "content": "Who? (question 00fe)"}, user("red")]),
        ask([*SECOND[:2], {"role": "system", "content": "red"}]),
        ask([user("red")]),
        ask(FIRST),
    ],
    ids=["caller", "users", "question", "role", "short", "the same"],
)
async def test_what_is_no_answer_begins_a_conversation(given: Ask) -> None:
    async with hosted() as waiting:
        await texts(waiting, ask(FIRST), Loop())
        other = Loop()
        assert await texts(waiting, given, other) == [WHICH]
        assert not other.ended.is_set()


async def test_a_client_may_show_the_tools_that_ran_before_the_question() -> None:
    ran: list[Json] = [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [{"id": "c1"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "paint: red, blue"},
    ]
    async with hosted() as waiting:
        await texts(waiting, ask(FIRST), Loop())
        assert await texts(waiting, ask([*FIRST, *ran, *SECOND[1:]]), Loop()) == ["red"]


async def test_a_question_is_answered_only_once() -> None:
    async with hosted() as waiting:
        await texts(waiting, ask(FIRST), Loop())
        assert await texts(waiting, ask(SECOND), Loop()) == ["red"]
        assert await texts(waiting, ask(SECOND), Loop()) == [WHICH]


async def test_a_client_that_leaves_while_it_is_asked_ends_its_conversation() -> None:
    loop = Loop()
    async with hosted() as waiting:
        async with aclosing(waiting.run(ask(FIRST), loop.run, TTL)) as events:
            await anext(events)
        assert loop.ended.is_set()
        assert len(waiting) == 0


async def test_an_answer_that_is_faster_than_the_end_of_the_question_is_heard() -> None:
    loop = Loop()
    async with hosted() as waiting:
        events = waiting.run(ask(FIRST), loop.run, TTL)
        await anext(events)
        async with aclosing(waiting.run(ask(SECOND), Loop().run, TTL)) as later:
            event = await anext(later)
            await events.aclose()
            assert not loop.ended.is_set()
    assert isinstance(event, Finished)
    assert event.completion() == said("red")


async def test_who_leaves_late_does_not_end_the_question_after_the_next() -> None:
    class Twice(Loop):
        async def run(self, ask: Ask) -> AsyncGenerator[Event]:
            try:
                for _ in range(2):
                    yield Asked(lambda: said(WHICH), tuple)
            finally:
                self.ended.set()

    loop = Twice()
    async with hosted() as waiting:
        events = waiting.run(ask(FIRST), loop.run, TTL)
        await anext(events)
        assert await texts(waiting, ask(SECOND), loop) == [WHICH]
        await events.aclose()
        assert not loop.ended.is_set()
        assert len(waiting) == 1


async def test_without_an_answer_the_conversation_ends_in_time() -> None:
    loop = Loop()
    async with hosted() as waiting:
        await texts(waiting, ask(FIRST), loop, ttl=0.01)
        with anyio.fail_after(PATIENCE):
            await loop.call_stopped.wait()
        assert loop.ended.is_set()
        assert len(waiting) == 0


async def test_calls_that_fail_in_an_unexpected_way_end_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        async with hosted() as waiting:
            await texts(waiting, ask(FIRST), Loop(crashes=True))
            other = Loop()
            assert await texts(waiting, ask(FIRST, "bob"), other) == [WHICH]
            assert not other.call_stopped.is_set()
    assert "failed unexpectedly" in caplog.text


async def test_the_end_of_the_bridge_ends_what_waits() -> None:
    loop = Loop()
    async with hosted() as waiting:
        await texts(waiting, ask(FIRST), loop)
    assert loop.ended.is_set()
    assert loop.call_stopped.is_set()


class Kept(Loop):
    """One whose generator is not closed for nobody having it any more."""

    def run(self, ask: Ask) -> AsyncGenerator[Event]:
        self.events = super().run(ask)
        return self.events


async def test_a_conversation_whose_place_another_takes_is_closed_too() -> None:
    first, second = Kept(), Kept()
    async with hosted() as waiting:
        assert await texts(waiting, ask(FIRST), first) == [WHICH]
        assert await texts(waiting, ask(FIRST), second) == [WHICH]
    for loop in (first, second):
        assert loop.ended.is_set()
        assert loop.call_stopped.is_set()


async def test_an_answer_that_comes_with_the_end_of_its_time_leaves_nothing_behind() -> None:
    first, second = Kept(), Loop()
    async with hosted() as waiting:
        await texts(waiting, ask(FIRST), first)
        [talk] = waiting._parked.values()
        talk.patience.cancel()  # as the timer does; its host has not run yet
        assert await texts(waiting, ask(SECOND), second) == [WHICH]
        with anyio.fail_after(PATIENCE):
            await first.call_stopped.wait()
        assert not second.ended.is_set()


async def test_there_is_a_bound_on_how_many_wait() -> None:
    async with hosted() as waiting:
        for number in range(MOST_WAITING):
            assert not waiting.full
            await texts(waiting, ask(FIRST, str(number)), Loop())
        assert waiting.full
