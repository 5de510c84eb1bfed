"""Tool schemas in the part of JSON Schema that an inference server can compile (P1).

One tool whose schema a server cannot compile fails every request that offers it, and the error
names no tool. So a schema is loosened to the server's profile before it is offered. The original
still checks the arguments (`tools/validation.py`), so what is left open here is never let through,
only said less exactly; what is dropped and still useful to a model goes into the description.

Three steps. *Expansion* writes out references and leaves out what is not JSON Schema. The *plain*
form (not for `openai`) says the same with few keywords. The *dialect* writes that down with the
keywords that a profile has.

    all        `$ref` (written out; inside itself: an object with a description; remote: open),
               `$defs`, `$id`, anchors; keywords with impossible values; patterns that Python
               cannot compile or that look around (OpenAI compiles them with Python, and refuses
               look-around in places); tuples (become `items` with `anyOf`); what is nested too
               deeply or over the budget; at the top, everything that is not one object: `anyOf`
               and the like are united, `enum`, `const`, `not` dropped
    llamacpp   + `pattern`, lengths and bounds (repetitions over 2,000, half-supported regular
               expressions, 64-bit overflows), `allOf` (merged: its converter requires every
               property of it), `not`, conditions, `additionalProperties` beside property names
               its grammar cannot exclude; `{}` (means an object there: all types are listed)
    gemini     + all but `type`, `nullable`, `description`, `properties`, `required`, `items`,
               `anyOf` (alone, as Vertex wants it), `enum` of strings, the few formats it knows;
               its proto parser refuses a request for one unknown field
    strict     + what OpenAI's structured outputs do not have; every property is required (the
               optional ones may be null), objects are closed; objects without known properties
               become JSON text, which the argument check reads. `strict: true` is never set here

Sources: json-schema-to-grammar.cpp and llama.cpp issues 14227, 17574, 25746, 26930, 27580, 27859;
Gemini's `Schema` reference, opencode 14700 and 46676, cline 7339, gemini-cli 5923; OpenAI's
structured outputs guide, langchainjs 9804, fastmcp 2464, litellm 40485, git-mcp-server 47.
"""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from mcp_bridge.config.settings import SchemaProfile
from mcp_bridge.types import Json

BUDGET = 100_000
"""About how many characters an expanded schema has: references multiply."""
MAX_STEPS = 64
"""Schemas inside schemas of every kind: alternatives and references too."""
MAX_NOTE = 200

