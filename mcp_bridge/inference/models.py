"""The models that a server lists, remembered.

A request whose model is in the list never waits for it. Whoever needs a newer list fetches it, one
at a time, within a bound; meanwhile and when that fails, the last list holds. A fetch that failed
is not repeated at once, and the slower it failed, the later.
"""

from collections.abc import Callable
from typing import Any

import anyio

from mcp_bridge.errors import InferenceError
from mcp_bridge.exact import decode
from mcp_bridge.inference.failures import broken, refused
from mcp_bridge.inference.transport import UNREACHABLE, Endpoint
from mcp_bridge.types import Json

FETCH_SECONDS = 5.0
REFETCH_SHARE = 0.4
"""With an older list at hand, it is not worth waiting for so long."""

REFUSED_SECONDS = 30.0
"""How long a refusal (no such endpoint, wrong key) is believed."""

PATIENCE = 10.0
"""A fetch that failed after x seconds is repeated after this many times x."""


Clock = Callable[[], float]


class ModelList:
    """What one server lists. `entries` is None as long as it has never been read."""

    def __init__(self, endpoint: Endpoint, clock: Clock, fetch_seconds: float) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._fetch_seconds = fetch_seconds
        self._lock = anyio.Lock()
        self._read_at = -float("inf")
        self._not_before = -float("inf")
        self.entries: tuple[Json, ...] | None = None
        self.ids: frozenset[str] = frozenset()
        self.problem: InferenceError | None = None
        """Why the last fetch failed; None when it did not."""

    async def refresh(self, *, older_than: float) -> None:
        """Fetch the list if it is older than so many seconds. Never fails: see `problem`."""
        if self._is_fresh(older_than) or (self.entries is not None and self._lock.locked()):
            return
        async with self._lock:
            if not self._is_fresh(older_than):
                share = 1.0 if self.entries is None else REFETCH_SHARE
                await self._fetch(self._fetch_seconds * share)

    def _is_fresh(self, older_than: float) -> bool:
        now = self._clock()
        return now - self._read_at < older_than or now < self._not_before

    async def _fetch(self, bound: float) -> None:
        started = self._clock()
        problem = self._slow(bound)
        with anyio.move_on_after(bound):
            try:
                self._keep(await self._read())
                return
            except InferenceError as exc:
                problem = exc
        self._note(problem, started)

    async def _read(self) -> list[Json]:
        raw = await self._endpoint.get("models")
        try:
            value = decode(raw)
        except ValueError as exc:
            raise broken(self._endpoint.name, "answered /models with no JSON") from exc
        if isinstance(value, dict) and value.get("error"):
            raise refused(self._endpoint.name, 502, raw)
        try:
            return entries_of(value)
        except ValueError as exc:
            raise broken(self._endpoint.name, "answered /models without a list") from exc

    def _keep(self, entries: list[Json]) -> None:
        self.entries = tuple(entries)
        self.ids = frozenset(entry["id"] for entry in entries)
        self.problem = None
        self._read_at = self._clock()
        self._not_before = -float("inf")

    def _note(self, problem: InferenceError, started: float) -> None:
        now = self._clock()
        self.problem = problem
        pause = REFUSED_SECONDS if is_refusal(problem) else 0.0
        self._not_before = now + max(pause, PATIENCE * (now - started))

    def _slow(self, bound: float) -> InferenceError:
        what = f"has not answered /models within {bound:g} s"
        return broken(self._endpoint.name, what, status=504, code=UNREACHABLE)


def is_refusal(problem: InferenceError) -> bool:
    return 400 <= problem.status < 500


def entries_of(body: Any) -> list[Json]:
    """The models in an answer of `/models`, each with an `id`, each id once.

    OpenAI has `{"data": […]}`, Ollama's own API `{"models": […]}`, llama.cpp both, Together a bare
    list; entries are objects, or only names.

    Raises:
        ValueError: there is no list in it.
    """
    lists = [body] if isinstance(body, list) else []
    if isinstance(body, dict):
        lists = [body[key] for key in ("data", "models") if isinstance(body.get(key), list)]
    if not lists:
        raise ValueError("no list of models")
    found: dict[str, Json] = {}
    for item in next(filter(None, lists), []):
        entry = _entry(item)
        if entry is not None:
            found.setdefault(entry["id"], entry)
    return list(found.values())


def _entry(item: Any) -> Json | None:
    match item:
        case str(name) if name:
            return {"id": name, "object": "model"}
        case {"id": str(id)} if id:
            return dict(item)
        case {"name": str(name)} | {"model": str(name)} if name:
            return {**item, "id": name, "object": "model"}
        case _:
            return None
