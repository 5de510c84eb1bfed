"""Which server has a model: by the names in the settings, or by what the server lists.

A server may have a model, not have it, or not tell: Azure does not list its deployments, and a
list that cannot be read says nothing. Whoever does not tell is asked when nobody else is known to
have the model; the server itself then answers.
"""

import difflib
import time
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from mcp_bridge.config.settings import InferenceServer
from mcp_bridge.errors import InferenceError, RequestError
from mcp_bridge.inference.models import FETCH_SECONDS, Clock, ModelList
from mcp_bridge.inference.transport import Endpoint
from mcp_bridge.types import Json

REST_SECONDS = 10.0
"""How long a server that was down is asked last."""

NO_LIST = frozenset({404, 405, 501})
MOST_SUGGESTIONS = 3


class Upstream:
    """An inference server and what is known of it."""

    def __init__(
        self,
        settings: InferenceServer,
        *,
        clock: Clock = time.monotonic,
        list_seconds: float = FETCH_SECONDS,
    ) -> None:
        self.settings = settings
        self.endpoint = Endpoint(settings)
        self.listed = ModelList(self.endpoint, clock, list_seconds)
        self._clock = clock
        self._rests_until = -float("inf")

    def has(self, model: str) -> bool | None:
        """Whether the model is here; None when that is not known."""
        if self.settings.models:
            return matches(model, self.settings.models)
        if self.settings.api_version or self.listed.entries is None:
            return None
        return is_listed(model, self.listed.ids)

    def offers(self) -> list[Json]:
        """The models to list: those it lists and may serve, and those that the settings name."""
        patterns = self.settings.models
        listed = () if self.settings.api_version else self.listed.entries or ()
        found = {
            entry["id"]: entry for entry in listed if not patterns or matches(entry["id"], patterns)
        }
        for name in patterns:
            if not is_glob(name) and not is_listed(name, found):
                owner = self.endpoint.name
                found[name] = {"id": name, "object": "model", "created": 0, "owned_by": owner}
        return list(found.values())

    @property
    def unread(self) -> InferenceError | None:
        """Why its list could not be read, if it has one to offer."""
        return None if self.settings.api_version else self.listed.problem

    async def refresh(self, older_than: float) -> None:
        """Read its list of models again, if it is older than so many seconds."""
        await self.listed.refresh(older_than=older_than)

    def state(self) -> Json:
        """Whether it answered when it was last asked for its models. Holds no secret."""
        problem = self.listed.problem
        # A server that has no such list answers nevertheless.
        wrong = problem is not None and problem.status not in NO_LIST
        return {
            "name": self.endpoint.name,
            "base_url": self.endpoint.address.shown,
            "ok": not wrong,
            "error": problem.message if problem and wrong else None,
            "models": len(self.offers()) if problem is None else None,
        }

    def rest(self) -> None:
        """Note that it is down: others are asked first for a while."""
        self._rests_until = self._clock() + REST_SECONDS

    @property
    def rests(self) -> bool:
        return self._clock() < self._rests_until


def route(model: str, upstreams: Sequence[Upstream]) -> Sequence[Upstream]:
    """The servers to ask for a model, in order; the others are for when the first is down."""
    if len(upstreams) == 1:
        return upstreams
    sure = [upstream for upstream in upstreams if upstream.has(model)]
    found = sure or [upstream for upstream in upstreams if upstream.has(model) is None]
    found = found or [upstream for upstream in upstreams if not upstream.settings.models]
    return sorted(found or upstreams, key=lambda upstream: upstream.rests)


def unknown_model(model: str, upstreams: Iterable[Upstream]) -> RequestError:
    """The answer to a name that no server has."""
    known = list(dict.fromkeys(entry["id"] for u in upstreams for entry in u.offers()))
    close = close_names(model, known)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    return RequestError(
        f"no inference server has the model {model!r}{hint} (GET /v1/models lists them)",
        param="model",
        code="model_not_found",
        status=404,
    )


def matches(model: str, patterns: Collection[str]) -> bool:
    """Whether one of the names or globs in the settings means this model."""
    return is_listed(model, patterns) or any(fnmatchcase(model, pattern) for pattern in patterns)


def is_listed(model: str, ids: Collection[str]) -> bool:
    """Whether a server that lists `ids` takes this name.

    Ollama takes `x` for `x:latest`, Gemini `x` for `models/x`, OpenRouter variants such as
    `a/b:free` of the `a/b` that it lists.
    """
    if model in ids:
        return True
    base, colon, _ = model.rpartition(":")
    return f"{model}:latest" in ids or f"models/{model}" in ids or (bool(colon) and base in ids)


def is_glob(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def close_names(model: str, known: Collection[str]) -> list[str]:
    """Names that were probably meant, closest first."""
    by_form = {name.lower(): name for name in known}
    wanted = model.lower()
    close = difflib.get_close_matches(wanted, by_form, n=MOST_SUGGESTIONS, cutoff=0.6)
    parts = [form for form in by_form if wanted and form not in close and wanted in form]
    return [by_form[form] for form in (close + parts)[:MOST_SUGGESTIONS]]