Change = Callable[[Json], Json]


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a profile writes schemas. `depth`: how deeply they may be nested."""

    depth: int
    plain: Change
    node: Change
    root: Change


def fit(schema: Json, profile: SchemaProfile) -> Json:
    """The schema as `profile` can compile it: an object, loosened where it must be."""
    dialect = DIALECTS[profile]
    tree = _Expansion(schema, dialect.depth).tree()
    tree = _as_object(_changed(tree, dialect.plain))
    return dialect.root(_below(tree, dialect.node))


# Keywords

ONE = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords whose value is a schema."""
MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED = frozenset({"dependentSchemas", "patternProperties", "properties"})
NESTING = ONE | MANY | NAMED
ON_OFF = frozenset(
    {"additionalItems", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords whose schema is often just true or false."""
LEFT_OUT = frozenset(
    {
        "$anchor",
        "$defs",
        "$dynamicAnchor",
        "$dynamicRef",
        "$id",
        "$recursiveAnchor",
        "$recursiveRef",
        "$vocabulary",
        "definitions",
        "dependencies",
    }
)
ANNOTATIONS = ("title", "description", "default", "examples", "deprecated")

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
TYPE_WORDS = {name: name for name in TYPES} | {
    "str": "string",
    "text": "string",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "tuple": "array",
    "none": "null",
}
"""What servers write instead of JSON Schema's types."""

_NOTHING = object()


# Expansion


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a schema the expansion is.

    `depth` counts the values around it, `steps` the schemas. `refs` are being written out here;
    `scopes` are schemas around it with definitions of their own, which references of wrapped
    schemas mean (`#/$defs/…` counted from there).
    """

    depth: int = 0
    steps: int = 0
    refs: tuple[str, ...] = ()
    scopes: tuple[Json, ...] = ()

    def inside(self, schema: Json) -> "_Place":
        defines = "$defs" in schema or "definitions" in schema
        scopes = (schema, *self.scopes) if defines else self.scopes
        return replace(self, steps=self.steps + 1, scopes=scopes)

    def deeper(self) -> "_Place":
        return replace(self, depth=self.depth + 1)

    def following(self, ref: str) -> "_Place":
        return replace(self, steps=self.steps + 1, refs=(*self.refs, ref))


class _Expansion:
    """A copy of a schema without references, and without what is not JSON Schema."""

    def __init__(self, document: Json, depth: int) -> None:
        self._document = document
        self._depth = depth
        self._left = BUDGET

    def tree(self) -> Json:
        return self._schema(self._document, _Place())

    def _schema(self, schema: Any, place: _Place) -> Json:
        if not isinstance(schema, dict):
            return {}
        self._left -= 20 + sum(len(v) for v in schema.values() if isinstance(v, str | list | dict))
        too_deep = place.depth > self._depth and schema.keys() & (NESTING | {"$ref"})
        if too_deep or place.steps > MAX_STEPS or self._left < 0:
            return _stub(schema)
        if "$ref" in schema:
            return self._referred(schema, place)
        inside = place.inside(schema)
        made = {key: self._keyword(key, value, inside) for key, value in _modern(schema).items()}
        return {key: value for key, value in made.items() if value is not _NOTHING}

    def _referred(self, schema: Json, place: _Place) -> Json:
        ref = schema["$ref"]
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        target = self._target(ref, place) if isinstance(ref, str) else None
        if target is None:
            return self._schema(beside, place)
        if ref in place.refs:
            return {**_again(ref, target), **_stub(beside)}
        made = self._schema(target, place.following(ref))
        return _merged(self._schema(beside, place), made) if beside else made

    def _target(self, ref: str, place: _Place) -> Json | None:
        base, _, fragment = ref.partition("#")
        if base and base != self._document.get("$id"):
            return None
        found = (_pointed(root, fragment) for root in (self._document, *place.scopes))
        return next((target for target in found if isinstance(target, dict)), None)

    def _keyword(self, key: str, value: Any, place: _Place) -> Any:
        """A keyword's value, or `_NOTHING` when it can have no such value."""
        if key in LEFT_OUT:
            return _NOTHING
        if key in ONE:
            if isinstance(value, bool) and key in ON_OFF:
                return value
            return self._schema(value, place.deeper()) if isinstance(value, dict) else _NOTHING
        if key in MANY:
            schemas = value if isinstance(value, list) else []
            there = place.deeper() if key == "prefixItems" else place
            made = [self._schema(item, there) for item in schemas if item is not False]
            return made or _NOTHING
        if key in NAMED:
            if not isinstance(value, dict):
                return _NOTHING
            names = filter(_is_pattern, value) if key == "patternProperties" else value
            return {name: self._schema(value[name], place.deeper()) for name in names}
        return SOUND[key](value) if key in SOUND else _tame(value)


def _pointed(root: Any, fragment: str) -> Any:
    """What a JSON pointer points at, or None."""
    if fragment and not fragment.startswith("/"):
        return None
    for step in unquote(fragment).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(root, dict):
            root = root.get(key)
        elif isinstance(root, list) and key.isascii() and key.isdigit():
            root = root[int(key)] if int(key) < len(root) else None
        else:
            return None
    return root


def _stub(schema: Json) -> Json:
    """What is left of a schema where the expansion stops."""
    types, description = _types(schema.get("type")), schema.get("description")
    made = {} if types is _NOTHING else {"type": types}
    return {**made, "description": description} if isinstance(description, str) else made


def _again(ref: str, target: Json) -> Json:
    name = ref.rpartition("/")[2].lstrip("#")
    said = f"{name} again, as described above" if name else "The same again, as described above"
    return {"type": "object", **_stub(target), "description": said}


def _modern(schema: Json) -> Json:
    """Draft 4's exclusive bounds, OpenAPI's `nullable` and draft 7's tuples as of today."""
    made = dict(schema)
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if made.get(exclusive) is True and bound in made:
            made[exclusive] = made.pop(bound)
    if made.get("nullable") is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        del made["nullable"]
    if isinstance(made.get("items"), list):
        made["prefixItems"] = made.pop("items")
        made["items"] = made.pop("additionalItems", False)
    return made


def _types(value: Any) -> Any:
    if isinstance(value, str):
        return TYPE_WORDS.get(value.lower(), _NOTHING)
    words = value if isinstance(value, list) else []
    known = [TYPE_WORDS.get(word.lower()) for word in words if isinstance(word, str)]
    return list(dict.fromkeys(name for name in known if name)) or _NOTHING


def _enum(value: Any) -> Any:
    return _unique(value) if isinstance(value, list) and value and _is_tame(value) else _NOTHING


def _names(value: Any) -> Any:
    if not isinstance(value, list):
        return _NOTHING
    return list(dict.fromkeys(name for name in value if isinstance(name, str)))


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, str) or re.search(r"\(\?(?:[=!]|<[=!])|\\[1-9]", value):
        return False
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_tame(value: Any, depth: int = 16) -> bool:
    """Whether a value that is no schema can be passed on: not deep, and no reference in it."""
    match value:
        case dict():
            inner: Iterable[Any] = value.values()
            return depth > 0 and "$ref" not in value and all(_is_tame(v, depth - 1) for v in inner)
        case list():
            return depth > 0 and all(_is_tame(item, depth - 1) for item in value)
        case _:
            return True


def _tame(value: Any) -> Any:
    return value if _is_tame(value) else _NOTHING


def _when(is_sound: Callable[[Any], bool]) -> Callable[[Any], Any]:
    return lambda value: value if is_sound(value) else _NOTHING


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_TEXT = _when(lambda value: isinstance(value, str))
_COUNT = _when(_is_count)
_NUMBER = _when(_is_number)
_FLAG = _when(lambda value: isinstance(value, bool))

SOUND: Mapping[str, Callable[[Any], Any]] = {
    "type": _types,
    "enum": _enum,
    "required": _names,
    "pattern": _when(_is_pattern),
    "multipleOf": _when(lambda value: _is_number(value) and value > 0),
    "dependentRequired": _when(
        lambda value: isinstance(value, dict) and all(_names(v) == v for v in value.values())
    ),
    "examples": _when(lambda value: isinstance(value, list) and _is_tame(value)),
    **dict.fromkeys(("$comment", "$schema", "title", "description", "format"), _TEXT),
    **dict.fromkeys(("contentEncoding", "contentMediaType"), _TEXT),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _FLAG),
}
"""What the values of keywords must be, for servers check them."""


