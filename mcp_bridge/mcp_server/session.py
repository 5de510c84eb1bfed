"""What is known of one client from one request to the next."""

from collections.abc import Awaitable, Callable

from mcp_bridge.types import Json

Send = Callable[[str, Json], Awaitable[None]]
"""Sends a notification: its method and its params."""

DEFAULT_LEVEL = "info"
MOST_TASKS = 1000
"""Of the tasks of one client; who has more hears nothing of the oldest."""


class Session:
    """One client of the old era; for a client that has no session, one of its requests."""

    def __init__(self, notify: Send) -> None:
        self.notify = notify
        """Sends what belongs to no request; where there is no way to do that, it is dropped."""

        self.capabilities: Json = {}
        """What the client has declared in its handshake, as it was sent."""

        self.protocol_version = ""
        """What the two have agreed on in the handshake."""

        self.log_level = DEFAULT_LEVEL
        self.elicitations: set[str] = set()
        """Where the client was sent to at a URL, and is to be told when that is complete."""

        self.tasks: dict[tuple[str, str], str] = {}
        """The tasks that it has begun and that are not over: by their server and the id that they
        have there, the id that the client knows."""

        self._closed = False
        self._at_its_end: list[Callable[[], None]] = []

    def begin(self, server: str, own: str, shown: str) -> None:
        """The client has begun a task."""
        self.tasks[server, own] = shown
        if len(self.tasks) > MOST_TASKS:
            del self.tasks[next(iter(self.tasks))]

    def at_its_end(self, clean_up: Callable[[], None]) -> None:
        """Have `clean_up` called when the client has left."""
        self._at_its_end.append(clean_up)
        if self._closed:  # what it said last is heard after that
            self.close()

    def close(self) -> None:
        """The client has left."""
        self._closed = True
        self.notify = nowhere  # the way may lead back to here, and then both would hold each other
        while self._at_its_end:
            self._at_its_end.pop()()


async def nowhere(method: str, params: Json) -> None:
    """There is no way to a client between its requests."""
