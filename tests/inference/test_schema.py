"""Schemas are loosened to what an inference server can compile (P1)."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from mcp_bridge.config.settings import SchemaProfile
from mcp_bridge.inference.schema import fit
from mcp_bridge.types import Json

PROFILES: tuple[SchemaProfile, ...] = get_args(SchemaProfile)
OTHERS = PROFILES[1:]
STRINGS: Json = {"type": "string"}


def obj(properties: Json, *required: str, **more: Any) -> Json:
    made: Json = {"type": "object", "properties": properties}
    return {**made, **({"required": list(required)} if required else {}), **more}


def prop(schema: Any, profile: SchemaProfile, **document: Any) -> Json:
    """What becomes of one required property."""
    fitted = fit(obj({"x": schema}, "x", **document), profile)["properties"]["x"]
    assert isinstance(fitted, dict)
    return fitted


# What each profile's server takes: written down from its sources, apart from the code under test.


def schemas_in(schema: Json) -> Iterator[Json]:
    """Every schema inside one, itself first."""
    yield schema
    for key in ("items", "additionalProperties", "not", "if", "then", "else", "contains"):
        if isinstance(schema.get(key), dict):
            yield from schemas_in(schema[key])
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in schema.get(key, []):
            yield from schemas_in(inner)
    for key in ("properties", "patternProperties", "dependentSchemas"):
        for inner in schema.get(key, {}).values():
            yield from schemas_in(inner)


def types_of(schema: Json) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def check_openai(schema: Json) -> None:
    """OpenAI checks against the metaschema, with formats, and has rules for the top."""
    check = Draft202012Validator(
        Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    check.validate(schema)
    assert schema["type"] == "object"
    assert not schema.keys() & {"oneOf", "anyOf", "allOf", "enum", "const", "not"}
    for inner in schemas_in(schema):
        assert "$ref" not in inner
        if "array" in types_of(inner):
            assert isinstance(inner["items"], dict)


def check_llamacpp(schema: Json) -> None:
    """The grammar converter's own limits (common/json-schema*.cpp, src/llama-grammar.cpp)."""
    known = {"object", "array", "string", "number", "integer", "boolean", "null"}
    forbidden = {"allOf", "oneOf", "not", "if", "pattern", "prefixItems", "minLength", "maxItems"}
    for inner in schemas_in(schema):
        assert inner, "an empty schema means an object there"
        assert not inner.keys() & {*forbidden, "$ref", "minimum", "maximum", "maxLength"}
        assert inner.keys() & {"type", "anyOf"}
        assert set(types_of(inner)) <= known and inner.get("type") != []
        assert inner.get("enum") != [] and inner.get("anyOf") != []
        if "anyOf" in inner:
            assert not inner.keys() & {"properties", "items", "enum", "type"}
        if inner is not schema and "properties" in inner:
            assert inner["properties"], "a closed empty object"
        assert "$ref" not in inner.get("properties", {})


def check_gemini(schema: Json) -> None:
    known = {"type", "nullable", "description", "properties", "required", "items", "anyOf"}
    for inner in schemas_in(schema):
        assert inner.keys() <= known | {"enum", "format"}
        if "anyOf" in inner:
            assert inner.keys() == {"anyOf"} and inner is not schema and inner["anyOf"]
            assert all("anyOf" not in variant for variant in inner["anyOf"])
            continue
        kind = inner["type"]
        assert kind in {"string", "number", "integer", "boolean", "object", "array"}
        assert ("items" in inner) == (kind == "array")
        if kind != "object":
            assert not inner.keys() & {"properties", "required"}
        assert set(inner.get("required", [])) <= inner.get("properties", {}).keys()
        assert inner.get("required") != []
        if "enum" in inner:
            assert kind == "string" and inner["enum"]
            assert all(isinstance(value, str) and value for value in inner["enum"])
        if "format" in inner:
            assert (kind, inner["format"]) in {
                *(("string", "date-time"), ("string", "enum"), ("integer", "int32")),
                *(("integer", "int64"), ("number", "float"), ("number", "double")),
            }
            assert inner["format"] != "enum" or "enum" in inner