# Trees


def _changed(tree: Json, change: Change) -> Json:
    """The tree with every schema changed, the inner ones first."""
    return change(_below(tree, change))


def _below(tree: Json, change: Change) -> Json:
    made: Json = {}
    for key, value in tree.items():
        if key in ONE and isinstance(value, dict):
            made[key] = _changed(value, change)
        elif key in MANY:
            made[key] = [_changed(item, change) for item in value]
        elif key in NAMED:
            made[key] = {name: _changed(item, change) for name, item in value.items()}
        else:
            made[key] = value
    return made


def _unique(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, sort_keys=True): value for value in values}.values())


def _type_list(schema: Json) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else list(types)


def _one_or_many(types: list[str]) -> str | list[str]:
    return types[0] if len(types) == 1 else types


def _merged(first: Json, second: Json) -> Json:
    """Both must hold: as far as one schema can say that; the rest is left open."""
    made = dict(first)
    for key, value in second.items():
        old = first.get(key, _NOTHING)
        if old is _NOTHING:
            made[key] = value
        elif key == "properties":
            both = {n: _merged(old[n], value[n]) for n in old if n in value}
            made[key] = {**old, **value, **both}
        elif key == "required":
            made[key] = list(dict.fromkeys([*old, *value]))
        elif key == "enum":
            made[key] = [item for item in old if item in value] or old
        elif key == "type":
            shared = [name for name in _type_list(first) if name in _type_list(second)]
            made[key] = _one_or_many(shared) if shared else old
    if any("type" in schema and "nullable" not in schema for schema in (first, second)):
        made.pop("nullable", None)
    for closed in (first, second):
        if closed.get("additionalProperties") is False:
            if made.get("properties", {}).keys() - closed.get("properties", {}).keys():
                made.pop("additionalProperties", None)
    return made


