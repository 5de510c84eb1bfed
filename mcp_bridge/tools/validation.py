"""Arguments against the schema of their tool: what is wrong with them, and what can be mended.

Values of the wrong type are mended only where the schema leaves no doubt about what was meant.

A schema is foreign, so checking it is bounded: nothing is fetched for a `$ref`, references are
followed only so often, and regular expressions are left to the tool's server, for they are of
another dialect than Python's, and one of them could keep Python busy for ever.
"""

import logging
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend, validator_for
from referencing import Registry

from mcp_bridge.errors import RequestError
from mcp_bridge.exact import encode, loads
from mcp_bridge.tools.arguments import BadArguments, expected, kind
from mcp_bridge.types import Json

logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 5
SHOWN_REASON = 300
MENDING_ROUNDS = 8
MOST_PROBLEMS = 50
MOST_REFERENCES = 1000
MOST_UNIQUE_ITEMS = 1000
MOST_SCHEMA_BYTES = 128_000
"""Checking whether a schema of this size is one takes a tenth of a second."""

MENDABLE = frozenset({"type", "anyOf", "oneOf", "enum", "const"})
PYTHON_WORDS = {"True": True, "False": False, "None": None}


def validator_of(schema: Json) -> Validator | None:
    """What checks values against this schema, or None when it cannot be used for that."""
    try:
        return made_validator(encode(schema))
    except RequestError:
        return None  # nested more deeply than JSON is written


@lru_cache(maxsize=1024)
def made_validator(encoded: bytes) -> Validator | None:
    if len(encoded) > MOST_SCHEMA_BYTES:
        logger.info("a tool's input schema is too large: its arguments are not checked")
        return None
    try:
        schema = loads(encoded)
        # Draft 7 says the same about the keywords that tools use, in a quarter of the time.
        Draft7Validator.check_schema(schema, format_checker=FormatChecker(()))
        dialect = validator_for(schema, default=Draft202012Validator)
    except (SchemaError, ValueError, RecursionError) as exc:
        why = exc.message if isinstance(exc, SchemaError) else str(exc)
        logger.info("a tool's input schema is none, its arguments are not checked: %.200s", why)
        return None
    # An empty registry: a remote $ref is never fetched (SSRF).
    return bounded(dialect)(without_dialects(schema), registry=Registry())


def without_dialects(value: Any) -> Any:
    """Without `$schema`, at which jsonschema would go back to its own, unbounded keywords."""
    match value:
        case dict():
            return {
                key: without_dialects(item)
                for key, item in value.items()
                if key != "$schema" or not isinstance(item, str)
            }
        case list():
            return [without_dialects(item) for item in value]
        case _:
            return value


@lru_cache
def bounded(dialect: type[Validator]) -> type[Validator]:
    """A validator whose work has an end, whatever the schema."""
    keywords: dict[str, Any] = {
        "pattern": unchecked,
        "patternProperties": unchecked,
        "unevaluatedProperties": unchecked,  # looks for patternProperties everywhere
    }
    for name, check in dialect.VALIDATORS.items():
        if name in ("$ref", "$dynamicRef", "$recursiveRef"):
            keywords[name] = followed(check)
        elif name == "additionalProperties":
            keywords[name] = unless(lambda instance, schema: "patternProperties" in schema, check)
        elif name == "uniqueItems":
            keywords[name] = unless(lambda instance, schema: too_many(instance), check)
    made: type[Validator] = extend(dialect, keywords)  # type: ignore[no-untyped-call]  # it is so
    return made


class TooMuch(Exception):
    """The schema refers to itself without end."""


references_left: ContextVar[list[int]] = ContextVar("references_left")
"""How many references may still be followed in the check that is running."""


def followed(check: Any) -> Any:
    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        left = references_left.get()
        left[0] -= 1
        if left[0] < 0:
            raise TooMuch
        yield from check(validator, value, instance, schema) or ()

    return counted


