"""Telling clients what has changed, and only what has changed for them (S7).

Everybody who wants to hear of changes is a Guest: a client of the old era from its handshake on, a
client of the new era for as long as its `subscriptions/listen` lasts. When the bridge changes, each
guest's offer is made again and compared with the one before; resources that somebody watches are
watched at their server once, however many watch them here.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY

from mcp_bridge.bridge import Bridge
from mcp_bridge.errors import RequestError, SourceError
from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_server.client import without_meta
from mcp_bridge.mcp_server.visit import Offer, Offers, Place, Visit
from mcp_bridge.tools.source import CallContext
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

LIST_CHANGED = {
    "tools/list": "notifications/tools/list_changed",
    "prompts/list": "notifications/prompts/list_changed",
    "resources/list": "notifications/resources/list_changed",
    "resources/templates/list": "notifications/resources/list_changed",
}
UPDATED = "notifications/resources/updated"
ELICITED = "notifications/elicitation/complete"
TASK = "notifications/tasks/status"
OVER = ("completed", "failed", "cancelled")

Tell = Callable[[str, Json], None]
Key = tuple[str, str]
"""A resource: its server's name, and its own URI."""


@dataclass(slots=True, eq=False)
class Guest:
    """Somebody who wants to hear of changes. `watched` maps resources to the URIs it knows."""

    visit: Visit
    tell: Tell
    offer: Offer
    watched: dict[Key, str] = field(default_factory=dict)
    elicitations: set[str] = field(default_factory=set)
    tasks: dict[tuple[str, str], str] = field(default_factory=dict)


class Changes:
    """Who is told what. `run` must be running."""

    def __init__(self, bridge: Bridge, offers: Offers, tasks: anyio.abc.TaskGroup) -> None:
        self._bridge = bridge
        self._offers = offers
        self._tasks = tasks
        self._changed = anyio.Event()
        self._heard: dict[Connection, Callable[[], None]] = {}
        self.guests: set[Guest] = set()

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Compare and tell whenever the bridge has changed."""
        stop = self._bridge.subscribe(self._notice)
        self._listen_to_servers()
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                self._compare()
        finally:
            stop()
            for stop_hearing in self._heard.values():
                stop_hearing()

    def _notice(self, kind: str) -> None:
        self._offers.forget()
        self._listen_to_servers()
        self._changed.set()

    def _compare(self) -> None:
        found: dict[tuple[int, int], list[str]] = {}
        for guest in list(self.guests):
            try:
                offer = self._offers.of(guest.visit)
            except RequestError:
                continue  # its toolset is gone: its next request will say so
            before, guest.offer = guest.offer, offer
            key = (id(before), id(offer))
            if key not in found:
                found[key] = difference(before, offer)
            for method in found[key]:
                guest.tell(method, {})

    # Guests.

    def join(self, visit: Visit, tell: Tell) -> Guest:
        """From now on, `tell` is called with each notification for this visit."""
        guest = Guest(visit, tell, self._offers.of(visit))
        self.guests.add(guest)
        return guest

    def leave(self, guest: Guest) -> None:
        self.guests.discard(guest)
        for key in list(guest.watched):
            self._tasks.start_soon(self._unwatch, guest, key)

    # Resources.

    async def watch(self, guest: Guest, shown: str, place: Place) -> None:
        """Have the guest told when the resource changes.

        Raises:
            SourceError: its server refuses.
        """
        key = (place.connection.name, place.own)
        first = not self._watchers(key)
        guest.watched[key] = shown
        if not first:
            return
        context = CallContext(guest.visit.caller)
        try:
            await place.connection.request("resources/subscribe", {"uri": place.own}, context)
        except BaseException:
            del guest.watched[key]
            raise

    async def unwatch(self, guest: Guest, shown: str) -> None:
        for key in [key for key, uri in guest.watched.items() if uri == shown]:
            await self._unwatch(guest, key)

    async def _unwatch(self, guest: Guest, key: Key) -> None:
        guest.watched.pop(key, None)
        server, uri = key
        connection = self._bridge.connections.get(server)
        if self._watchers(key) or connection is None:
            return
        try:
            context = CallContext(guest.visit.caller)
            await connection.request("resources/unsubscribe", {"uri": uri}, context)
        except SourceError as exc:
            logger.info("%s: %s is still watched: %s", server, uri, exc.message)

    def _watchers(self, key: Key) -> int:
        return sum(1 for guest in self.guests if key in guest.watched)

    # What servers announce.

    def _listen_to_servers(self) -> None:
        now = set(self._bridge.connections.values())
        for connection in now - self._heard.keys():

            def hear(method: str, params: Json, server: str = connection.name) -> None:
                self._announced(server, method, params)

            self._heard[connection] = connection.subscribe_notifications(hear)
        for connection in self._heard.keys() - now:
            self._heard.pop(connection)()

    def _announced(self, server: str, method: str, params: Json) -> None:
        params = without_meta(params, SUBSCRIPTION_ID_META_KEY)
        if method == UPDATED:
            self._updated(server, str(params.get("uri")), params)
        elif method == ELICITED:
            done = params.get("elicitationId")
            for guest in [g for g in self.guests if done in g.elicitations]:
                guest.elicitations.discard(str(done))
                guest.tell(method, params)
        elif method == TASK:
            task = (server, str(params.get("taskId")))
            for guest in [g for g in self.guests if task in g.tasks]:
                guest.tell(method, {**params, "taskId": guest.tasks[task]})
                if params.get("status") in OVER:
                    del guest.tasks[task]

    def _updated(self, server: str, uri: str, params: Json) -> None:
        for guest in list(self.guests):
            for (watched_server, own), shown in guest.watched.items():
                if watched_server == server and is_part(uri, own):
                    guest.tell(UPDATED, {**params, "uri": shown + uri[len(own) :]})


def is_part(uri: str, whole: str) -> bool:
    """Whether a URI is the other one, or something below it: the specification allows both."""
    return uri == whole or uri.startswith(whole.rstrip("/") + "/")


def difference(before: Offer, after: Offer) -> list[str]:
    """The notifications that say what differs between two offers."""
    if before is after:
        return []
    changed = [m for kind, m in LIST_CHANGED.items() if before.lists[kind] != after.lists[kind]]
    return list(dict.fromkeys(changed))