def _united(base: Json, variants: list[Json]) -> Json:
    """One object for all variants: their properties, and what every one of them requires.

    A property is described as by those that have it; that the others allow anything there is no
    use to a model.
    """
    objects = [v for v in variants if "properties" in v or _type_list(v) in ([], ["object"])]
    found: dict[str, list[Json]] = {}
    for variant in objects:
        for name, schema in variant.get("properties", {}).items():
            found.setdefault(name, []).append(schema)
    properties = {name: _either(schemas) for name, schemas in found.items()}
    lists = [variant.get("required", []) for variant in objects]
    shared = [name for name in lists[0] if all(name in names for names in lists)] if lists else []
    required = list(dict.fromkeys([*base.get("required", []), *shared]))
    made = {**base, "properties": {**properties, **base.get("properties", {})}}
    if required:
        made["required"] = required
    choices = _unique([name for name in names if name not in required] for names in lists)
    return _with_note(made, _choice_note(choices)) if all(choices) and len(choices) > 1 else made


def _choice_note(choices: list[list[str]]) -> str:
    return "give one of: " + "; or ".join(" and ".join(names) for names in choices)


def _either(schemas: list[Json]) -> Json:
    """One of several schemas of a property; constants become one list."""
    schemas = _unique(schemas)
    if len(schemas) == 1:
        return schemas[0]
    if all("enum" in schema or "const" in schema for schema in schemas):
        values = [v for s in schemas for v in (s["enum"] if "enum" in s else [s["const"]])]
        first = {key: value for key, value in schemas[0].items() if key not in ("const", "type")}
        types = _unique(name for schema in schemas for name in _type_list(schema))
        made = {**first, "enum": _unique(values)}
        return {"type": _one_or_many(types), **made} if types else made
    return {"anyOf": schemas}


def _as_object(tree: Json) -> Json:
    """The top of a tool's schema, which has to be one object."""
    made = dict(tree)
    while branches := made.pop("allOf", []):
        for branch in branches:
            made = _merged(made, branch)
    if variants := [*made.pop("anyOf", []), *made.pop("oneOf", [])]:
        made = _united(made, variants)
    made = {k: v for k, v in made.items() if k not in ("enum", "const", "not", "nullable")}
    made["type"] = "object"
    return made if "properties" in made else {**made, "properties": {}}


def _arrays(schema: Json) -> Json:
    """Arrays say what is in them, and tuples say it for all places at once."""
    if "prefixItems" in schema:
        made = {key: value for key, value in schema.items() if key != "prefixItems"}
        more = [schema["items"]] if "items" in schema else []
        return {**made, "items": _either([*schema["prefixItems"], *more])}
    if "array" in _type_list(schema) and "items" not in schema:
        return {**schema, "items": {}}
    return schema


# The plain form


def _plain(schema: Json) -> Json:
    """The same with fewer words.

    No `allOf`, `oneOf`, `const`, tuples or `null`, which is said by `nullable`. A schema with
    `anyOf` has besides it only annotations. Types are said wherever they are clear; an empty list
    of types means nothing but null.
    """
    made = {key: value for key, value in schema.items() if key not in ("allOf", "anyOf", "oneOf")}
    if "const" in made:
        made["enum"] = made.get("enum", [made["const"]])
        del made["const"]
    if "patternProperties" in made:
        made.pop("additionalProperties", None)
        del made["patternProperties"]
    for branch in schema.get("allOf", []):
        made = _merged(made, branch)
    made = _arrays(_scalar_enum(_typed(made)))
    variants = schema.get("anyOf") or schema.get("oneOf") or made.get("anyOf")
    made.pop("anyOf", None)
    return _null_apart(_varied(made, variants) if variants else made)


def _typed(schema: Json) -> Json:
    """Say the type where other keywords leave no doubt."""
    if "type" in schema:
        return schema
    if "properties" in schema or "additionalProperties" in schema:
        return {"type": "object", **schema}
    if "items" in schema or "prefixItems" in schema:
        return {"type": "array", **schema}
    if "enum" in schema:
        return {"type": _one_or_many(_unique(map(_type_of, schema["enum"]))), **schema}
    return schema


