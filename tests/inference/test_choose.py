"""Which model a server is given: hints in order, then the weights, then the configuration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.config.settings import SamplingModel
from mcp_bridge.inference.choose import Preferences, explained, rank
from mcp_bridge.types import Json


def model(name: str, intelligence: float, cost: float, speed: float) -> SamplingModel:
    return SamplingModel(model=name, intelligence=intelligence, cost=cost, speed=speed)


BIG = model("claude-opus-5", 1.0, 0.9, 0.2)
MIDDLE = model("claude-sonnet-5", 0.8, 0.5, 0.5)
SMALL = model("gpt-6-mini", 0.4, 0.1, 0.9)
LOCAL = model("llama-4-8b", 0.2, 0.0, 0.6)
ALL = (BIG, MIDDLE, SMALL, LOCAL)


def names(preferences: Json, models: tuple[SamplingModel, ...] = ALL) -> list[str]:
    return [one.model for one in rank(models, Preferences.of(preferences))]


def hints(*wanted: str) -> list[Json]:
    return [{"name": name} for name in wanted]


@pytest.mark.parametrize(
    ("preferences", "first"),
    [
        ({"intelligencePriority": 1, "costPriority": 0, "speedPriority": 0}, BIG),
        ({"intelligencePriority": 0, "costPriority": 1, "speedPriority": 0}, LOCAL),
        ({"intelligencePriority": 0, "costPriority": 0, "speedPriority": 1}, SMALL),
        ({"intelligencePriority": 0.3}, BIG),  # what the server did not name has no say
        ({"costPriority": 1}, LOCAL),
        ({"intelligencePriority": 0.9, "speedPriority": 0.6}, MIDDLE),
        ({}, BIG),
        ({"intelligencePriority": 0, "costPriority": 0, "speedPriority": 0}, BIG),
        ({"hints": hints("sonnet"), "costPriority": 1}, MIDDLE),
        ({"hints": hints("SONNET")}, MIDDLE),
        ({"hints": hints("o9", "llama", "sonnet")}, LOCAL),
        ({"hints": hints("sonnet", "llama"), "intelligencePriority": 1}, MIDDLE),
        ({"hints": hints("claude"), "speedPriority": 1}, MIDDLE),
        ({"hints": hints("claude"), "intelligencePriority": 1}, BIG),
        ({"hints": hints("gemini"), "costPriority": 1}, LOCAL),
    ],
)
def test_the_model_that_the_preferences_ask_for_comes_first(
    preferences: Json, first: SamplingModel
) -> None:
    assert names(preferences)[0] == first.model


def test_models_of_earlier_hints_come_before_those_of_later_ones_and_of_none() -> None:
    order = names({"hints": hints("mini", "claude"), "intelligencePriority": 1})
    assert order == [SMALL.model, BIG.model, MIDDLE.model, LOCAL.model]


def test_equal_models_stay_in_the_order_of_the_configuration() -> None:
    twins = tuple(model(name, 0.5, 0.5, 0.5) for name in ("c", "a", "b"))
    assert names({"intelligencePriority": 1}, twins) == ["c", "a", "b"]


def test_a_small_difference_counts_as_much_as_the_operator_can_express() -> None:
    close = (model("slower", 0.50, 0.5, 0.50), model("duller", 0.49, 0.5, 0.52))
    assert names({"intelligencePriority": 0.6, "speedPriority": 0.4}, close)[0] == "slower"
    assert names({"intelligencePriority": 0.4, "speedPriority": 0.6}, close)[0] == "duller"


@pytest.mark.parametrize(
    "unreadable",
    [
        None,
        [],
        "fast",
        {"hints": "claude"},
        {"hints": [None, {"name": 5}, {}, {"name": " "}]},
        {"intelligencePriority": "high", "costPriority": True, "speedPriority": float("nan")},
    ],
)
def test_preferences_that_cannot_be_read_count_as_not_given(unreadable: object) -> None:
    assert Preferences.of(unreadable) == Preferences()


def test_priorities_outside_of_0_to_1_are_brought_back() -> None:
    assert Preferences.of({"costPriority": 7, "speedPriority": -1}) == Preferences(cost=1, speed=0)


def test_nothing_is_chosen_among_no_models() -> None:
    assert rank((), Preferences()) == ()
    assert "sampling.models" in explained((), Preferences())


def test_the_explanation_says_who_is_asked_and_why() -> None:
    wanted = Preferences(("mini", "gemini"), intelligence=0.9, cost=0.2)
    first, _, *rest = explained(ALL, wanted).splitlines()
    assert first == "gpt-6-mini would be asked."
    assert rest == [
        '1. gpt-6-mini       0.500  its name contains "mini", '
        "intelligence 0.50 x 0.9, cheapness 0.50 x 0.2",
        "2. claude-opus-5    0.818  intelligence 1.00 x 0.9, cheapness 0.00 x 0.2",
        "3. claude-sonnet-5  0.694  intelligence 0.75 x 0.9, cheapness 0.44 x 0.2",
        "4. llama-4-8b       0.182  intelligence 0.00 x 0.9, cheapness 1.00 x 0.2",
        'The hint "gemini" chooses nothing.',
    ]


def test_without_priorities_the_explanation_names_the_order_of_the_configuration() -> None:
    assert "the order of the configuration" in explained(ALL, Preferences())


# Sixteenths: sums and products of them are exact, so equal scores are really equal.
sixteenths = st.integers(0, 16).map(lambda n: n / 16)
models = st.lists(
    st.builds(
        model,
        st.sampled_from(["llama-8b", "llama-70b", "qwen-32b", "GPT-x", "gemma"]),
        sixteenths,
        sixteenths,
        sixteenths,
    ),
    min_size=1,
    max_size=6,
).map(tuple)
priorities = st.fixed_dictionaries(
    {
        "intelligencePriority": sixteenths,
        "costPriority": sixteenths,
        "speedPriority": sixteenths,
    }
)


@given(models, priorities, st.lists(st.sampled_from(["llama", "qwen", "gpt", "x"]), max_size=3))
def test_every_model_is_ranked_once_and_scores_stay_within_0_and_1(
    candidates: tuple[SamplingModel, ...], wanted: Json, names: list[str]
) -> None:
    ranking = rank(candidates, Preferences.of({**wanted, "hints": hints(*names)}))
    assert sorted(one.model for one in ranking) == sorted(one.model for one in candidates)
    assert all(0 <= one.score <= 1 for one in ranking)


@given(models, priorities, st.sampled_from([0.5, 0.25, 0.125]))
def test_scaling_all_priorities_changes_nothing(
    candidates: tuple[SamplingModel, ...], wanted: Json, factor: float
) -> None:
    scaled = {key: value * factor for key, value in wanted.items()}
    assert names(wanted, candidates) == names(scaled, candidates)


@given(models, priorities, st.lists(st.sampled_from(["llama", "qwen", "gpt", "phi"]), max_size=3))
def test_the_first_hint_that_matches_wins_whatever_the_priorities_say(
    candidates: tuple[SamplingModel, ...], wanted: Json, given_hints: list[str]
) -> None:
    matches = [
        [one.model for one in candidates if hint in one.model.lower()] for hint in given_hints
    ]
    allowed = next(filter(None, matches), [one.model for one in candidates])
    assert names({**wanted, "hints": hints(*given_hints)}, candidates)[0] in allowed


@given(models, priorities)
def test_a_model_that_another_beats_in_everything_is_never_first(
    candidates: tuple[SamplingModel, ...], wanted: Json
) -> None:
    if not any(wanted.values()):
        return
    first = rank(candidates, Preferences.of(wanted))[0]
    chosen = [one for one in candidates if one.model == first.model]
    assert not all(
        any(
            other.intelligence > one.intelligence
            and other.cost < one.cost
            and other.speed > one.speed
            for other in candidates
        )
        for one in chosen
    )


@given(models, priorities)
def test_being_cheaper_never_makes_a_model_lose(
    candidates: tuple[SamplingModel, ...], wanted: Json
) -> None:
    first = rank(candidates, Preferences.of(wanted))[0]
    lowest = min(one.cost for one in candidates)
    cheaper = tuple(
        one.model_copy(update={"cost": lowest}) if one.model == first.model else one
        for one in candidates
    )
    assert rank(cheaper, Preferences.of(wanted))[0].model == first.model
