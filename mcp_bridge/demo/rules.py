"""What the scripted model does: call the tools that a question needs, then say what they answered.

Pure: `respond` gets the body of a chat request and returns text or tool calls.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_bridge.demo.offers import Fit, fits, offers
from mcp_bridge.demo.understand import Intent, Skill, intents
from mcp_bridge.types import Json

WHO = "the scripted demo model of mcp_bridge, not a language model"
SIGNATURE = f"(I am {WHO}: simple rules chose these tools.)"
MAX_TEXT = 4000
SHOWN = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call to make."""

    tool: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Done:
    """A tool call that was made, and what came back."""

    tool: str
    arguments: Json
    result: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The last thing that the user said, and what was called since."""

    text: str
    done: tuple[Done, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """What the model answers: calls, or text when there are none."""

    text: str = ""
    calls: tuple[Call, ...] = ()


def respond(body: Json) -> Response:
    """The answer to a chat request."""
    turn = turn_of(body["messages"])
    able = fits(offers(body.get("tools")))
    asked = intents(turn.text)
    todo = [Call(fit.tool, fit.arguments(i)) for i in asked if (fit := able.get(i.skill))]
    todo = todo[len(turn.done) :]
    if todo and body.get("tool_choice") != "none":
        one_by_one = body.get("parallel_tool_calls") is False
        return Response(calls=tuple(todo[:1] if one_by_one else todo))
    missing = [intent for intent in asked if intent.skill not in able]
    return Response(text=answer(turn.done, able, missing))


def turn_of(messages: Sequence[Json]) -> Turn:
    """Read the end of a conversation."""
    start = max((n for n, m in enumerate(messages) if is_said(m)), default=len(messages))
    text = text_of(messages[start]) if start < len(messages) else ""
    since = messages[start + 1 :]
    results = {m.get("tool_call_id"): text_of(m) for m in since if m.get("role") == "tool"}
    return Turn(text[:MAX_TEXT], tuple(done_of(since, results)))


def done_of(messages: Sequence[Json], results: Mapping[Any, str]) -> Iterator[Done]:
    """The calls that were answered, in the order in which they were made."""
    for message in messages:
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            match call:
                case {"id": id, "function": {"name": str(tool), "arguments": arguments}}:
                    if id in results:
                        yield Done(tool, arguments_of(arguments), results[id])


def is_said(message: Json) -> bool:
    return message.get("role") == "user" and bool(text_of(message).strip())


def text_of(message: Json) -> str:
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def arguments_of(text: Any) -> Json:
    value = read(text) if isinstance(text, str) else None
    return value if isinstance(value, dict) else {}


def answer(done: Sequence[Done], able: Mapping[Skill, Fit], missing: Sequence[Intent]) -> str:
    """Say what the tools answered, and what could not be done."""
    if not able:
        return (
            f"I am {WHO}. I know nothing by myself, and this request offers me no tool that I can "
            "use, so I cannot answer."
        )
    skills = {fit.tool: skill for skill, fit in able.items()}
    lines = [sentence(skills.get(one.tool), one) for one in done]
    lines += [f"No tool for {intent.skill} was offered to me." for intent in missing]
    if not lines:
        return (
            f"I am {WHO}. None of my rules fits this question. With the tools that are offered to "
            f"me, this can be asked for: {', '.join(able)}."
        )
    return " ".join(lines) + "\n\n" + SIGNATURE


def sentence(skill: Skill | None, done: Done) -> str:
    """One result in words."""
    if done.result.lower().startswith("error"):
        return f"The tool {done.tool} failed: {shortened(done.result)}"
    try:
        known = told(skill, done.arguments, read(done.result))
    except (KeyError, ValueError):  # a shape that only looked like a known one
        known = None
    return known or f"The tool {done.tool} answered: {shortened(done.result)}"


def told(skill: Skill | None, arguments: Json, value: Any) -> str | None:
    """What a result of a known shape says, None for any other."""
    match skill, value:
        case Skill.NOW, {"timezone": str(zone), "datetime": str(iso)}:
            return f"In {zone} it is {clock(iso)} on {day(iso)}."
        case Skill.CONVERT, {
            "source": {"timezone": str(here), "datetime": str(from_iso)},
            "target": {"timezone": str(there), "datetime": str(to_iso)},
        }:
            when = f"{clock(from_iso)} in {here} on {day(from_iso)}"
            return f"{when} is {clock(to_iso)} in {there} on {day(to_iso)}."
        case Skill.DIFFERENCE, {"summary": str(summary)}:
            return f"{summary}."
        case Skill.CALCULATE, {"result": str() | int() | float() as result}:
            return f"{next(iter(arguments.values()), 'The result')} = {result}."
        case Skill.CALCULATE, int() | float() as result:
            return f"{next(iter(arguments.values()), 'The result')} = {result}."
        case Skill.LIST, {"notes": list(notes)}:
            names = [str(note["name"]) for note in notes if isinstance(note, dict)]
            return f"Your notes: {', '.join(names)}." if names else "There are no notes."
        case Skill.READ, {"name": str(name), "text": str(text)}:
            return f"The note {name!r} says: {text}"
        case Skill.WRITE, {"name": str(name)}:
            return f"The note {name!r} is written."
        case Skill.SEARCH, {"matches": list(matches)}:
            lines = [f"{m['name']}: {m['text']}" for m in matches if isinstance(m, dict)]
            return "\n".join(["Found:", *lines]) if lines else "No note holds these words."
    return None


def read(result: str) -> Any:
    try:
        return json.loads(result)
    except ValueError:
        return None


def clock(iso: str) -> str:
    return datetime.fromisoformat(iso).strftime("%H:%M")


def day(iso: str) -> str:
    when = datetime.fromisoformat(iso)
    return f"{when:%A}, {when.day} {when:%B} {when.year}"


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
