"""Which of the tools that a request offers can do what is wanted, whatever they are called.

A tool fits a skill when its words say so (in its name or in the first sentence of its description)
and when its parameters can be filled: each role of the skill finds a parameter by name, and no
required parameter is left over.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mcp_bridge.demo.understand import Intent, Skill
from mcp_bridge.types import Json

ZONE = r"(time)?zone(name|id)?|tz|city|location|place"
NAME = r"(note|file)?(name|title|id|path|key)"
NOTE = ("note",)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tool must have for a skill.

    `words`: from each group one must be the beginning of a word of the tool's. `roles`: patterns
    for parameter names without their underscores, in the order in which they are given out.
    """

    words: tuple[tuple[str, ...], ...]
    roles: Mapping[str, str]


WANTED: Mapping[Skill, Wanted] = {
    Skill.NOW: Wanted((("time", "clock"), ("current", "now")), {"zone": ZONE}),
    Skill.CONVERT: Wanted(
        (("time", "clock"), ("convert",)),
        {"source": "(source|from|src).*", "target": "(target|to|dest).*", "time": "time.*"},
    ),
    Skill.DIFFERENCE: Wanted(
        (("time", "zone", "clock"), ("difference", "apart", "compare")),
        {"source": "(source|from|src).*", "target": "(target|to|dest).*"},
    ),
    Skill.CALCULATE: Wanted(
        (("calc", "math", "arithmetic", "evaluate", "compute"),),
        {"expression": "expr(ession)?|formula|equation|calculation|math.*|input|query"},
    ),
    Skill.WRITE: Wanted(
        (NOTE, ("write", "save", "create", "add", "store", "make")),
        {"name": NAME, "text": "text|content|body|note"},
    ),
    Skill.SEARCH: Wanted(
        (NOTE, ("search", "find")), {"query": "query|q|words?|text|term|pattern|keywords?"}
    ),
    Skill.DELETE: Wanted((NOTE, ("delete", "remove", "erase")), {"name": NAME}),
    Skill.READ: Wanted((NOTE, ("read", "get", "view", "show", "open")), {"name": NAME}),
    Skill.LIST: Wanted((NOTE, ("list",)), {}),
}


@dataclass(frozen=True)
class Offer:
    """A tool that a request offers."""

    name: str
    description: str
    parameters: Json

    @cached_property
    def name_words(self) -> frozenset[str]:
        return words(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.name))

    @cached_property
    def words(self) -> frozenset[str]:
        return self.name_words | words(re.split(r"[.\n]", self.description, maxsplit=1)[0])

    @property
    def properties(self) -> list[str]:
        return list(_as(dict, self.parameters.get("properties")))

    @property
    def required(self) -> set[str]:
        return {
            name for name in _as(list, self.parameters.get("required")) if isinstance(name, str)
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """A tool for a skill, and the parameter for each role."""

    skill: Skill
    tool: str
    parameters: Mapping[str, str]

    def arguments(self, intent: Intent) -> dict[str, str]:
        return {self.parameters[role]: value for role, value in intent.values.items()}


def offers(tools: Any) -> list[Offer]:
    """The function tools of a request; what cannot be read is not offered."""
    found: list[Offer] = []
    for tool in _as(list, tools):
        function = _as(dict, _as(dict, tool).get("function"))
        name, description = function.get("name"), function.get("description")
        if isinstance(name, str):
            text = description if isinstance(description, str) else ""
            found.append(Offer(name, text, _as(dict, function.get("parameters"))))
    return found


def fits(tools: Sequence[Offer]) -> dict[Skill, Fit]:
    """The best tool for each skill that one of the tools has."""
    found = {skill: best(skill, tools) for skill in Skill}
    return {skill: fit for skill, fit in found.items() if fit is not None}


def best(skill: Skill, tools: Sequence[Offer]) -> Fit | None:
    """The fitting tool whose own name says most; the first of equals."""
    wanted = WANTED[skill]
    able = [
        (said(wanted, tool.name_words), Fit(skill, tool.name, roles))
        for tool in tools
        if said(wanted, tool.words) == len(wanted.words)
        and (roles := filled(wanted, tool)) is not None
    ]
    return max(able, key=lambda ranked: ranked[0])[1] if able else None


def said(wanted: Wanted, have: frozenset[str]) -> int:
    """How many groups of words are there."""
    return sum(any(word.startswith(group) for word in have) for group in wanted.words)


def filled(wanted: Wanted, tool: Offer) -> dict[str, str] | None:
    """A parameter for each role, None when one is missing or a required one is left over."""
    free = tool.properties
    given: dict[str, str] = {}
    for role, pattern in wanted.roles.items():
        for name in free:
            if re.fullmatch(pattern, re.sub(r"[\W_]", "", name), re.IGNORECASE):
                given[role] = name
                free.remove(name)
                break
    complete = given.keys() == wanted.roles.keys() and tool.required <= set(given.values())
    return given if complete else None


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.casefold()))


def _as(kind: type[Any], value: Any) -> Any:
    """The value when it is of that kind, else an empty one: what clients send may be anything."""
    return value if isinstance(value, kind) else kind()