def check_strict(schema: Json) -> None:
    known = {
        *("type", "properties", "required", "additionalProperties", "items", "anyOf", "enum"),
        *("title", "description", "pattern", "format", "multipleOf", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
    formats = "date-time time date duration email hostname ipv4 ipv6 uuid".split()
    Draft202012Validator.check_schema(schema)
    for inner in schemas_in(schema):
        assert inner.keys() <= known
        assert inner.keys() & {"type", "anyOf"} and inner.get("type") != []
        assert inner.get("format") in (None, *formats)
        if "object" in types_of(inner):
            assert inner["additionalProperties"] is False
            assert inner["required"] == list(inner["properties"])
            assert inner["properties"] or inner is schema
        if "array" in types_of(inner):
            assert isinstance(inner["items"], dict)
        if "pattern" in inner:
            assert not re.search(r"\(\?<?[=!]", inner["pattern"])


CHECKS: dict[SchemaProfile, Callable[[Json], None]] = {
    "openai": check_openai,
    "llamacpp": check_llamacpp,
    "gemini": check_gemini,
    "strict": check_strict,
}
DEPTH: dict[SchemaProfile, int] = {"openai": 32, "llamacpp": 16, "gemini": 3, "strict": 8}


def values_deep(schema: Json) -> int:
    """How many objects and arrays are inside each other."""
    inner = [schema.get("items"), *schema.get("properties", {}).values()]
    deepest = max((values_deep(s) for s in inner if isinstance(s, dict)), default=0)
    unions = max((values_deep(s) for s in schema.get("anyOf", [])), default=0)
    return max(deepest + bool({"items", "properties"} & schema.keys()), unions)


# Any JSON in

names = st.sampled_from(["a", "b", "$ref", "x-y", "type", "properties", "größe"])
leaf = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-2, 2)
    | st.text("ab^$\\d[", max_size=4)
)
anything = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
)
refs = st.sampled_from(
    [
        "#",
        "#/$defs/a",
        "#/$defs/b",
        "#/definitions/a",
        "#/properties/a",
        "https://x.test/s",
        "#a",
        "",
    ]
)
type_names = st.sampled_from(
    ["string", "number", "integer", "boolean", "object", "array", "null", "STRING", "dict", "any"]
)
patterns = st.sampled_from(["^a+$", r"\d", "(?!a)", r"^\p{L}$", "[", "a{2,", "[[a]", r"(a)\1"])
formats = st.sampled_from(["uri", "date-time", "enum", "int32", "float", "email", "uuid", "x"])


def keyword(inner: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """Every keyword with the values it should have."""
    many, named = st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)
    one = ["not", "if", "then", "else", "contains", "propertyNames", "unevaluatedProperties"]
    return {
        "type": type_names | st.lists(type_names, max_size=3),
        "enum": st.lists(leaf, max_size=3),
        "const": leaf,
        "required": st.lists(names, max_size=3),
        "$ref": refs,
        "pattern": patterns,
        "format": formats,
        "nullable": st.booleans(),
        "items": inner | many,
        "additionalItems": inner,
        "additionalProperties": inner | st.booleans(),
        "exclusiveMinimum": st.booleans() | st.integers(),
        "default": anything,
        "x-note": anything,
        **dict.fromkeys(("description", "title", "$schema", "$id"), st.text("ab", max_size=3)),
        **dict.fromkeys(("minimum", "maximum", "multipleOf"), st.integers(-9, 2**70)),
        **dict.fromkeys(("minLength", "maxItems", "minItems", "maxLength"), st.integers(-1, 9**9)),
        **dict.fromkeys(("properties", "$defs", "definitions", "patternProperties"), named),
        **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), many),
        **dict.fromkeys(one, inner),
    }


