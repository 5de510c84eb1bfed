"""Conversations that wait for their user while a tool call goes on.

Theory of operation. When a server asks the user something, the loop yields Asked: the turn ends
with the question, but the loop's generator is not closed, and the call goes on. The generator waits
here, suspended, until the user's next message comes in; then it is driven on by that request. Each
conversation has a host, a task of the bridge that watches over it from the first request to the
last, and closes it when the answer does not come in time; that ends its calls.

The next message is recognised by the caller, what the users said before, and the question's number,
which stands in its text. The rest of a history is as the client likes it: some split a message
where a tool was shown.
"""

import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mcp_bridge.agent.conversation import Ask
from mcp_bridge.agent.elicitation import number_in, text_of
from mcp_bridge.agent.events import Asked, Event
from mcp_bridge.agent.memory import UserDigest
from mcp_bridge.types import Caller, Json

logger = logging.getLogger(__name__)

LONGEST_WAIT = 600.0
MOST_WAITING = 1000

Key = tuple[str, str, str | None]
"""Caller, what the users said before, and the question's number."""

Run = Callable[[Ask], AsyncGenerator[Event]]
"""The loop: `Agent.run`."""


@dataclass(slots=True, eq=False)
class Talk:
    """A conversation that may wait: its events, and what it waits for."""

    events: AsyncGenerator[Event]
    over: anyio.Event = field(default_factory=anyio.Event)
    patience: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    asked: Asked | None = None


class Waiting:
    """All conversations whose servers may ask the user. `tasks` is the bridge's own group.

    Where others serve beside it, `tell` is told which conversations wait here, and which no more.
    """

    def __init__(self, tasks: TaskGroup, tell: Callable[[Key, bool], None] | None = None) -> None:
        self._tasks = tasks
        self._tell = tell or (lambda key, waits: None)
        self._parked: dict[Key, Talk] = {}

    def __len__(self) -> int:
        return len(self._parked)

    def keys(self) -> tuple[Key, ...]:
        """What the answers are recognised by that are waited for."""
        return tuple(self._parked)

    @property
    def full(self) -> bool:
        """Whether no more questions may be asked."""
        return len(self._parked) >= MOST_WAITING

    async def run(self, ask: Ask, run: Run, ttl: float) -> AsyncGenerator[Event]:
        """The events of a conversation: of the one that `ask` answers a question of, or a new one.

        It ends with Finished, or with Asked, and then waits for its user for `ttl` seconds.

        Raises:
            InferenceError: as `Agent.run`.
        """
        talk = self._resumed(ask) or await self._tasks.start(self._host, run, ask)
        asked: Asked | None = None
        was_told = False
        try:
            async for event in talk.events:
                if isinstance(event, Asked):
                    # Before it is written: the answer may be here sooner than we are back.
                    self._park(talk, ask, event, min(ttl, LONGEST_WAIT))
                    asked = event
                yield event
                if asked is not None:
                    was_told = True
                    return
        finally:
            # Whoever has answered meanwhile has the conversation, and may have been asked again.
            if asked is None or (not was_told and talk.asked is asked):
                self._unpark(talk)
                talk.over.set()
                await talk.events.aclose()

    async def _host(self, run: Run, ask: Ask, *, task_status: TaskStatus[Talk]) -> None:
        """Watch over a conversation until it is over."""
        talk = Talk(run(ask))
        task_status.started(talk)
        try:
            with talk.patience:
                await talk.over.wait()
        finally:
            try:
                await self._close(talk, ask.caller)
            except Exception:  # boundary: one conversation must not end the bridge
                logger.exception("the calls of a conversation failed in an unexpected way")

    async def _close(self, talk: Talk, caller: Caller) -> None:
        if self._unpark(talk):
            logger.info("a question to %s was not answered in time; its call ends", caller.name)
            with anyio.CancelScope(shield=True):
                await talk.events.aclose()

    def _park(self, talk: Talk, ask: Ask, asked: Asked, ttl: float) -> None:
        said = asked.completion()["choices"][0]["message"]
        key = key_of(ask.caller, ask.body["messages"], said)
        talk.asked = asked
        talk.patience.deadline = anyio.current_time() + ttl
        self._parked[key] = talk
        self._tell(key, True)

    def _unpark(self, talk: Talk) -> bool:
        """Whether it was still waiting; it is not any more."""
        for key, parked in self._parked.items():
            if parked is talk:
                self._forget(key)
                break
        waited, talk.asked = talk.asked is not None, None
        return waited

    def _forget(self, key: Key) -> None:
        del self._parked[key]
        self._tell(key, False)

    def _resumed(self, ask: Ask) -> Talk | None:
        """The conversation in which a question was asked that the last message answers."""
        key = answered(ask.caller, ask.body["messages"])
        talk = self._parked.get(key) if key is not None else None
        if key is None or talk is None or talk.asked is None or talk.patience.cancel_called:
            return None  # it is too late: its host closes it
        self._forget(key)
        talk.patience.deadline = math.inf
        talk.asked.go_on(ask)
        talk.asked = None
        return talk


def answered(caller: Caller, messages: Sequence[Json]) -> Key | None:
    """What the last message is recognised by, when it may be the answer to a question."""
    if [message.get("role") for message in messages[-2:]] != ["assistant", "user"]:
        return None
    return key_of(caller, messages[:-2], messages[-2])


def key_of(caller: Caller, before: Sequence[Json], said: Json) -> Key:
    """What an answer is recognised by: who gives it, where, and what it answers."""
    users = UserDigest()
    for message in before:
        if message.get("role") == "user":
            users.hear(message)
    return caller.name, users.value(), number_in(text_of(said))
