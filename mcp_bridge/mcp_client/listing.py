"""What a server lists, made usable: a bad tool is repaired or skipped, never the whole list."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcp_bridge.tools.source import Tool
from mcp_bridge.types import Json


@dataclass(frozen=True, slots=True)
class Listing:
    """The tools that can be used, and those that cannot (name, or position, and reason)."""

    tools: tuple[Tool, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def read_tools(source: str, items: Sequence[Any]) -> Listing:
    """The tools of a `tools/list`, in its order. Unknown fields stay as they are."""
    tools: dict[str, Tool] = {}
    skipped: list[tuple[str, str]] = []
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            skipped.append((f"#{position}", "the definition is no object"))
            continue
        name = item.get("name")
        if not isinstance(name, str) or not name:
            skipped.append((f"#{position}", "it has no name"))
        elif name in tools:
            skipped.append((name, "an earlier tool has the same name"))
        elif (schema := repaired_schema(item.get("inputSchema"))) is None:
            skipped.append((name, "its inputSchema is no object"))
        else:
            tools[name] = Tool(source, name, {**item, "inputSchema": schema})
    return Listing(tuple(tools.values()), tuple(skipped))


def repaired_schema(schema: Any) -> Json | None:
    """A schema that clients accept: an object's, as MCP demands. None: beyond repair."""
    if schema is None:
        return {"type": "object"}
    if not isinstance(schema, dict):
        return None
    if schema.get("type") == "object":
        return schema
    if schema.get("type") is None:
        return {"type": "object", **{k: v for k, v in schema.items() if k != "type"}}
    return None


def chosen(
    listing: Listing, include: Sequence[str], exclude: Sequence[str]
) -> tuple[Listing, list[str]]:
    """The tools that the settings want, and the include patterns that match nothing."""
    names = [tool.name for tool in listing.tools]
    unmatched = [p for p in include if not any(fnmatchcase(name, p) for name in names)]
    kept = tuple(
        tool
        for tool in listing.tools
        if (not include or any(fnmatchcase(tool.name, p) for p in include))
        and not any(fnmatchcase(tool.name, p) for p in exclude)
    )
    return Listing(kept, listing.skipped), unmatched


def objects(items: Sequence[Any], key: str) -> tuple[Json, ...]:
    """The items of another list that have their identifying string, each once."""
    found: dict[str, Json] = {}
    for item in items:
        if isinstance(item, dict) and isinstance(item.get(key), str):
            found.setdefault(item[key], item)
    return tuple(found.values())


def difference(before: Sequence[Tool], after: Sequence[Tool]) -> str:
    """What has changed between two lists, in words; empty when nothing has."""
    old = {tool.name: tool.definition for tool in before}
    new = {tool.name: tool.definition for tool in after}
    parts = [
        (word, names)
        for word, names in (
            ("added", [name for name in new if name not in old]),
            ("removed", [name for name in old if name not in new]),
            ("changed", [name for name in new if name in old and new[name] != old[name]]),
        )
        if names
    ]
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts)