def schemas_of(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    keywords = keyword(inner)

    @st.composite
    def made(draw: st.DrawFn) -> Json:
        keys = draw(st.lists(st.sampled_from(list(keywords)), max_size=5, unique=True))
        wrong = draw(st.integers(0, 30))  # now and then a keyword has any value
        values = (draw(anything if n == wrong else keywords[key]) for n, key in enumerate(keys))
        return dict(zip(keys, values, strict=True))

    return made()


documents = schemas_of(schemas_of(schemas_of(st.just({}) | st.booleans()) | st.booleans()))


@given(schema=documents)
@settings(max_examples=400, deadline=None)
def test_any_json_becomes_a_schema_that_the_profile_takes(schema: Json) -> None:
    before = copy.deepcopy(schema)
    for profile in PROFILES:
        fitted = fit(schema, profile)
        CHECKS[profile](fitted)
        assert schema == before, "the tool's own schema stays as it is"
        assert json.dumps(fit(before, profile)) == json.dumps(fitted)
        assert values_deep(fitted) <= DEPTH[profile] + 2


def sound(inner: st.SearchStrategy[Json], without: str = "") -> st.SearchStrategy[Json]:
    """Valid schemas without what is tightened on purpose: tuples, and alternatives at the top."""
    types = st.sampled_from(["string", "integer", "boolean", "null", "array", "object"])
    some = st.lists(inner, min_size=1, max_size=3)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
        "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        "enum": st.lists(st.sampled_from(["a", "b", 1, True, None]), min_size=1, max_size=3),
        "minLength": st.integers(0, 2),
        "additionalProperties": st.booleans() | inner,
        "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
        "not": inner,
        **dict.fromkeys(("anyOf", "oneOf", "allOf"), some),
    }

    @st.composite
    def made(draw: st.DrawFn) -> Json:
        possible = [key for key in keywords if key not in without.split()]
        keys = draw(st.lists(st.sampled_from(possible), max_size=3, unique=True))
        return {key: draw(keywords[key]) for key in keys}

    return made()


instances = st.recursive(
    st.sampled_from(["", "a", "b", 1, True, None]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=6,
)


@given(
    schema=sound(sound(sound(st.just({})), "anyOf oneOf"), "anyOf oneOf"),
    value=st.dictionaries(st.sampled_from("abc"), instances, max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_what_the_tool_takes_the_loosened_schema_takes_too(schema: Json, value: Json) -> None:
    if Draft202012Validator(schema).is_valid(value):
        try:
            Draft202012Validator(fit(schema, "openai")).validate(value)
        except ValidationError as exc:
            raise AssertionError(f"refused: {exc.message}") from exc


# Ordinary schemas

PYDANTIC = obj(
    {
        "query": {"title": "Query", "type": "string", "description": "What to look for"},
        "limit": {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}],
            "default": None,
            "title": "Limit",
        },
        "tags": {"items": {"type": "string"}, "title": "Tags", "type": "array"},
        "mode": {"enum": ["fast", "deep"], "type": "string"},
        "filter": {"additionalProperties": {"type": "string"}, "type": "object"},
    },
    "query",
    title="SearchArguments",
)
ZOD = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    **obj({"path": {"type": "string", "format": "uri", "minLength": 1}}, "path"),
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [PYDANTIC, ZOD, obj({})])
def test_openai_gets_an_ordinary_schema_byte_for_byte(schema: Json) -> None:
    assert json.dumps(fit(schema, "openai")) == json.dumps(schema)


@pytest.mark.parametrize("profile", OTHERS)
def test_names_types_enums_and_descriptions_stay(profile: SchemaProfile) -> None:
    fitted = fit(PYDANTIC, profile)["properties"]
    assert list(fitted) == list(PYDANTIC["properties"])
    assert fitted["query"]["type"] == "string"
    assert fitted["query"]["description"] == "What to look for"
    assert "integer" in types_of(fitted["limit"])
    assert set(fitted["mode"]["enum"]) - {None} == {"fast", "deep"}
    assert "string" in types_of(fitted["tags"]["items"])


@pytest.mark.parametrize("profile", ["openai", "llamacpp", "gemini"])
def test_what_is_required_stays_required(profile: SchemaProfile) -> None:
    assert fit(PYDANTIC, profile)["required"] == ["query"]


