"""Every name a setting may be written under becomes its own name; what is unknown is reported.

This happens to each source before the merge: `mcpServers` in a file and `mcp_servers` in a
variable are then the same setting, and a warning can name the source that it is about.
"""

from typing import Any

from mcp_bridge.config.entries import before_names, reshape
from mcp_bridge.config.merge import Notes, merge
from mcp_bridge.config.settings import McpServer, Section, Security, Settings
from mcp_bridge.config.shape import ROOT, Kind, Path, Shape
from mcp_bridge.config.wording import spell, unknown
from mcp_bridge.types import Json

ALIASES: dict[type[Section], dict[str, str]] = {
    Settings: {"mcpServers": "mcp_servers", "servers": "mcp_servers"},
    Security: {"CORS": "cors"},
    McpServer: {
        "serverUrl": "url",
        "httpUrl": "url",
        "type": "transport",
        "environment": "env",
        "includeTools": "include",
        "enabledTools": "include",
        "excludeTools": "exclude",
        "disabledTools": "exclude",
    },
}
"""Other clients' words for our settings."""

FOREIGN: dict[type[Section], frozenset[str]] = {
    Settings: frozenset({"inputs", "globalShortcut", "preferences"}),
    McpServer: frozenset(
        {"alwaysAllow", "autoApprove", "author", "description", "dev", "displayName", "gallery"}
        | {"homepage", "icon", "iconUrl", "icons", "id", "inputs", "name", "note", "tags", "title"}
        | {"trust", "version"}
    ),
}
"""Other clients' settings that mean nothing here: a pasted block should not cause a warning."""

WITHOUT_EFFECT = {
    "envFile": 'files of variables are not read: put what it holds into "env"',
    "oauth": 'logging in with OAuth is not supported: put a token into "headers"',
}
"""Settings of pasted entries that somebody may rely on."""


def canonical(data: Json, notes: Notes) -> Json:
    """That source's data under our own names, without what we do not know."""
    nested = data.get("mcp")
    if isinstance(nested, dict) and "servers" in nested:  # VS Code's settings.json
        others = {key: value for key, value in data.items() if key != "mcp"}
        data = merge(others, {"servers": nested["servers"]})
    return _section(data, ROOT, (), notes)


def is_comment(key: str) -> bool:
    """JSON has no comments, so people write them as keys."""
    return key in ("$schema", "$comment") or key.startswith(("//", "_"))


def _value(value: Any, shape: Shape | None, path: Path, notes: Notes) -> Any:
    if shape is None:
        return value
    if isinstance(value, dict):
        return _object(value, shape, path, notes)
    if isinstance(value, list) and shape.kind is Kind.LIST:
        items = [_value(item, shape.item, (*path, n), notes) for n, item in enumerate(value)]
        return items[0] if path == ("inference_server",) and len(items) == 1 else items
    return value


def _object(value: Json, shape: Shape, path: Path, notes: Notes) -> Any:
    if shape.kind is Kind.SECTION:
        return _section(value, shape, path, notes)
    if shape.kind is Kind.MAPPING:
        return {key: _value(item, shape.item, (*path, key), notes) for key, item in value.items()}
    if path == ("inference_server",) and shape.item:
        return _section(value, shape.item, path, notes)
    return value


def _section(value: Json, shape: Shape, path: Path, notes: Notes) -> Json:
    section = shape.section
    if section is McpServer:
        value = before_names(value, path, notes)
    found: Json = {}
    for key, item in value.items():
        name = ALIASES.get(section, {}).get(key, key) if section else key
        if name not in shape.fields():
            _report(key, shape, (*path, key), notes)
            continue
        new = _value(item, shape.at(name), (*path, name), notes)
        found[name] = _joined(found[name], new, (*path, name), notes) if name in found else new
    return reshape(found, path, notes) if section is McpServer else found


def _report(key: str, shape: Shape, path: Path, notes: Notes) -> None:
    if shape.section is McpServer and key in WITHOUT_EFFECT:
        notes.warn(f"{spell(path)}: {WITHOUT_EFFECT[key]}")
    elif not is_comment(key) and not (shape.section and key in FOREIGN.get(shape.section, ())):
        notes.warn(unknown(path, shape.fields()))


def _joined(first: Any, second: Any, path: Path, notes: Notes) -> Any:
    """One value of a setting that was written under two names."""
    if isinstance(first, dict) and isinstance(second, dict):
        return merge(first, second)
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *(item for item in second if item not in first)]
    if first != second:
        notes.mistake(f"{spell(path)}: given under two names with different values; keep one")
    return first
