"""How paths, suggestions and pydantic's complaints are put into words.

No message ever holds a value: what stands at a path may be a secret, or may have come from one.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcp_bridge.config.shape import Kind, Step, shape_at

PLAIN = re.compile(r"[A-Za-z0-9_@$/-]+")


def spell(path: Sequence[Step]) -> str:
    """A path as people write it: `mcp_servers.fetch.args.0`, `mcp_servers["my.server"].url`."""
    text = ""
    for step in path:
        plain = isinstance(step, int) or PLAIN.fullmatch(step)
        text += f".{step}" if plain else f"[{json.dumps(step, ensure_ascii=False)}]"
    return text.removeprefix(".")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, whatever its case and underscores."""
    by_form = {_form(name): name for name in known}
    close = difflib.get_close_matches(_form(word), by_form, n=1, cutoff=0.6)
    return by_form[close[0]] if close else None


def unknown(path: Sequence[Step], known: Iterable[str]) -> str:
    """`mcp_servers.fetch.comand: unknown, did you mean "command"?`"""
    guess = did_you_mean(str(path[-1]), known)
    hint = f'did you mean "{guess}"?' if guess else "it has no effect"
    return f"{spell(path)}: unknown, {hint}"


def complaint(error: Mapping[str, Any]) -> str:
    """What a pydantic error says, in our words."""
    kind: str = error["type"]
    if kind == "missing":
        return _missing(error["loc"])
    if kind == "literal_error":
        return f"expected {_one_of(error['loc'])}"
    for start, words in EXPECTED.items():
        if kind.startswith(start):
            return f"expected {words}"
    bounds = {name: error["ctx"][name] for name in BOUNDS if name in error.get("ctx", {})}
    for name, bound in bounds.items():
        return f"must be {BOUNDS[name]} {bound:g}"
    return "is not a valid value"


EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text in quotes",
    "tuple": 'a list, such as ["a", "b"]',
    "dict": "an object, such as {…}",
    "model": "an object, such as {…}",
}
BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}


def _missing(path: Sequence[Step]) -> str:
    field = shape.fields().get(str(path[-1])) if (shape := shape_at(path[:-1])) else None
    meaning = field.description if field and field.description else "it is required"
    return f"missing; {meaning[0].lower()}{meaning[1:].rstrip('.')}"


def _one_of(path: Sequence[Step]) -> str:
    shape = shape_at(path)
    choices = shape.choices if shape and shape.kind is Kind.CHOICE else ()
    return "one of " + ", ".join(f'"{choice}"' for choice in choices)


def _form(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower()) or word
