"""Which model an MCP server is given when it asks for one (`sampling/createMessage`). Pure.

The specification (the same words from 2025-06-18 to 2026-07-28) leaves the choice to the client,
with two rules: hints are tried in order, the first that matches any model decides, and they come
before the priorities. So the ranking is:

1. For each hint in order, the models whose name contains it (upper and lower case are the same),
   then the models that no hint matches. What is not chosen stays in the ranking: it is asked when
   the servers of those before it are down.
2. Among models that one hint matches, or that none does, the score decides: the mean of
   intelligence, cheapness and speed, each weighted by the priority that the server gave it. A
   priority that it did not give is neutral: that quality has no say, as with 0. (A middle weight
   would let the two unnamed qualities outvote the one that the server asked for.)
   Each quality is stretched over the candidates first, so that the best has 1 and the worst 0
   (0.5 when all are equal): a priority speaks about the difference between them, however small
   the operator's numbers make it. `cost` 1 is expensive, so cheapness is `1 - cost`.
3. Equal scores, also when no priority was given: the one that is configured first.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mcp_bridge.config.settings import SamplingModel
from mcp_bridge.types import Json

NEUTRAL = 0.5
QUALITIES = ("intelligence", "cost", "speed")
SHOWN = ("intelligence", "cheapness", "speed")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a server wants from a model. Priorities go from 0 to 1."""

    hints: tuple[str, ...] = ()
    intelligence: float = 0.0
    cost: float = 0.0
    speed: float = 0.0

    @classmethod
    def of(cls, value: object) -> "Preferences":
        """Read `modelPreferences`. They are advice: what cannot be read counts as not said."""
        if not isinstance(value, dict):
            return cls()
        return cls(
            hints_of(value.get("hints")),
            *(priority_of(value, f"{quality}Priority") for quality in QUALITIES),
        )

    @property
    def weights(self) -> tuple[float, float, float]:
        return self.intelligence, self.cost, self.speed


@dataclass(frozen=True, slots=True)
class Ranked:
    """A model, its score among those that `hint` (None: no hint) matches, and why."""

    model: str
    score: float
    hint: str | None
    why: str


def rank(models: Sequence[SamplingModel], preferences: Preferences) -> tuple[Ranked, ...]:
    """All models, the one to ask first. See the rules on top of this file."""
    ranking: list[Ranked] = []
    left = list(models)
    for hint in preferences.hints:
        matching = [model for model in left if hint.casefold() in model.model.casefold()]
        ranking += by_score(matching, preferences, hint)
        left = [model for model in left if model not in matching]
    return (*ranking, *by_score(left, preferences, None))


def by_score(
    models: Sequence[SamplingModel], preferences: Preferences, hint: str | None
) -> list[Ranked]:
    """The best first; equals stay in the order of the configuration."""
    columns = (
        stretched([model.intelligence for model in models]),
        stretched([1 - model.cost for model in models]),
        stretched([model.speed for model in models]),
    )
    weights = preferences.weights
    found = [
        Ranked(model.model, mean(shares, weights), hint, reason(hint, shares, weights))
        for model, shares in zip(models, zip(*columns, strict=True), strict=True)
    ]
    return sorted(found, key=lambda one: -one.score)


def stretched(values: Sequence[float]) -> list[float]:
    """The values spread over 0 to 1; equal ones are neutral."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return [NEUTRAL] * len(values)
    return [(value - low) / (high - low) for value in values]


def mean(shares: Iterable[float], weights: Sequence[float]) -> float:
    """The weighted mean, rounded so that what is equal on paper is equal here."""
    total = sum(share * weight for share, weight in zip(shares, weights, strict=True))
    return round(total / (sum(weights) or 1), 9)


def reason(hint: str | None, shares: Iterable[float], weights: Sequence[float]) -> str:
    said = [f'its name contains "{hint}"'] if hint is not None else []
    said += [
        f"{quality} {share:.2f} x {weight:g}"
        for quality, share, weight in zip(SHOWN, shares, weights, strict=True)
        if weight
    ]
    return ", ".join(said) or "the order of the configuration"


def explained(models: Sequence[SamplingModel], preferences: Preferences) -> str:
    """The ranking as a text for people: who would be chosen, who comes next, and why."""
    ranking = rank(models, preferences)
    if not ranking:
        return (
            "No models are configured in sampling.models: a server that asks gets the model of the "
            "conversation that its tool was called in."
        )
    width = max(len(one.model) for one in ranking)
    lines = [
        f"{number}. {one.model:<{width}}  {one.score:.3f}  {one.why}"
        for number, one in enumerate(ranking, 1)
    ]
    unmatched = [hint for hint in preferences.hints if all(one.hint != hint for one in ranking)]
    lines += [f'The hint "{hint}" chooses nothing.' for hint in unmatched]
    return "\n".join([f"{ranking[0].model} would be asked.", "", *lines])


def hints_of(value: object) -> tuple[str, ...]:
    """The names among the hints; an empty one would match everything and says nothing."""
    hints = value if isinstance(value, list) else []
    names = (hint.get("name") for hint in hints if isinstance(hint, dict))
    return tuple(name.strip() for name in names if isinstance(name, str) and name.strip())


def priority_of(preferences: Json, key: str) -> float:
    value = preferences.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return 0.0
    return float(min(1.0, max(0.0, value)))
