"""What clients subscribe to, in both eras, on top of changes.py."""

import logging

import anyio
import anyio.abc
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY

from mcp_bridge.errors import SourceError
from mcp_bridge.mcp_server.changes import Changes, Guest
from mcp_bridge.mcp_server.client import Client, Outbox
from mcp_bridge.mcp_server.session import Session
from mcp_bridge.mcp_server.visit import Offers, Visit
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

FLAGS = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


class Subscriptions:
    """Serves `subscriptions/listen` and `resources/subscribe`."""

    def __init__(self, changes: Changes, offers: Offers, tasks: anyio.abc.TaskGroup) -> None:
        self._changes = changes
        self._offers = offers
        self._tasks = tasks
        self._closing = anyio.Event()
        self._guests: dict[Session, Guest] = {}

    def close(self) -> None:
        """End every `subscriptions/listen` as the specification has it: with its result."""
        self._closing.set()

    def greet(self, visit: Visit, session: Session) -> Guest:
        """The client of the old era as one who is told of changes, until it leaves."""
        guest = self._guests.get(session)
        if guest is None:
            outbox = Outbox(session.notify, self._tasks)
            guest = self._changes.join(visit, outbox.put)
            guest.elicitations, guest.tasks = session.elicitations, session.tasks
            self._guests[session] = guest
            session.at_its_end(lambda: self._part(session, outbox))
        return guest

    def _part(self, session: Session, outbox: Outbox) -> None:
        self._changes.leave(self._guests.pop(session))
        outbox.close()

    async def subscribe(self, client: Client, params: Json) -> Json:
        await self._watch(self.greet(client.visit, client.session), params["uri"])
        return {}

    async def unsubscribe(self, client: Client, params: Json) -> Json:
        await self._changes.unwatch(self.greet(client.visit, client.session), params["uri"])
        return {}

    async def listen(self, client: Client, params: Json) -> Json:
        """A subscription of the new era: its answer is a stream, until one side leaves."""
        wanted: Json = params["notifications"]
        flags = [flag for flag in FLAGS if wanted.get(flag) is True]
        unwanted = {method for flag, method in FLAGS.items() if flag not in flags}
        mark = {SUBSCRIPTION_ID_META_KEY: client.request_id}

        async def send(method: str, notice: Json) -> None:
            await client.notify(method, {**notice, "_meta": {**notice.get("_meta", {}), **mark}})

        outbox = Outbox(send, self._tasks)

        def tell(method: str, notice: Json) -> None:
            if method not in unwanted:
                outbox.put(method, notice)

        guest = self._changes.join(client.visit, tell)
        try:
            honoured: Json = dict.fromkeys(flags, True)
            if uris := await self._watch_those_that_can_be(guest, wanted):
                honoured["resourceSubscriptions"] = uris
            await send(ACKNOWLEDGED, {"notifications": honoured})
            await self._closing.wait()
            await outbox.flush()
        finally:
            self._changes.leave(guest)
            outbox.close()
        return {"_meta": mark}

    async def _watch_those_that_can_be(self, guest: Guest, wanted: Json) -> list[str]:
        watched: list[str] = []
        for uri in wanted.get("resourceSubscriptions") or ():
            try:
                await self._watch(guest, uri)
            except SourceError as exc:
                logger.info("%s is not watched: %s", uri, exc.message)
            else:
                watched.append(uri)
        return watched

    async def _watch(self, guest: Guest, uri: str) -> None:
        for place in self._offers.of(guest.visit).places(uri)[:1]:
            await self._changes.watch(guest, uri, place)