# The top

TOPS: list[Json] = [
    {},
    {"type": "object"},
    {"type": "string", "description": "text"},
    {"type": ["object", "null"]},
    {"anyOf": [obj({"a": STRINGS}), obj({"b": STRINGS})]},
    {"oneOf": [obj({"a": STRINGS}), {"type": "null"}]},
    {"allOf": [obj({"a": STRINGS}), obj({"b": STRINGS})]},
    {"enum": [{"a": 1}]},
    {"const": {}},
    {"type": "object", "not": {"required": ["a"]}},
    {"$ref": "#/$defs/a", "$defs": {"a": obj({"a": STRINGS})}},
    {"$ref": "https://schemas.test/tool.json"},
    {"type": "array", "items": {"type": "string"}},
    {"properties": None, "required": "a", "type": 7},
]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("schema", TOPS, ids=json.dumps)
def test_the_top_is_an_object(schema: Json, profile: SchemaProfile) -> None:
    fitted = fit(schema, profile)
    assert fitted["type"] == "object"
    assert isinstance(fitted["properties"], dict)
    CHECKS[profile](fitted)


@pytest.mark.parametrize("profile", PROFILES)
def test_alternatives_at_the_top_are_united(profile: SchemaProfile) -> None:
    schema = {
        "anyOf": [
            obj({"kind": {"const": "file"}, "path": STRINGS, "n": STRINGS}, "kind", "path"),
            obj(
                {"kind": {"const": "url"}, "url": STRINGS, "n": {"type": "integer"}}, "kind", "url"
            ),
        ]
    }
    fitted = fit(schema, profile)
    assert set(fitted["properties"]) == {"kind", "path", "url", "n"}
    assert fitted["properties"]["kind"]["enum"] == ["file", "url"]
    assert fitted["description"] == "give one of: path; or url"
    if profile != "strict":
        assert fitted["required"] == ["kind"]


@pytest.mark.parametrize("profile", PROFILES)
def test_all_of_is_put_together(profile: SchemaProfile) -> None:
    schema = {
        **obj({"a": STRINGS}, "a"),
        "allOf": [obj({"b": STRINGS}, "b"), {"properties": {"a": {"description": "A"}}}],
    }
    fitted = fit(schema, profile)
    assert fitted["properties"]["a"] == {"type": "string", "description": "A"}
    assert fitted["required"] == ["a", "b"]


@pytest.mark.parametrize("profile", PROFILES)
def test_all_of_inside_keeps_what_both_allow(profile: SchemaProfile) -> None:
    schema = {
        "allOf": [
            {"type": ["string", "null"], "enum": ["a", "b", "c"]},
            {"type": "string", "enum": ["b", "c", "d"]},
        ]
    }
    if profile == "openai":
        assert prop(schema, profile) == schema
    else:
        assert prop(schema, profile) == {"type": "string", "enum": ["b", "c"]}


def test_a_closed_part_of_all_of_does_not_close_the_others_out() -> None:
    closed = obj({"a": STRINGS}, additionalProperties=False)
    fitted = prop({"allOf": [closed, obj({"b": STRINGS})]}, "llamacpp")
    assert fitted == obj({"a": STRINGS, "b": STRINGS})
    assert prop({"allOf": [closed, {"title": "t"}]}, "llamacpp")["additionalProperties"] is False


# References


@pytest.mark.parametrize("profile", PROFILES)
def test_references_are_written_out(profile: SchemaProfile) -> None:
    fitted = prop(
        {"$ref": "#/$defs/a~1b%20c", "description": "mine"},
        profile,
        **{"$defs": {"a/b c": {"type": "string", "description": "theirs"}}},
    )
    assert fitted == {"type": "string", "description": "mine"}


