"""Who sees which tools: the grammar, and that nothing else can be seen or called (X3)."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.config.settings import Toolset
from mcp_bridge.errors import RequestError
from mcp_bridge.policy.access import (
    Selection,
    is_pattern,
    of_toolset,
    parse_selection,
    selection_of_words,
    selections_of,
)
from mcp_bridge.types import Caller

TOOLS = [
    ("files", "read"),
    ("files", "write"),
    ("files", "delete_all"),
    ("web", "read"),
    ("web", "search"),
]
SETS = {
    "reading": Toolset(include=("files:*",), exclude=("files:write", "files:delete_*")),
    "writing": Toolset(include=("files:write",)),
    "web": Toolset(include=("web:*",)),
}


def allowed(selection: Selection) -> list[str]:
    return [f"{server}:{tool}" for server, tool in TOOLS if selection.allows(server, tool)]


EVERY = [f"{server}:{tool}" for server, tool in TOOLS]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*:*"], EVERY),
        (["*"], EVERY),
        (["files:read"], ["files:read"]),
        (["files:*"], EVERY[:3]),
        (["*:read"], ["files:read", "web:read"]),
        (["read"], ["files:read", "web:read"]),
        (["fil?s:r*d"], ["files:read"]),
        (["files:*", "!files:delete_*"], EVERY[:2]),
        (["!files:delete_*", "files:*"], EVERY[:2]),
        (["files:delete_all", "!files:delete_*"], []),
        (["!web:*"], EVERY[:3]),
        (["!read"], ["files:write", "files:delete_all", "web:search"]),
        ([" files : read ", "! web:*"], ["files:read"]),
        (["Files:read"], []),
        (["", "  "], []),
        ([], []),
    ],
)
def test_a_list_of_patterns_allows_exactly_what_it_says(
    patterns: list[str], expected: list[str]
) -> None:
    assert allowed(parse_selection(patterns)) == expected


@pytest.mark.parametrize("patterns", [["files:"], [":read"], [":"], ["files:", "web: "]])
def test_a_pattern_with_an_empty_part_allows_nothing(patterns: list[str]) -> None:
    selection = parse_selection(patterns)
    assert allowed(selection) == []
    assert not selection.allows_server("files")


@pytest.mark.parametrize(
    ("pattern", "left"),
    [("!files:", EVERY[3:]), ("!:read", [t for t in EVERY if "read" not in t]), ("!", [])],
)
def test_an_exclusion_with_an_empty_part_takes_away_everything_it_can(
    pattern: str, left: list[str]
) -> None:
    assert allowed(parse_selection([pattern])) == left


def test_a_server_is_seen_when_any_of_its_tools_can_be() -> None:
    selection = parse_selection(["files:read", "web:*", "!web:*"])
    assert selection.allows_server("files")
    assert not selection.allows_server("web")
    assert not selection.allows_server("mail")
    assert parse_selection(["*:*", "!web:read"]).allows_server("web")


def test_a_toolset_is_its_includes_less_its_excludes() -> None:
    assert allowed(of_toolset(SETS["reading"])) == ["files:read"]
    assert allowed(of_toolset(Toolset())) == EVERY
    assert allowed(of_toolset(Toolset(include=()))) == []
    assert allowed(of_toolset(Toolset(exclude=("!files:*",)))) == EVERY[3:]
    assert allowed(of_toolset(Toolset(include=("*:*", "!web:*"), exclude=("",)))) == EVERY[:3]


def test_two_toolsets_are_all_tools_of_both() -> None:
    assert allowed(selection_of_words(["reading", "writing"], SETS)) == [
        "files:read",
        "files:write",
    ]


def test_words_mix_toolsets_and_patterns_and_what_is_taken_away_is_gone_from_all() -> None:
    words = ["reading", "web", "files:delete_all", "!*:read"]
    assert allowed(selection_of_words(words, SETS)) == ["files:delete_all", "web:search"]
    assert allowed(selection_of_words(["!web:*"], SETS)) == EVERY[:3]
    assert allowed(selection_of_words([], SETS)) == []


def test_a_bare_word_is_a_toolset_and_an_unknown_one_is_404() -> None:
    assert not is_pattern("web")
    with pytest.raises(RequestError) as caught:
        selection_of_words(["web", "nope"], SETS)
    assert caught.value.status == 404
    assert caught.value.code == "toolset_not_found"
    assert "'nope'" in caught.value.message


def test_a_key_without_rules_allows_everything_and_an_empty_list_nothing() -> None:
    assert selections_of(Caller(), SETS) == ()
    (nothing,) = selections_of(Caller(tools=()), SETS)
    assert allowed(nothing) == []


def test_a_key_with_patterns_and_a_toolset_allows_what_both_allow() -> None:
    both = selections_of(Caller(tools=("*:read",), toolset="web"), SETS)
    assert [t for t in EVERY if all(s.allows(*t.split(":")) for s in both)] == ["web:read"]


def test_a_key_bound_to_a_toolset_that_is_gone_may_do_nothing() -> None:
    with pytest.raises(RequestError, match="no toolset 'gone'"):
        selections_of(Caller(toolset="gone"), SETS)


PARTS = st.sampled_from(["files", "web", "read", "write", "*", "f*", "?eb", "*e*", "", "x"])
PATTERNS = st.lists(
    st.builds(
        lambda mark, server, colon, tool: f"{mark}{server}{colon}{tool}",
        st.sampled_from(["", "!"]),
        PARTS,
        st.sampled_from([":", ""]),
        PARTS,
    ),
    max_size=6,
)


@given(PATTERNS, PATTERNS)
def test_taking_more_away_never_gives_more(patterns: list[str], more: Sequence[str]) -> None:
    before = allowed(parse_selection(patterns))
    after = allowed(parse_selection([*patterns, *("!" + p.removeprefix("!") for p in more)]))
    if any(p.strip() for p in patterns):
        assert set(after) <= set(before)


@given(PATTERNS)
def test_a_tool_of_a_server_that_is_not_seen_is_never_allowed(patterns: list[str]) -> None:
    selection = parse_selection(patterns)
    for server, tool in TOOLS:
        assert selection.allows_server(server) or not selection.allows(server, tool)
