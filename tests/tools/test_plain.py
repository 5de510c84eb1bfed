"""A look at the types never lets through what the real check would refuse."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mcp_bridge.tools.plain import plain
from mcp_bridge.types import Json

TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null"])
FIELDS = st.fixed_dictionaries(
    {"type": TYPES | st.lists(TYPES, min_size=1, unique=True)},
    optional={"description": st.text(max_size=3), "default": st.integers()},
)
NAMES = st.sampled_from("abc")
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object")},
    optional={
        "properties": st.dictionaries(NAMES, FIELDS),
        "required": st.lists(NAMES, unique=True),
        "additionalProperties": st.booleans(),
    },
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(SCHEMAS, st.dictionaries(NAMES | st.just("d"), VALUES | st.lists(VALUES)))
def test_what_surely_fits_passes_the_real_check(schema: Json, arguments: Json) -> None:
    look = plain(schema)
    assert look is not None
    if look.surely_fits(arguments):
        assert Draft202012Validator(schema).is_valid(arguments)


@pytest.mark.parametrize(
    ("arguments", "fits"),
    [
        ({"n": 1}, True),
        ({"n": 1, "t": None}, True),
        ({"n": True}, False),
        ({"n": 1.0}, False),  # the real check takes it
        ({"n": 1, "x": 1}, False),
        ({"t": "a"}, False),
        ({}, False),
    ],
)
def test_arguments_of_the_right_types_fit_at_sight(arguments: Json, fits: bool) -> None:
    properties: Json = {"n": {"type": "integer"}, "t": {"type": ["string", "null"]}}
    look = plain(
        {
            "type": "object",
            "properties": properties,
            "required": ["n"],
            "additionalProperties": False,
        }
    )
    assert look is not None
    assert look.surely_fits(arguments) is fits


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"type": "integer", "minimum": 1}, 2),
        ({"type": "string", "enum": ["a"]}, "a"),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"type": "object"}, {}),
        ({"anyOf": [{"type": "string"}]}, "a"),
        ({}, 1),
        (True, 1),
    ],
)
def test_a_field_that_must_be_more_than_of_a_type_is_left_to_the_real_check(
    field: Any, value: Any
) -> None:
    look = plain({"type": "object", "properties": {"a": field, "b": {"type": "string"}}})
    assert look is not None
    assert not look.surely_fits({"a": value})
    assert look.surely_fits({"b": "x"})


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": {"type": "string"}},
        {"minProperties": 1},
        {"anyOf": [{"required": ["a"]}]},
        {"type": ["object", "null"]},
        {"properties": ["a"]},
        {"required": True},
        {"required": [["a"]]},
    ],
)
def test_an_object_with_further_conditions_is_not_plain(more: Json) -> None:
    assert plain({"type": "object", "properties": {"a": {"type": "string"}}, **more}) is None