def test_a_reference_may_point_into_a_list() -> None:
    assert prop({"$ref": "#/x/1"}, "openai", x=[{}, STRINGS]) == STRINGS
    assert prop({"$ref": "#/x/2"}, "openai", x=[{}, STRINGS]) == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_wrapped_schema_finds_its_own_definitions(profile: SchemaProfile) -> None:
    wrapped = obj({"y": {"$ref": "#/$defs/Y"}}, "y", **{"$defs": {"Y": {"type": "integer"}}})
    assert prop(wrapped, profile)["properties"]["y"] == {"type": "integer"}


@pytest.mark.parametrize("profile", PROFILES)
def test_recursion_ends_in_an_object_that_says_what_it_is(profile: SchemaProfile) -> None:
    node = obj({"name": STRINGS, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}})
    fitted = prop({"$ref": "#/$defs/Node"}, profile, **{"$defs": {"Node": node}})
    child = fitted["properties"]["children"]["items"]
    assert child["description"].startswith("Node again, as described above")
    assert child["type"] == ("string" if profile == "strict" else "object")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("ref", ["https://x.test/s.json", "other.json#/a", "#/nowhere", "#name", 7])
def test_a_reference_that_leads_nowhere_here_leaves_its_place_open(
    ref: Any, profile: SchemaProfile
) -> None:
    fitted = prop({"$ref": ref, "type": "string", "description": "d"}, profile)
    assert fitted == {"type": "string", "description": "d"}


@pytest.mark.parametrize("profile", PROFILES)
def test_references_that_multiply_are_bounded(profile: SchemaProfile) -> None:
    pair = {f"p{n}": {"$ref": f"#/$defs/d{n}"} for n in range(30)}
    defs = {f"d{n}": obj(pair, description="x" * 50) for n in range(30)}
    fitted = fit(obj(pair, **{"$defs": defs}), profile)
    assert len(json.dumps(fitted)) < 1_000_000
    CHECKS[profile](fitted)


@pytest.mark.parametrize("profile", PROFILES)
def test_depth_is_bounded(profile: SchemaProfile) -> None:
    schema: Json = {"type": "string"}
    for _ in range(5_000):
        schema = {"anyOf": [{"type": "array", "items": schema}, {"type": "integer"}]}
    fitted = fit(obj({"x": schema}), profile)
    assert values_deep(fitted) <= DEPTH[profile] + 2
    CHECKS[profile](fitted)


# Small repairs, for everyone

REPAIRS: list[tuple[Any, Json]] = [
    ({"type": "nonsense"}, {}),
    ({"type": "STRING"}, {"type": "string"}),
    ({"type": "dict"}, {"type": "object"}),
    ({"type": ["string", "nonsense"]}, {"type": ["string"]}),
    ({"type": "string", "required": True}, {"type": "string"}),
    ({"type": "string", "enum": []}, {"type": "string"}),
    ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
    ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
    ({"type": "array"}, {"type": "array", "items": {}}),
    ({"type": "array", "items": [STRINGS, STRINGS]}, {"type": "array", "items": STRINGS}),
    (
        {"prefixItems": [STRINGS, {"type": "null"}]},
        {"items": {"anyOf": [STRINGS, {"type": "null"}]}},
    ),
    ({"type": "string", "pattern": r"^\p{L}+$"}, {"type": "string"}),
    ({"type": "string", "pattern": "(?!x)"}, {"type": "string"}),
    ("string", {}),
    (True, {}),
]


@pytest.mark.parametrize(("schema", "expected"), REPAIRS, ids=str)
def test_what_openai_would_refuse_is_repaired(schema: Any, expected: Json) -> None:
    assert expected.items() <= prop(schema, "openai").items()
    check_openai(fit(obj({"x": schema}), "openai"))


# llama.cpp


def test_llamacpp_reads_dropped_limits_in_the_description() -> None:
    schema = {"type": "string", "description": "A code", "pattern": r"^\d+$", "maxLength": 2000}
    assert prop(schema, "llamacpp") == {
        "type": "string",
        "description": r"A code (pattern: ^\d+$, maxLength: 2000)",
    }


def test_llamacpp_gets_every_type_where_anything_goes() -> None:
    every = ["string", "number", "boolean", "object", "array", "null"]
    assert prop({}, "llamacpp") == {"type": every}
    assert prop({"not": {}, "description": "d"}, "llamacpp") == {"description": "d", "type": every}


