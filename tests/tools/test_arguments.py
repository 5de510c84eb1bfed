"""From the text a model wrote to arguments that a tool can be called with (L6)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.tools import arguments
from mcp_bridge.tools.arguments import BadArguments
from mcp_bridge.tools.source import Tool
from mcp_bridge.types import Json

ANYTHING: Json = {"type": "object"}


def of(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def read(text: str, schema: Json) -> Json:
    return arguments.read(text, Tool("x", "t", {"name": "t", "inputSchema": schema}))


def refusal(text: str, schema: Json) -> str:
    with pytest.raises(BadArguments) as caught:
        read(text, schema)
    return str(caught.value)


# Reading


@pytest.mark.parametrize("text", ["", "  \n", "null", '""', "{}", '"{}"'])
def test_arguments_that_are_empty_in_any_way_are_an_empty_object(text: str) -> None:
    assert read(text, ANYTHING) == {}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"a": 1}', {"a": 1}),
        (' {"a" :1.5, "b": [true, null]} ', {"a": 1.5, "b": [True, None]}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": "two\nlines\tand a tab"}', {"a": "two\nlines\tand a tab"}),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        ('{"a": 18446744073709551616}', {"a": 2**64}),
        ('{"a": "\\ud83d\\ude00 \\ud83d"}', {"a": "😀 \ufffd"}),
        ('{"a": "\ud83d"}', {"a": "?"}),
    ],
)
def test_what_a_model_means_is_read_and_no_number_is_rounded(text: str, arguments: Json) -> None:
    assert read(text, ANYTHING) == arguments


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": ', "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e999}', "the number 1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits is too large"),
        ("[1]", "must be a JSON object, not a list"),
        ("true", "not a boolean"),
        ("7", "not a number"),
        ('"hello"', "not valid JSON"),
        ('{"a": ' + "[" * 150 + "]" * 150 + "}", "nested more than 100 levels deep"),
        ('{"a":' * 100_000, "not valid JSON"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words_for_the_model(text: str, said: str) -> None:
    assert said in refusal(text, ANYTHING)


def test_a_refusal_shows_what_was_written_and_the_schema_but_not_without_end() -> None:
    schema = of(city={"type": "string", "description": "d" * 10_000})
    message = refusal('{"city": Paris' + "x" * 10_000, schema)
    assert '{"city": Paris' in message
    assert '"properties"' in message
    assert len(message) < 3000


# Checking


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "'city' is a required property"),
        ('{"city": {"name": "Paris"}}', "city: {'name': 'Paris'} is not of type 'string'"),
        ('{"city": "Paris", "days": "many"}', "days: 'many' is not of type 'integer'"),
        ('{"city": "Paris", "days": 99}', "days: 99 is greater than the maximum of 7"),
        ('{"city": "Paris", "town": "Lyon"}', "'town' was unexpected"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_place_and_the_reason(
    text: str, said: str
) -> None:
    schema = {
        **of(city={"type": "string"}, days={"type": "integer", "maximum": 7}),
        "required": ["city"],
        "additionalProperties": False,
    }
    message = refusal(text, schema)
    assert said in message
    assert "Call it again with arguments that fit this schema" in message


def test_of_several_possibilities_the_likeliest_reason_is_given() -> None:
    schema = of(day={"anyOf": [{"type": "integer"}, {"type": "null"}]})
    assert "day: 'tuesday' is not of type" in refusal('{"day": "tuesday"}', schema)


def test_a_thousand_mistakes_are_told_briefly() -> None:
    schema = of(a={"type": "array", "items": {"type": "integer"}})
    assert len(refusal(json.dumps({"a": ["x"] * 1000}), schema)) < 1000


# Mending


@pytest.mark.parametrize(
    ("schema", "given", "mended"),
    [
        ({"type": "integer"}, "5", 5),
        ({"type": "integer"}, " -5 ", -5),
        ({"type": "number"}, "2.5", 2.5),
        ({"type": "integer"}, "123456789012345678901234567890", 123456789012345678901234567890),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "False", False),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, '["1", 2]', [1, 2]),
        ({"type": "object"}, '{"b": 1}', {"b": 1}),
        (
            {"type": "object", "properties": {"b": {"type": "boolean"}}},
            '{"b": "true"}',
            {"b": True},
        ),
        ({"type": "string"}, 5, "5"),
        ({"type": ["integer", "null"]}, "5", 5),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "5", 5),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "True", True),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "None", None),
        ({"oneOf": [{"$ref": "#/$defs/list"}, {"type": "null"}]}, "[1]", [1]),
        ({"enum": [1, 2]}, "2", 2),
        ({"const": 7}, "7", 7),
    ],
)
def test_a_value_of_the_wrong_type_is_mended_where_the_schema_leaves_no_doubt(
    schema: Json, given: Any, mended: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    whole = {**of(a=schema), "$defs": {"list": {"type": "array"}}}
    assert read(json.dumps({"a": given}), whole) == {"a": mended}
    assert "an argument was mended: 'a' was" in caplog.text


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        ({"type": "string"}, "5"),
        ({"type": "string"}, "true"),
        ({"type": ["string", "integer"]}, "5"),
        ({"anyOf": [{"type": "string"}, {"type": "array"}]}, "[1]"),
        ({}, "5"),
        ({"type": "integer"}, 5.0),
    ],
)
def test_a_value_that_fits_is_never_touched(schema: Json, given: Any) -> None:
    value = read(json.dumps({"a": given}), of(a=schema))["a"]
    assert value == given
    assert type(value) is type(given)


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        ({"type": "integer"}, "five"),
        ({"type": "integer"}, "5.5"),
        ({"type": "integer"}, True),
        ({"type": "boolean"}, "yes"),
        ({"type": "boolean"}, 1),
        ({"type": "string"}, 1.10),
        ({"type": "string"}, True),
        ({"type": "string"}, {"a": 1}),
        ({"type": "array"}, "a, b"),
        ({"type": "array"}, {"b": 1}),
        ({"type": "integer", "maximum": 7}, 8),
        ({"anyOf": [{"type": "integer", "maximum": 7}, {"type": "null"}]}, "8"),
        ({"enum": ["asc", "desc"]}, "ASC"),
    ],
)
def test_a_value_that_leaves_doubt_is_refused(schema: Json, given: Any) -> None:
    assert "a: " in refusal(json.dumps({"a": given}), of(a=schema))


def test_null_for_what_may_be_left_out_is_left_out() -> None:
    schema = of(a={"type": "string"}, b={"type": "integer"}, c={"type": ["string", "null"]})
    assert read('{"a": null, "b": 1, "c": null}', schema) == {"b": 1, "c": None}
    required = {**schema, "required": ["a"]}
    assert "'a' is a required property" in refusal('{"a": null}', required)


def test_values_deep_inside_are_mended_too() -> None:
    row = of(n={"type": "integer"}, on={"type": "boolean"})
    schema = of(rows={"type": "array", "items": row})
    text = '{"rows": [{"n": "1"}, "{\\"n\\": \\"2\\", \\"on\\": \\"true\\"}"]}'
    assert read(text, schema) == {"rows": [{"n": 1}, {"n": 2, "on": True}]}


# Schemas are foreign


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "object", "properties": []},
        {"type": "object", "required": "city"},
        {"type": "object", "properties": {"a": {"minimum": "5"}}},
        {"type": "object", "properties": {"a": {"multipleOf": 0}}},
        {"$schema": 7},
        {"$schema": ["x"]},
        {"$schema": "http://["},
        {"type": "object", "$ref": 5},
        {"type": "object", "properties": {"a": {"type": [{"type": "string"}, "null"]}}},
        {"type": "object", "properties": {"a": {"default": 10**1500}}},
    ],
)
def test_a_schema_that_is_none_checks_nothing(schema: Json) -> None:
    assert read('{"a": 1}', schema) == {"a": 1}


@pytest.mark.parametrize(
    "dialect",
    [
        None,
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
        "urn:unheard-of",
    ],
)
def test_every_dialect_is_checked_and_bounded(dialect: str | None) -> None:
    schema = of(a={"$ref": "#/definitions/s"}, b={"type": "string", "pattern": EVIL})
    schema |= {"definitions": {"s": {"type": "string"}}} | ({"$schema": dialect} if dialect else {})
    assert read(json.dumps({"a": "x", "b": LONG}), schema) == {"a": "x", "b": LONG}
    assert "a: [] is not of type 'string'" in refusal('{"a": []}', schema)


@pytest.mark.parametrize(
    "ref", ["http://127.0.0.1:1/schema.json", "file:///etc/passwd", "#/nowhere", "other.json"]
)
def test_a_reference_that_leads_elsewhere_is_not_followed(ref: str) -> None:
    schema = of(a={"type": "integer"}, b={"$ref": ref})
    assert read('{"b": 1}', schema) == {"b": 1}
    assert "a: [] is not of type" in refusal('{"a": [], "b": 1}', schema)


EVIL = "^(a+)+$"
LONG = "a" * 5000 + "!"


@pytest.mark.parametrize(
    "schema",
    [
        of(a={"pattern": EVIL}),
        of(a={"pattern": "[", "type": "string"}),
        of(a={"pattern": "\\p{L}+"}),
        {**of(), "propertyNames": {"pattern": EVIL}},
        {**of(), "patternProperties": {EVIL: {"type": "integer"}}, "additionalProperties": False},
        {**of(), "patternProperties": {EVIL: {}}, "unevaluatedProperties": False},
        {
            "$id": "urn:x",
            "allOf": [{"$ref": "urn:x#/$defs/a"}],
            "$defs": {"a": of(a={"pattern": EVIL})},
        },
        of(a={"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL}),
    ],
)
def test_regular_expressions_are_left_to_the_server(schema: Json) -> None:
    assert read(json.dumps({"a": LONG, LONG: 1}), schema) == {"a": LONG, LONG: 1}


def test_a_schema_that_refers_to_itself_without_end_is_given_up() -> None:
    circle: Json = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert read('{"a": 1}', circle) == {"a": 1}
    doubling: Json = {"$ref": "#/$defs/d0", "$defs": {}}
    for level in range(60):
        below = {"$ref": f"#/$defs/d{level + 1}"}
        doubling["$defs"][f"d{level}"] = {"allOf": [below, below]}
    doubling["$defs"]["d60"] = {}
    assert read('{"a": 1}', doubling) == {"a": 1}


def test_a_schema_for_trees_is_followed_as_deep_as_trees_are() -> None:
    node = of(name={"type": "string"}, below={"type": "array", "items": {"$ref": "#/$defs/node"}})
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    tree: Json = {"name": 5}
    for _ in range(20):
        tree = {"name": "x", "below": [tree]}
    assert "'5'" in repr(read(json.dumps(tree), schema))


def test_a_schema_too_large_to_be_checked_lets_arguments_through() -> None:
    schema = of(**{f"p{n}": {"type": "string", "description": "d" * 50} for n in range(5000)})
    assert read('{"p1": 1}', schema) == {"p1": 1}


def test_a_schema_of_a_thousand_properties_is_checked() -> None:
    schema = of(**{f"p{n}": {"type": "string"} for n in range(1000)})
    assert "p1: [] is not" in refusal('{"p1": []}', schema)


def test_a_schema_nested_more_deeply_than_json_is_written_checks_nothing() -> None:
    deep: Json = {"type": "string"}
    for _ in range(1000):
        deep = {"not": deep}
    assert read('{"a": 1}', of(a=deep)) == {"a": 1}
    assert "not valid JSON" in refusal("{", of(a=deep))


def test_numbers_beyond_64_bits_are_fine_in_a_schema_too() -> None:
    schema = of(a={"type": "integer", "maximum": 2**70})
    assert read('{"a": 5}', schema) == {"a": 5}
    assert "greater than" in refusal('{"a": 9999999999999999999999999}', schema)


def test_many_items_that_must_be_unique_are_not_all_compared() -> None:
    schema = of(a={"type": "array", "uniqueItems": True})
    assert "non-unique" in refusal('{"a": [{}, {}]}', schema)
    many = json.dumps({"a": [{"n": n} for n in range(20_000)] + [{"n": 1}]})
    assert len(read(many, schema)["a"]) == 20_001


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
KEYWORDS = st.sampled_from(
    "type properties required items anyOf oneOf allOf not enum const $ref $defs minimum maximum "
    "multipleOf pattern patternProperties additionalProperties uniqueItems contains format if then "
    "minLength dependentRequired prefixItems unevaluatedProperties $id $anchor $schema".split()
)
SCHEMAS = st.recursive(
    st.dictionaries(KEYWORDS, JSON | st.sampled_from(["object", "string", "integer", "#", "a"])),
    lambda inner: st.dictionaries(
        KEYWORDS, inner | st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner)
    ),
    max_leaves=6,
)


@given(SCHEMAS, st.text() | JSON.map(json.dumps))
def test_whatever_the_schema_and_the_text_there_are_arguments_or_a_refusal(
    schema: Json, text: str
) -> None:
    try:
        assert isinstance(read(text, schema), dict)
    except BadArguments as exc:
        assert str(exc)
