"""What a sentence asks for, by patterns: times in places, arithmetic, notes. Pure functions.

No understanding is claimed: `intents` finds what the patterns below match, and nothing else.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache

from mcp_bridge.demo import zones
from mcp_bridge.demo.servers import calculator


class Skill(StrEnum):
    """What can be asked for. The value says it in words."""

    NOW = "the current time"
    CONVERT = "converting a time"
    DIFFERENCE = "the difference between time zones"
    CALCULATE = "arithmetic"
    WRITE = "writing a note"
    SEARCH = "searching notes"
    DELETE = "deleting a note"
    READ = "reading a note"
    LIST = "listing notes"


@dataclass(frozen=True, slots=True)
class Intent:
    """Something that a sentence asks for. `at` is where, `values` what was said about it."""

    skill: Skill
    at: int
    values: dict[str, str] = field(default_factory=dict)


def intents(text: str) -> list[Intent]:
    """Everything that the text asks for, in the order in which it does."""
    notes, rest = take_notes(text)
    times, rest = take_times(rest)
    return sorted([*notes, *times, *sums(rest)], key=lambda intent: intent.at)


def blank(text: str, match: re.Match[str]) -> str:
    """The text with the match painted over: what is left keeps its place."""
    return text[: match.start()] + " " * len(match[0]) + text[match.end() :]


# Notes

NAME = r"""(?:["“'](?P<quoted>[^"”']+)["”']|(?P<name>[\w-]+))"""
CALLED = r"(?:\s+(?:called|named|titled|about))?\s+"
NOTES: dict[Skill, re.Pattern[str]] = {
    Skill.WRITE: re.compile(
        rf"\b(?:write|save|create|add|make|take)\b[^.?!:]*?\bnote{CALLED}{NAME}"
        r"\s*(?::|,?\s*(?:saying|that says|with the text|with))\s*(?P<text>.+)",
        re.IGNORECASE | re.DOTALL,
    ),
    Skill.SEARCH: re.compile(
        r"\b(?:search|look|find)\b[^.?!]*?\bnotes\b\s+(?:for|about|with)\s+(?P<query>[^.?!]+)"
        r"|\b(?:search for|look for|find)\s+(?P<before>[^.?!]+?)\s+in\s+(?:my|the)\s+notes\b",
        re.IGNORECASE,
    ),
    Skill.DELETE: re.compile(
        rf"\b(?:delete|remove|erase)\b[^.?!]*?\bnote{CALLED}{NAME}", re.IGNORECASE
    ),
    Skill.READ: re.compile(
        rf"\b(?:read|show|open|print|what (?:is|does))\b[^.?!]*?\bnote{CALLED}{NAME}", re.IGNORECASE
    ),
    Skill.LIST: re.compile(
        r"\b(?:list|show|which|what)\b[^.?!]*?\bnotes\b(?:[^.?!]*?\bhave\b)?", re.IGNORECASE
    ),
}
QUOTES = "\"'“”"


def take_notes(text: str) -> tuple[list[Intent], str]:
    """What is asked about notes, and the text without it."""
    found: list[Intent] = []
    for skill, pattern in NOTES.items():
        while match := pattern.search(text):
            found.append(Intent(skill, match.start(), said(match)))
            text = blank(text, match)
    return found, text


def said(match: re.Match[str]) -> dict[str, str]:
    groups = {key: value for key, value in match.groupdict().items() if value is not None}
    values = {"name": groups.get("quoted") or groups.get("name")}
    values["query"] = groups.get("query") or groups.get("before")
    values["text"] = groups.get("text")
    return {key: value.strip().strip(QUOTES) for key, value in values.items() if value}


# Times

TIME_TALK = re.compile(r"\b(?:time|time ?zones?|clocks?|o'?clock|hours?|days?|date|today)\b", re.I)
NOW_ASKED = re.compile(
    r"\btime is it\b|\bwhat(?:'s| is) the (?:current |local )?(?:time|date)\b"
    r"|\bcurrent (?:time|date)\b|\bwhat day is\b|\btoday's date\b",
    re.IGNORECASE,
)
APART = re.compile(r"\b(?:difference|apart|ahead|behind|hours between)\b", re.IGNORECASE)
CLOCK = re.compile(
    r"\b(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s*(?P<half>[ap])\.?m\b\.?"
    r"|\b(?P<hours>\d{1,2}):(?P<minutes>\d{2})\b"
    r"|\b(?P<word>noon|midnight)\b",
    re.IGNORECASE,
)
DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
WORDS = frozenset(
    "act center christmas currie davis easter factory knox met midway north oral palmer reunion "
    "south troll truk universal virgin wake west wet".split()
)
"""Names of zones that are ordinary words more often."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place whose time zone is known."""

    zone: str
    at: int
    is_source: bool