def test_llamacpp_keeps_an_open_object_open() -> None:
    assert prop({"type": "object", "properties": {}}, "llamacpp") == {"type": "object"}


@pytest.mark.parametrize(("name", "stays"), [("a_1", True), ("a-b", False), ("größe", False)])
def test_llamacpp_gets_no_other_properties_beside_names_it_cannot_exclude(
    name: str, stays: bool
) -> None:
    fitted = prop(obj({name: STRINGS}, additionalProperties=True), "llamacpp")
    assert ("additionalProperties" in fitted) is stays


# Gemini


def test_gemini_says_null_its_own_way() -> None:
    assert prop({"type": ["string", "null"]}, "gemini") == {"type": "string", "nullable": True}
    union = prop(
        {"description": "d", "anyOf": [STRINGS, {"type": "number"}, {"type": "null"}]}, "gemini"
    )
    said = {"description": "d", "nullable": True}
    assert union == {"anyOf": [{**said, "type": "string"}, {**said, "type": "number"}]}
    assert prop({"type": "null"}, "gemini") == {"type": "string", "nullable": True}


def test_gemini_has_enums_of_strings_only() -> None:
    assert prop({"enum": ["a", "b"]}, "gemini") == {"type": "string", "enum": ["a", "b"]}
    assert prop({"enum": [1, 2]}, "gemini") == {"type": "integer", "description": "one of: 1, 2"}
    assert prop({"enum": ["", "a"]}, "gemini") == {
        "type": "string",
        "description": 'one of: "", "a"',
    }
    assert prop({"enum": ["a", None]}, "gemini") == {
        "type": "string",
        "nullable": True,
        "enum": ["a"],
    }


def test_gemini_has_few_formats() -> None:
    assert prop({"type": "string", "format": "enum"}, "gemini") == STRINGS
    assert prop({"type": "string", "format": "uri"}, "gemini") == {
        "type": "string",
        "description": "format: uri",
    }
    dated = {"type": "string", "format": "date-time"}
    assert prop(dated, "gemini") == dated


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("llamacpp", {"type": "null"}),
        ("gemini", {"type": "string", "nullable": True}),
        ("strict", {"type": "null"}),
    ],
)
def test_alternatives_of_nothing_but_null(profile: SchemaProfile, expected: Json) -> None:
    assert prop({"anyOf": [{"type": "null"}, {"const": None}]}, profile) == expected


def test_gemini_requires_only_properties_that_are_there() -> None:
    schema = obj({"a": STRINGS}, "a", "b", additionalProperties=False)
    assert fit(schema, "gemini") == obj({"a": STRINGS}, "a")


# Strict


def test_strict_requires_every_property_and_lets_the_optional_ones_be_null() -> None:
    schema = obj(
        {
            "a": STRINGS,
            "b": {"type": "string", "enum": ["x"]},
            "c": {"anyOf": [STRINGS, {"type": "integer"}]},
        },
        "a",
    )
    assert fit(schema, "strict") == {
        "type": "object",
        "properties": {
            "a": STRINGS,
            "b": {"type": ["string", "null"], "enum": ["x", None]},
            "c": {"anyOf": [STRINGS, {"type": "integer"}, {"type": "null"}]},
        },
        "required": ["a", "b", "c"],
        "additionalProperties": False,
    }


def test_strict_writes_open_objects_as_text() -> None:
    assert prop({"type": "object", "additionalProperties": STRINGS}, "strict") == {
        "type": "string",
        "description": "a JSON object, written as text",
    }


def test_strict_never_says_so_itself() -> None:
    assert "strict" not in json.dumps(fit(PYDANTIC, "strict"))


def test_strict_has_few_formats() -> None:
    assert prop({"type": "string", "format": "uri"}, "strict") == {
        "type": "string",
        "description": "format: uri",
    }
    assert prop({"type": "string", "format": "email"}, "strict")["format"] == "email"