def _scalar_enum(schema: Json) -> Json:
    """Only plain values are listed, and then the type is theirs."""
    if "enum" not in schema:
        return schema
    values = schema["enum"]
    if any(isinstance(value, dict | list) for value in values):
        made = {key: value for key, value in schema.items() if key != "enum"}
        return _with_note(made, _note("enum", values))
    types = [name for name in _type_list(schema) if name not in ("object", "array")]
    return {**schema, "type": _one_or_many(types or _unique(map(_type_of, values)))}


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _varied(base: Json, variants: list[Json]) -> Json:
    """A schema that has alternatives, which have to stand by themselves."""
    if "object" in _type_list(base):
        return _united(base, variants)
    said = {key: base[key] for key in ANNOTATIONS if key in base}
    own = {key: value for key, value in base.items() if key not in said}
    flat = [inner for variant in variants for inner in variant.get("anyOf", [variant])]
    if not all(variant.keys() - {*ANNOTATIONS, "nullable"} for variant in flat):
        return base  # one of them takes anything
    each = [_null_apart(_merged(variant, own)) for variant in flat]
    alone = _unique(variant for variant in each if variant.get("type") != [])
    nullable = any(v.get("nullable") or v.get("type") == [] for v in (*each, *variants))
    if not alone:
        return {**said, "type": []}
    made = {**alone[0], **said} if len(alone) == 1 else {**said, "anyOf": alone}
    return {**made, "nullable": True} if nullable else made


def _null_apart(schema: Json) -> Json:
    types, enum = _type_list(schema), schema.get("enum", [])
    if "null" not in types and None not in enum:
        return schema
    others = [name for name in types if name != "null"]
    made = {**schema, "nullable": True, "type": _one_or_many(others)}
    if enum:
        made["enum"] = [value for value in enum if value is not None]
        if not made["enum"]:
            made["type"] = []
            del made["enum"]
    return made


# The dialects

NOTED = (
    *("format", "pattern", "enum", "default", "multipleOf", "minLength", "maxLength"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
)
"""What a model can use when it reads it in the description."""
SCALARS = ["string", "number", "boolean"]


def _kept(schema: Json, keywords: frozenset[str]) -> Json:
    """Only these keywords; the description tells of the others."""
    made = {key: value for key, value in schema.items() if key in keywords}
    notes = [_note(key, schema[key]) for key in NOTED if key in schema and key not in keywords]
    return _with_note(made, ", ".join(note for note in notes if note))


def _note(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "enum":
        text = "one of: " + ", ".join(json.dumps(item, ensure_ascii=False) for item in value)
    else:
        text = f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
    return text if len(text) <= MAX_NOTE else ""


def _with_note(schema: Json, note: str) -> Json:
    if not note:
        return schema
    description = schema.get("description")
    return {**schema, "description": f"{description} ({note})" if description else note}


def _or_null(schema: Json) -> Json:
    """The same, or null, in JSON Schema's words."""
    made = dict(schema)
    if "anyOf" in made:
        made["anyOf"] = _unique([*made["anyOf"], {"type": "null"}])
    elif "type" in made:
        made["type"] = _one_or_many(list(dict.fromkeys([*_type_list(made), "null"])))
        if "enum" in made:
            made["enum"] = _unique([*made["enum"], None])
    return made


def _said_null(schema: Json) -> Json:
    made = {key: value for key, value in schema.items() if key != "nullable"}
    return _or_null(made) if schema.get("nullable") or schema.get("type") == [] else made


def _same(schema: Json) -> Json:
    return schema


LLAMACPP = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "anyOf", "enum"),
        *("format", "nullable", *ANNOTATIONS),
    }
)


def _llamacpp(schema: Json) -> Json:
    made = _kept(schema, LLAMACPP)
    if "properties" in made:
        made["properties"] = {n: v for n, v in made["properties"].items() if n != "$ref"}
    properties = made.get("properties", {})
    if not properties:  # an object with none of them would be the empty one
        made = {k: v for k, v in made.items() if k not in ("properties", "required")}
    elif not all(re.fullmatch(r"\w+", name, re.ASCII) for name in properties):
        if made.get("additionalProperties") is not False:
            made.pop("additionalProperties", None)
    if not made.keys() & {"type", "anyOf"}:
        made["type"] = ["string", "number", "boolean", "object", "array", "null"]
    return _said_null(made)