def take_times(text: str) -> tuple[list[Intent], str]:
    """What is asked about times, and the text without times of day and dates."""
    clock = CLOCK.search(text)
    asked = clock is not None or TIME_TALK.search(text) is not None
    found = places(text) if asked else []
    without = DATE.sub(lambda match: " " * len(match[0]), text)
    without = CLOCK.sub(lambda match: " " * len(match[0]), without)
    if len(found) == 2 and clock is not None:
        values = between(found) | {"time": time_of(clock)}
        return [Intent(Skill.CONVERT, min(clock.start(), found[0].at), values)], without
    if len(found) == 2 and APART.search(text):
        return [Intent(Skill.DIFFERENCE, found[0].at, between(found))], without
    if not found and (now := NOW_ASKED.search(text)):
        return [Intent(Skill.NOW, now.start(), {"zone": "UTC"})], without
    return [Intent(Skill.NOW, place.at, {"zone": place.zone}) for place in found], without


def places(text: str) -> list[Place]:
    """The places that are named, each zone once."""
    found: dict[str, Place] = {}
    for match in place_names().finditer(text):
        zone = zones.places()[zones.plain(match["place"])]
        found.setdefault(zone, Place(zone, match.start(), match["before"] is not None))
    return list(found.values())


@cache
def place_names() -> re.Pattern[str]:
    names = sorted((name for name in zones.places() if name not in WORDS), key=len, reverse=True)
    any_name = "|".join(re.escape(name).replace(r"\ ", r"[\s_]+") for name in names)
    return re.compile(
        rf"(?<![\w/])(?P<before>from\s+)?(?P<place>{any_name or '(?!)'})(?![\w/])", re.IGNORECASE
    )


def between(pair: list[Place]) -> dict[str, str]:
    """Source and target: the place after `from` is the source, else the first one."""
    source, target = sorted(pair, key=lambda place: not place.is_source)
    return {"source": source.zone, "target": target.zone}


def time_of(match: re.Match[str]) -> str:
    """HH:MM"""
    if word := match["word"]:
        return "12:00" if word.casefold() == "noon" else "00:00"
    hour, minute = int(match["hour"] or match["hours"]), match["minute"] or match["minutes"] or "00"
    if match["half"]:
        hour = hour % 12 + (12 if match["half"].casefold() == "p" else 0)
    return f"{hour:02}:{minute}"


# Arithmetic

NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
SPOKEN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), written)
    for pattern, written in (
        (r"(?<=\d),(?=\d{3}\b)", ""),
        (rf"({NUMBER})\s*(?:%|percent)\s+of\b", r"\1 / 100 *"),
        (r"\bsquare root of\s+", "sqrt "),
        (r"\bfactorial of\s+", "factorial "),
        (rf"\b(sqrt|factorial)\s+({NUMBER})", r"\1(\2)"),
        (r"(?<=\d)\s*(?:x|times|multiplied by)\s*(?=[\d(.])", " * "),
        (r"(?<=[\d)])\s+(?:divided by|over)\s+(?=[\d(.])", " / "),
        (r"(?<=[\d)])\s+plus\s+(?=[\d(.])", " + "),
        (r"(?<=[\d)])\s+minus\s+(?=[\d(.])", " - "),
        (r"(?<=[\d)])\s+to the power of\s+(?=[\d(.])", " ** "),
        (r"(?<=[\d)])\s+squared\b", " ** 2"),
        (r"(?<=[\d)])\s+cubed\b", " ** 3"),
    )
)
FUNCTION = "|".join(sorted(calculator.FUNCTIONS, key=len, reverse=True))
RUN = re.compile(rf"(?:\b(?:{FUNCTION})\s*\(|{NUMBER}|\bpi\b|[-+*/^%()×·÷−,\s])+")


def sums(text: str) -> Iterator[Intent]:
    """Every piece of the text that is arithmetic."""
    for pattern, written in SPOKEN:
        text = pattern.sub(written, text)
    for run in RUN.finditer(text):
        for piece in split_at_commas(run[0]):
            expression = trimmed(piece)
            if is_arithmetic(expression):
                at = run.start() + run[0].index(piece)
                yield Intent(Skill.CALCULATE, at, {"expression": expression})


def split_at_commas(run: str) -> Iterator[str]:
    """The pieces between the commas that are not inside parentheses."""
    depth, start = 0, 0
    for position, character in enumerate(run):
        depth = max(depth + {"(": 1, ")": -1}.get(character, 0), 0)
        if character == "," and depth == 0:
            yield run[start:position]
            start = position + 1
    yield run[start:]


def trimmed(piece: str) -> str:
    """Without what cannot begin or end an expression."""
    piece = " ".join(piece.split()).rstrip(" +-*/^%(×·÷−").lstrip(" +*/^%)×·÷")
    while piece.count("(") < piece.count(")") and piece.endswith(")"):
        piece = piece[:-1].rstrip()
    while piece.count("(") > piece.count(")") and piece.startswith("("):
        piece = piece[1:].lstrip()
    return piece


def is_arithmetic(expression: str) -> bool:
    """Whether it can be read and has something to calculate: -19 has not."""
    try:
        tree = calculator.parse(expression)
    except calculator.CannotCalculate:
        return False
    return any(isinstance(node, ast.BinOp | ast.Call) for node in ast.walk(tree))
