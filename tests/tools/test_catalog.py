"""All sources as one list: the names that models see, and who sees what."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.config.settings import PrefixPolicy
from mcp_bridge.policy.access import parse_selection
from mcp_bridge.tools.catalog import Catalog, View, legal
from tests.tools.sources import Source, tool

LEGAL = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def names(view: View) -> list[str]:
    return [entry.name for entry in view.entries]


def routes(view: View) -> dict[str, tuple[str, str]]:
    return {e.name: (e.source.name, e.tool.name) for e in view.entries}


def test_the_first_server_keeps_a_bare_name_and_a_later_one_is_prefixed() -> None:
    catalog = Catalog([Source("one", ["search", "read"]), Source("two", ["search", "write"])])
    assert routes(catalog.view()) == {
        "search": ("one", "search"),
        "read": ("one", "read"),
        "two__search": ("two", "search"),
        "write": ("two", "write"),
    }
    assert catalog.collisions == {"search": ("one", "two")}


def test_a_server_added_last_changes_no_name() -> None:
    one, two = Source("one", ["search"]), Source("two", ["search", "read"])
    before = routes(Catalog([one, two]).view())
    after = routes(Catalog([one, two, Source("three", ["search", "read"])]).view())
    assert before.items() <= after.items()


def test_always_prefixes_every_tool_and_never_keeps_the_first_servers() -> None:
    sources = [Source("one", ["search"]), Source("two", ["search", "read"])]
    assert names(Catalog(sources, "always").view()) == ["one__search", "two__search", "two__read"]
    assert names(Catalog(sources, "never").view()) == ["search", "read"]


def test_a_toolset_may_have_a_prefix_policy_of_its_own() -> None:
    catalog = Catalog([Source("one", ["search"]), Source("two", ["read"])])
    assert names(catalog.view(prefix="always")) == ["one__search", "two__read"]
    assert names(catalog.view()) == ["search", "read"]


def test_a_tool_that_the_policy_leaves_out_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    Catalog([Source("one", ["search"]), Source("two", ["search"])], "never")
    assert "tool 'search' of two is left out" in caplog.text


@pytest.mark.parametrize("prefix", ["collision", "always", "never"])
def test_two_tools_of_a_server_that_look_alike_when_cleaned_are_both_there(
    prefix: PrefixPolicy,
) -> None:
    catalog = Catalog([Source("one", ["a.b", "a/b", "a_b", "a b"])], prefix)
    assert sorted(tool for _, tool in routes(catalog.view()).values()) == [
        "a b",
        "a.b",
        "a/b",
        "a_b",
    ]
    assert catalog.collisions == {}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("read_file", "read_file"),
        ("files.read", "files_read"),
        ("files/read now", "files_read_now"),
        ("météo", "m_t_o"),
        ("__", "__"),
        ("x" * 64, "x" * 64),
    ],
)
def test_a_name_is_kept_where_it_is_legal_and_cleaned_where_it_is_not(
    name: str, shown: str
) -> None:
    assert legal(name) == shown


def test_long_and_unreadable_names_end_in_a_hash_that_tells_them_apart() -> None:
    long = ["x" * 70 + "a", "x" * 70 + "b", "天気", "時間", "\ud800", ""]
    shown = [legal(name) for name in long]
    assert len(set(shown)) == len(long)
    assert all(LEGAL.fullmatch(name) for name in shown)
    assert legal("x" * 70 + "a") == shown[0]


@given(
    st.lists(
        st.lists(st.text(max_size=80) | st.sampled_from(["a", "a.b", "a_b", "b__a"]), unique=True),
        max_size=4,
    ),
    st.sampled_from(["collision", "always", "never"]),
)
def test_whatever_servers_call_their_tools_names_are_legal_unique_and_routed(
    servers: list[list[str]], prefix: PrefixPolicy
) -> None:
    sources = [Source(f"s{n}", tools) for n, tools in enumerate(servers)]
    view = Catalog(sources, prefix).view()
    assert all(LEGAL.fullmatch(name) for name in names(view))
    assert len(set(names(view))) == len(view.entries)
    assert all(view.find(entry.name) is entry for entry in view.entries)
    if prefix != "never":
        assert len(view.entries) == sum(map(len, servers))
    assert routes(view) == routes(Catalog(sources, prefix).view())


PATTERNS = st.lists(
    st.sampled_from(["one:*", "two:*", "*:read", "one:w*", "!two:read", "!*:write", "*:*", ""]),
    max_size=3,
)


@given(st.lists(PATTERNS, max_size=3))
def test_what_is_not_listed_cannot_be_found(choices: list[list[str]]) -> None:
    catalog = Catalog([Source("one", ["read", "write"]), Source("two", ["read", "write"])])
    selections = tuple(map(parse_selection, choices))
    view = catalog.view(selections)
    for entry in catalog.entries:
        allowed = all(s.allows(entry.source.name, entry.tool.name) for s in selections)
        assert (entry.name in names(view)) == allowed
        assert (view.find(entry.name) is not None) == allowed
        listed = [d["function"]["name"] for d in view.definitions("openai")]
        assert (entry.name in listed) == allowed


def test_names_do_not_depend_on_what_a_caller_may_see() -> None:
    catalog = Catalog([Source("one", ["read"]), Source("two", ["read"])])
    assert names(catalog.view((parse_selection(["two:*"]),))) == ["two__read"]


def test_a_catalog_is_a_snapshot() -> None:
    source = Source("one", ["read"])
    catalog = Catalog([source])
    source.tools = ()
    assert names(catalog.view()) == ["read"]


def test_views_and_definitions_are_made_once() -> None:
    catalog = Catalog([Source("one", ["read", "write"])])
    view = catalog.view((parse_selection(["one:*"]),))
    assert catalog.view((parse_selection(["one:*"]),)) is view
    assert view.definitions("openai") is view.definitions("openai")
    other = catalog.view((parse_selection(["*:write"]),))
    (fitted,) = (d["function"]["parameters"] for d in other.definitions("openai"))
    assert fitted is view.definitions("openai")[1]["function"]["parameters"]


def test_views_of_any_number_of_selections_do_not_pile_up() -> None:
    catalog = Catalog([Source("one", ["read"])])
    for number in range(1000):
        catalog.view((parse_selection([f"one:x{number}"]),))
    assert len(catalog._views) <= 256


def test_a_definition_has_name_description_and_schema_in_openais_shape() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    source = Source("one")
    source.tools = (
        tool("one", "read", schema, description="Reads.", title="Read"),
        tool("one", "write", title="Writes."),
        tool("one", "list"),
    )
    first, second, third = Catalog([source]).view().definitions("openai")
    assert first["type"] == "function"
    assert first["function"]["name"] == "read"
    assert first["function"]["description"] == "Reads."
    assert first["function"]["parameters"]["properties"] == {"a": {"type": "string"}}
    assert second["function"]["description"] == "Writes."
    assert "description" not in third["function"]


def test_tools_that_the_inference_server_refused_are_left_out() -> None:
    view = Catalog([Source("one", ["read", "write"])]).view()
    left = view.definitions("openai", frozenset({"write", "unheard-of"}))
    assert [d["function"]["name"] for d in left] == ["read"]
    assert len(view.definitions("openai")) == 2


def test_a_renamed_view_finds_its_tools_under_the_new_names_only() -> None:
    view = Catalog([Source("one", ["read", "write"])]).view()
    renamed = view.renamed(lambda name: "one__read" if name == "read" else name)
    assert names(renamed) == ["one__read", "write"]
    assert renamed.find("read") is None
    assert names(view) == ["read", "write"]


def test_a_source_that_joins_gets_other_names_where_its_own_are_taken() -> None:
    view = Catalog([Source("one", ["read", "guest__write"])]).view()
    joined = view.joined(Source("guest", ["read", "write"]))
    assert names(joined) == ["read", "guest__write", "guest__read", "write"]
    assert len(view.entries) == 2


def test_a_name_that_a_model_made_up_is_met_with_close_ones() -> None:
    view = Catalog([Source("files", ["read_file", "write_file"]), Source("web", ["Search"])]).view()
    assert view.close_matches("read_files")[0] == "read_file"
    assert view.close_matches("files__read_file")[0] == "read_file"
    assert view.close_matches("functions.read_file")[0] == "read_file"
    assert view.close_matches("READ_FILE")[0] == "read_file"
    assert view.close_matches("web/search")[0] == "Search"
    assert view.close_matches("q" * 10_000) == []
