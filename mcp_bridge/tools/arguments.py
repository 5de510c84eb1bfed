"""From the text a model wrote to arguments that a tool can be called with (L6).

Empty becomes `{}`. What does not parse or does not fit the tool's own schema is not called: the
model gets an error it can act on. Values of the wrong type are mended only after the schema has
refused them, and only where it leaves no doubt about what was meant.
"""

from typing import Any

from mcp_bridge.exact import loads, nested, text_of
from mcp_bridge.tools.source import Tool
from mcp_bridge.types import Json

MAX_DEPTH = 100
SHOWN_TEXT = 400
SHOWN_SCHEMA = 2000


class BadArguments(Exception):
    """The arguments cannot be used; the message is written for the model."""


def read(text: str, tool: Tool) -> Json:
    """Parse and check the arguments of a call.

    Raises:
        BadArguments: they are not JSON, not an object, or do not fit the tool's schema.
    """
    schema = tool.input_schema
    arguments = parse(text, schema)
    if tool.plain is not None and tool.plain.surely_fits(arguments):
        return arguments
    # Here, for jsonschema is 3 MiB, and most arguments are plain.
    from mcp_bridge.tools.validation import fitted

    return fitted(arguments, schema)


def parse(text: str, schema: Json) -> Json:
    """The arguments as an object, not yet checked."""
    value = value_of(text, schema) if text.strip() else {}
    if isinstance(value, str) and value.strip():
        value = value_of(value, schema)  # JSON in a JSON string: some models quote twice
    if isinstance(value, dict):
        return value
    if value is None or value == "":
        return {}
    raise BadArguments(
        f"The arguments must be a JSON object, not {kind(value)}. {expected(schema)}"
    )


def value_of(text: str, schema: Json) -> Any:
    try:
        # Raw line breaks inside strings are common, and their meaning is clear.
        value = loads(text.encode("utf-8", "replace"), strict=False)
    except ValueError as exc:
        raise BadArguments(
            f"The arguments are not valid JSON ({exc}): {text[:SHOWN_TEXT]!r}. {expected(schema)}"
        ) from exc
    if len(text) > 2 * MAX_DEPTH and nested(value, MAX_DEPTH):  # each level has two brackets
        raise BadArguments(f"The arguments are nested more than {MAX_DEPTH} levels deep.")
    return value


def kind(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "null"


def expected(schema: Json) -> str:
    text = text_of(schema)
    shown = text if len(text) <= SHOWN_SCHEMA else text[:SHOWN_SCHEMA] + "…"
    return f"Call it again with arguments that fit this schema: {shown}"