GEMINI_FORMATS = {
    "string": ("date-time", "enum"),
    "integer": ("int32", "int64"),
    "number": ("float", "double"),
}


def _gemini(schema: Json) -> Json:
    types = _type_list(schema)
    if "anyOf" in schema:
        return _gemini_union(schema, schema["anyOf"])
    if types == [] and "type" in schema:
        return {**_kept(schema, frozenset({"description"})), "type": "string", "nullable": True}
    if len(types) == 1:
        return _gemini_one(schema)
    of = types or SCALARS
    return _gemini_union(schema, [_gemini_one({**_of_type(schema, name)}) for name in of])


def _of_type(schema: Json, name: str) -> Json:
    """One alternative of a schema with several types."""
    made = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    if "enum" in made:
        made["enum"] = [value for value in made["enum"] if _type_of(value) == name]
        if not made["enum"]:
            del made["enum"]
    return {**made, "type": name}


def _gemini_one(schema: Json) -> Json:
    (kind,) = _type_list(schema)
    keywords = {"description", "nullable", "type"}
    if schema.get("format") in GEMINI_FORMATS.get(kind, ()):
        keywords |= {"format"}
    if kind == "string" and all(isinstance(v, str) and v for v in schema.get("enum", [])):
        keywords |= {"enum"}
    if kind == "object":
        keywords |= {"properties", "required"}
    if kind == "array":
        keywords |= {"items"}
    made = {**_kept(schema, frozenset(keywords)), "type": kind}
    if made.get("format") == "enum" and "enum" not in made:
        del made["format"]
    if "required" in made:
        made["required"] = [n for n in made["required"] if n in made.get("properties", {})]
        if not made["required"]:
            del made["required"]
    return made


def _gemini_union(schema: Json, variants: list[Json]) -> Json:
    """Nothing may stand beside `anyOf`, so the alternatives carry what was there."""
    said = _kept(schema, frozenset({"description", "nullable"}))
    flat = [inner for variant in variants for inner in variant.get("anyOf", [variant])]
    return {"anyOf": _unique({**said, **variant} for variant in flat)}


STRICT = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "anyOf", "enum"),
        *("title", "description", "nullable", "pattern", "format", "multipleOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
    }
)
STRICT_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
)


def _strict(schema: Json) -> Json:
    made = _strictly_kept(schema)
    if "anyOf" not in made:
        made.setdefault("type", SCALARS)
    if made.get("properties"):
        return _said_null(_closed(made))
    types = _type_list(made)
    if "object" in types:
        # A closed object without properties holds nothing, so the model writes it as text.
        made = _kept(made, frozenset({"title", "description", "nullable", "type", "items"}))
        others = [name for name in types if name not in ("object", "string")]
        made["type"] = _one_or_many(["string", *others])
        made = _with_note(made, "a JSON object, written as text")
    return _said_null(made)


def _strictly_kept(schema: Json) -> Json:
    known = schema.get("format") in STRICT_FORMATS
    return _kept(schema, STRICT if known else STRICT - {"format"})


def _closed(schema: Json) -> Json:
    """Every property is required; those that were optional may be null."""
    required = schema.get("required", [])
    properties = {
        name: value if name in required else _or_null(value)
        for name, value in schema["properties"].items()
    }
    made = {**schema, "properties": properties, "required": list(properties)}
    return {**made, "additionalProperties": False}


def _strict_root(schema: Json) -> Json:
    return _closed({k: v for k, v in _strictly_kept(schema).items() if k != "nullable"})


DIALECTS: Mapping[SchemaProfile, _Dialect] = {
    "openai": _Dialect(32, _arrays, _same, _same),
    "llamacpp": _Dialect(16, _plain, _llamacpp, lambda tree: _as_object(_llamacpp(tree))),
    "gemini": _Dialect(3, _plain, _gemini, _gemini_one),
    "strict": _Dialect(8, _plain, _strict, _strict_root),
}
"""Depths: real tools nest up to 12 levels (gonka 1187); Gemini takes four objects and arrays inside
each other (Portkey 1616), OpenAI's structured outputs ten levels."""
