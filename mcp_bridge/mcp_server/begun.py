"""The tasks (in the protocol's sense) that clients have begun, and where each of them is.

To a client the bridge is one server, of which each task has an id of its own, but servers behind us
may count alike. As with names (visit.py), only the later one of two is shown under another id.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from mcp_bridge.mcp_client.connection import Connection
from mcp_bridge.mcp_server.visit import Visit
from mcp_bridge.types import Json

MOST_TASKS = 10_000
RELATED_TASK = "io.modelcontextprotocol/related-task"


@dataclass(frozen=True, slots=True)
class TaskPlace:
    """Which server works on a task, and the id that it has there."""

    connection: Connection
    own: str


class BegunTasks:
    """Found by who has begun them, and the id under which they are shown."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[Visit, str], TaskPlace] = OrderedDict()

    def begin(self, visit: Visit, place: TaskPlace) -> str:
        """Remember a task; the id under which it is shown."""
        shown = place.own
        while self._places.get((visit, shown), place) != place:
            shown = f"{place.connection.name}__{shown}"
        self._places[visit, shown] = place
        while len(self._places) > MOST_TASKS:
            self._places.popitem(last=False)
        return shown

    def find(self, visit: Visit, shown: object) -> TaskPlace | None:
        return self._places.get((visit, shown)) if isinstance(shown, str) else None


def begun_by(result: Json) -> str | None:
    """The id of the task that a call has become."""
    task = result.get("task")
    own = task.get("taskId") if isinstance(task, dict) else result.get("taskId")
    return own if isinstance(own, str) else None


def with_shown_task(result: Json, own: str, shown: str) -> Json:
    """A result that tells of a task by the id under which it is shown."""
    if own == shown:
        return result
    told: Json = _named(result, shown)
    if "task" in told:
        told = {**told, "task": _named(told["task"], shown)}
    if isinstance(meta := told.get("_meta"), dict) and RELATED_TASK in meta:
        told = {**told, "_meta": {**meta, RELATED_TASK: _named(meta[RELATED_TASK], shown)}}
    return told


def _named(task: Any, shown: str) -> Any:
    return {**task, "taskId": shown} if isinstance(task, dict) and "taskId" in task else task
