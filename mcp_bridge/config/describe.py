"""The settings described: a JSON schema for editors, and the reference in docs/configuration.md.

Both are made from the settings' own descriptions. After a change of the settings,

    python -m mcp_bridge.config.describe docs/configuration.md

writes the reference into the document again; a test fails until that is done.
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mcp_bridge.config.entries import TRANSPORTS
from mcp_bridge.config.names import ALIASES
from mcp_bridge.config.settings import McpServer, Section, Settings
from mcp_bridge.config.shape import INTERNAL, ROOT, Kind, Shape, shape_of
from mcp_bridge.types import Json

BEGIN = "<!-- The rest is made from mcp_bridge/config/settings.py. Change it there. -->"

EXAMPLES: dict[str, list[Any]] = {
    "InferenceServer": [{"base_url": "http://127.0.0.1:11434/v1"}],
    "McpServer": [
        {"command": "uvx", "args": ["mcp-server-fetch"]},
        {"url": "https://host.example/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        {"image": "mcp/fetch"},
    ],
    "Toolset": [{"include": ["fetch:*", "files:read_*"]}],
    "ApiKey": [{"key": "${BRIDGE_KEY}", "name": "open-webui", "toolset": "research"}],
}

REFERENCE: Json = {
    "type": "string",
    "pattern": r"\$\{.+\}",
    "description": "A value from outside: ${VAR}, ${VAR:-default}, ${file:/path}.",
}


def schema() -> Json:
    """The JSON schema of the configuration file, with every name a setting may have."""
    whole = Settings.model_json_schema(by_alias=False)
    definitions: Json = whole["$defs"]
    definitions["reference"] = REFERENCE
    for section in _sections(ROOT):
        properties = (whole if section is Settings else definitions[section.__name__])["properties"]
        _as_it_may_be_written(section, properties)
        for alias, name in ALIASES.get(section, {}).items():
            properties[alias] = {**properties[name], "description": f"The same as `{name}`."}
    for name, examples in EXAMPLES.items():
        definitions[name]["examples"] = examples
    whole["properties"]["$schema"] = {"type": "string"}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "mcp_bridge"}
    return {**head, "description": "The configuration of mcp_bridge.", **_without_title(whole)}


def reference() -> str:
    """Every setting with its type, default and description, in Markdown."""
    tables = (line for path, section in _walk((), ROOT) for line in _table(path, section))
    return "\n".join(tables).rstrip() + "\n"


def updated(document: str) -> str:
    """That document with the reference as it is now, below the line `BEGIN`."""
    written, mark, _ = document.partition(BEGIN)
    return f"{written if mark else written.rstrip() + chr(10) * 2}{BEGIN}\n\n{reference()}"


def _sections(shape: Shape) -> Iterator[type[Section]]:
    """Each section once: itself, then what it holds."""
    return iter(dict.fromkeys(section for _, section in _walk((), shape)))


def _walk(path: tuple[str, ...], shape: Shape) -> Iterator[tuple[str, type[Section]]]:
    """Every section with its path: `network`, `mcp_servers.<name>`, `sampling.models[]`."""
    if shape.kind is Kind.SECTION and shape.section:
        yield ".".join(path), shape.section
        for name, field in shape.fields().items():
            yield from _walk((*path, name), shape_of(field.annotation))
    elif shape.kind is Kind.MAPPING and shape.item:
        yield from _walk((*path, "<name>"), shape.item)
    elif shape.kind is Kind.LIST and shape.item:
        yield from _walk((*path[:-1], f"{path[-1]}[]"), shape.item)


# -- the schema


def _as_it_may_be_written(section: type[Section], properties: Json) -> None:
    """What the loader takes besides the final types."""
    for owner, name in INTERNAL:
        if owner is section:
            properties.pop(name, None)
    for name, node in properties.items():
        if shape_of(section.model_fields[name].annotation).kind in NOT_TEXT:
            properties[name] = _either(node, {"$ref": "#/$defs/reference"})
    if section is Settings:
        one = {"$ref": "#/$defs/InferenceServer"}
        properties["inference_server"] = _either(properties["inference_server"], one)
    if section is McpServer:
        _entries_as_pasted(properties)


NOT_TEXT = (Kind.BOOLEAN, Kind.INTEGER, Kind.NUMBER, Kind.CHOICE)


def _entries_as_pasted(properties: Json) -> None:
    scalars = {"type": ["string", "number", "boolean"]}
    for name in ("env", "headers"):
        properties[name] = {**properties[name], "additionalProperties": scalars}
    args = {**properties["args"], "items": scalars}
    properties["args"] = _either(args, {"type": "string"})
    properties["command"] = _either(
        properties["command"], {"type": "array", "items": {"type": "string"}}
    )
    names = sorted({*TRANSPORTS, "streamable-http", "streamable_http", "streamableHttp"})
    properties["transport"] = _either(properties["transport"], {"enum": names})
    properties["enabled"] = {"type": "boolean", "description": "The opposite of `disabled`."}


def _either(node: Json, other: Json) -> Json:
    """A node that takes what it took, or the other."""
    outside: Json = {key: node[key] for key in ("description", "default") if key in node}
    inside = {key: value for key, value in node.items() if key not in outside}
    choices = inside["anyOf"] if set(inside) == {"anyOf"} else [inside]
    return {**outside, "anyOf": [*choices, other]}


def _without_title(node: Any) -> Any:
    """Without the titles that pydantic makes from the names: they say nothing new."""
    if isinstance(node, dict):
        return {
            key: _without_title(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_title(item) for item in node] if isinstance(node, list) else node


# -- the reference


def _table(path: str, section: type[Section]) -> Iterator[str]:
    shape = Shape(Kind.SECTION, section=section)
    yield f"### `{path}`" if path else "## All settings"
    yield ""
    yield (section.__doc__ or "").strip().partition("\n")[0]
    yield ""
    yield "| Setting | Type | Default | What it does |"
    yield "|---|---|---|---|"
    for name, field in shape.fields().items():
        yield _row(name, field, section)
    yield ""


def _row(name: str, field: FieldInfo, section: type[Section]) -> str:
    shape = shape_of(field.annotation)
    inner = shape.item or shape
    text = field.description or ((inner.section.__doc__ or "") if inner.section else "")
    aliases = [f"`{alias}`" for alias, of in ALIASES.get(section, {}).items() if of == name]
    unsaid = ", ".join(alias for alias in aliases if alias not in text)
    spelled = f" Also spelled {unsaid}." if unsaid else ""
    cells = (f"`{name}`", type_name(shape), _default(field, shape), text + spelled)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def type_name(shape: Shape) -> str:
    """The type in words: `text`, `list of text`, `name → object`."""
    if shape.kind is Kind.LIST and shape.item:
        return "list of objects" if shape.item.section else f"list of {type_name(shape.item)}"
    if shape.kind is Kind.MAPPING and shape.item:
        return f"name → {type_name(shape.item)}"
    if shape.kind is Kind.CHOICE:
        return " or ".join(f"`{choice}`" for choice in shape.choices)
    return WORDS[shape.kind]


WORDS = {
    Kind.SECTION: "object",
    Kind.TEXT: "text",
    Kind.SECRET: "text (secret)",
    Kind.BOOLEAN: "true or false",
    Kind.INTEGER: "whole number",
    Kind.NUMBER: "number",
}


def _default(field: FieldInfo, shape: Shape) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or isinstance(value, Section | SecretStr):
        return "–"
    if value in ("", (), {}):
        return "–" if shape.kind not in (Kind.LIST, Kind.MAPPING) else "empty"
    return f"`{json.dumps(value)}`"


if __name__ == "__main__":
    document = pathlib.Path(sys.argv[1])
    document.write_text(updated(document.read_text(encoding="utf-8")), encoding="utf-8")