def unless(skipped: Any, check: Any) -> Any:
    def perhaps(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not skipped(instance, schema):
            yield from check(validator, value, instance, schema) or ()

    return perhaps


def unchecked(validator: Any, value: Any, instance: Any, schema: Any) -> tuple[()]:
    return ()


def too_many(instance: Any) -> bool:
    return isinstance(instance, list) and len(instance) > MOST_UNIQUE_ITEMS


def found(validator: Validator, value: Any, schema: Any = None) -> list[ValidationError]:
    """What is wrong with a value; what cannot be checked is not wrong.

    `schema`: the part of the validator's schema that it must fit; None is all of it.
    """
    problems: list[ValidationError] = []
    references_left.set([MOST_REFERENCES])
    try:
        part = validator if schema is None else validator.evolve(schema=schema)
        problems.extend(islice(part.iter_errors(value), MOST_PROBLEMS))
    except Exception as exc:  # boundary: a foreign schema can break jsonschema in many ways
        why = type(exc).__name__
        logger.info("arguments could not be checked to the end: %s: %.200s", why, exc)
    return problems


def fitted(arguments: Json, schema: Json) -> Json:
    """The arguments, mended in place where that is safe.

    Raises:
        BadArguments: they do not fit the schema.
    """
    validator = validator_of(schema)
    if validator is None:
        return arguments
    problems = found(validator, arguments)
    for _ in range(MENDING_ROUNDS):
        if not any([mend(arguments, problem, validator) for problem in problems]):
            break
        problems = found(validator, arguments)
    if problems:
        said = "; ".join(map(sentence, problems[:SHOWN_PROBLEMS]))
        raise BadArguments(
            f"The arguments do not fit the tool's schema: {said}. {expected(schema)}"
        )
    return arguments


def problems_of(value: Json, schema: Json) -> list[str]:
    """What is wrong with a value, formats (`email`, `date`, …) included, in words."""
    validator = validator_of(schema)
    if validator is None:
        return []  # no schema: whoever sent it will judge itself
    formats = Draft202012Validator.FORMAT_CHECKER
    return [*map(sentence, found(validator.evolve(format_checker=formats), value))]


def sentence(problem: ValidationError) -> str:
    where = ".".join(str(step) for step in problem.absolute_path)
    # Of several possibilities, "none of them" says less than what is wrong with each.
    each = dict.fromkeys(inner.message[:SHOWN_REASON] for inner in problem.context or ())
    what = ", or ".join(islice(each, SHOWN_PROBLEMS)) or problem.message[:SHOWN_REASON]
    return f"{where}: {what}" if where else what


# Mending


def mend(arguments: Json, problem: ValidationError, validator: Validator) -> bool:
    """Correct one value in place where the schema leaves no doubt; True when something changed."""
    if problem.validator not in MENDABLE or not problem.absolute_path:
        return False
    *path, last = problem.absolute_path
    try:
        holder: Any = arguments
        for step in path:
            holder = holder[step]
        value = holder[last]
    except (LookupError, TypeError):
        return False  # mended with another problem
    if value is None and isinstance(holder, dict):
        del holder[last]  # strict models send null for what they leave out
    else:
        better = [c for c in candidates(value) if is_better(c, problem, validator)]
        if len(better) != 1:
            return False
        holder[last] = better[0]
    logger.info("an argument was mended: %r was %s", last, kind(value))
    return True


def candidates(value: object) -> list[Any]:
    """What may have been meant by a value of the wrong type."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    if not isinstance(value, str):
        return []
    if value in PYTHON_WORDS:
        return [PYTHON_WORDS[value]]
    try:
        meant = loads(value.encode())
    except ValueError:
        return []
    return [] if isinstance(meant, str) else [meant]


def is_better(candidate: Any, problem: ValidationError, validator: Validator) -> bool:
    """Whether a candidate no longer has the problem; what is inside it is mended afterwards."""
    left = found(validator, candidate, problem.schema)
    return not any(p.validator == problem.validator and not p.path for p in left)
