"""Arguments so plain that a look at their types tells whether they fit the schema.

Most arguments are texts and numbers, and models nearly always get them right. Whatever is not
plain, and whatever does not surely fit, is left to the real check, which costs more than sending
the call (docs/performance.md).
"""

from collections.abc import Mapping
from types import NoneType
from typing import Any

from mcp_bridge.types import Json, frozen

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (NoneType,),
}
SAYS_NOTHING = frozenset({"title", "description", "default", "examples", "$comment"})
OF_AN_OBJECT = SAYS_NOTHING | {"type", "properties", "required", "additionalProperties", "$schema"}
OF_A_VALUE = SAYS_NOTHING | {"type"}


@frozen
class Plain:
    """The types of an object's fields, none for a field whose schema says more than types.

    What else it may have is anything, unless it is `closed`.
    """

    types: Mapping[str, frozenset[type]]
    required: tuple[str, ...]
    closed: bool

    def surely_fits(self, arguments: Json) -> bool:
        for name in self.required:
            if name not in arguments:
                return False
        for name, value in arguments.items():
            types = self.types.get(name)
            # `type` and not `isinstance`: True is no integer in JSON.
            if self.closed if types is None else type(value) not in types:
                return False
        return True


def plain(schema: Any) -> Plain | None:
    """What a schema of arguments comes to; None: it is no such schema, or asks for more."""
    if not isinstance(schema, dict) or not schema.keys() <= OF_AN_OBJECT:
        return None
    fields, required = schema.get("properties", {}), schema.get("required", [])
    others = schema.get("additionalProperties", True)
    if schema.get("type") != "object" or not isinstance(others, bool):
        return None
    if not isinstance(fields, dict) or not isinstance(required, list):
        return None
    if not all(isinstance(name, str) for name in required):
        return None
    types = {name: types_of(field) for name, field in fields.items()}
    return Plain(types, tuple(required), closed=not others)


def types_of(field: Any) -> frozenset[type]:
    """The types that a field may have; none when its schema says more, or less."""
    if not isinstance(field, dict) or not field.keys() <= OF_A_VALUE:
        return frozenset()
    names = field.get("type")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list):
        return frozenset()
    if not all(isinstance(name, str) and name in TYPES for name in names):
        return frozenset()
    return frozenset(kind for name in names for kind in TYPES[name])
