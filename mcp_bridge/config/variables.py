"""Single settings as environment variables: `MCP_BRIDGE__NETWORK__PORT=9090`.

Names of settings are written in any case. A name that the operator gave (a server's, a toolset's)
is found among those that the other sources have, whatever its case and with `_` for characters that
shells do not allow: `MCP_BRIDGE__MCP_SERVERS__MY_SERVER__URL` is `my-server`'s when there is one.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mcp_bridge.config.merge import Layer, Notes, merge
from mcp_bridge.config.names import ALIASES, canonical
from mcp_bridge.config.settings import McpServer
from mcp_bridge.config.shape import ROOT, Kind, Path, Shape
from mcp_bridge.config.wording import did_you_mean
from mcp_bridge.types import Json

PREFIX = "MCP_BRIDGE__"
WHERE = ("FILE", "HTTP_URL", "JSON")
"""`MCP_BRIDGE__CONFIG__…`: not settings, but where settings come from."""

STRUCTURED = (Kind.SECTION, Kind.MAPPING, Kind.LIST)


class NotASetting(Exception):
    """A variable's name leads nowhere; the message says what it could have been."""


def source(environ: Mapping[str, str], name: str) -> str | None:
    """The value of `MCP_BRIDGE__CONFIG__{name}`; empty is the same as not set."""
    wanted = f"{PREFIX}CONFIG__{name}"
    return next((value for key, value in environ.items() if key.upper() == wanted), None) or None


def read_variables(environ: Mapping[str, str], below: Json, notes: Notes) -> Layer:
    """What the variables set. `below` is what the other sources say, for the names in it."""
    data: Json = {}
    origins: dict[Path, str] = {}
    for name in sorted(environ, key=lambda name: (name.count("__"), name)):
        if not name.upper().startswith(PREFIX) or not environ[name]:
            continue
        notes.label = name
        try:
            path, shape = _find(name, below)
            value = _parsed(environ[name], path, shape) if shape else None
        except NotASetting as exc:
            notes.warn(str(exc))
        except ValueError as exc:
            notes.mistake(str(exc))
        else:
            if path:
                data = merge(data, canonical(_nested(path, value), notes))
                origins[path] = name
    if isinstance(below.get("inference_server"), list) and _refused_one_of_several(origins, notes):
        del data["inference_server"]
    return Layer("environment", data, origins)


def _refused_one_of_several(origins: dict[Path, str], notes: Notes) -> bool:
    """Whether variables set single fields although there are several servers."""
    ambiguous = [at for at in origins if at[0] == "inference_server" and len(at) > 1]
    if ("inference_server",) in origins:
        return False
    for path in ambiguous:
        notes.label = origins[path]
        notes.mistake(
            "inference_server is a list, so this could be any of them; "
            "set MCP_BRIDGE__INFERENCE_SERVER to the whole list, as JSON"
        )
    return bool(ambiguous)


def _find(name: str, below: Json) -> tuple[Path, Shape | None]:
    """The path that a variable sets; an empty one for `MCP_BRIDGE__CONFIG__…`."""
    steps = name[len(PREFIX) :].split("__")
    if steps[0].upper() == "CONFIG":
        _check_where(name, steps)
        return (), None
    path: Path = ()
    shape: Shape | None = ROOT
    here: Any = below
    while steps and shape:
        step, shape = _step(steps, path, shape, here, name)
        path = (*path, step)
        here = here.get(step) if isinstance(here, dict) else None
    return path, shape


def _step(
    steps: list[str], path: Path, shape: Shape, here: Any, name: str
) -> tuple[str, Shape | None]:
    """Take the next step from `steps`: its name, and what is there."""
    if shape.kind is Kind.LIST and path == ("inference_server",) and shape.item:
        shape = shape.item
    if shape.kind is Kind.SECTION:
        found = _field(steps[0], shape, name)
        steps.pop(0)
        if found == "enabled":
            return found, Shape(Kind.BOOLEAN)
        return found, shape.at(found)
    if shape.kind is Kind.MAPPING and shape.item:
        if shape.item.is_text:  # names of variables and headers are taken as they are
            rest, steps[:] = "__".join(steps), []
            return rest, shape.item
        return _given_name(steps.pop(0), here if isinstance(here, dict) else {}), shape.item
    parent = name.removesuffix("__" + "__".join(steps))
    raise NotASetting(
        f"unknown: {parent} is a list, which is set as a whole, as JSON"
        if shape.kind is Kind.LIST
        else f"unknown: nothing is below {parent}"
    )


def _field(step: str, shape: Shape, name: str) -> str:
    known = {field.lower(): field for field in shape.fields()}
    if shape.section:
        aliases = ALIASES.get(shape.section, {})
        known |= {alias.lower(): field for alias, field in aliases.items()}
    if shape.section is McpServer:
        known["enabled"] = "enabled"
    if step.lower() in known:
        return known[step.lower()]
    guess = did_you_mean(step, shape.fields())
    before, _, after = name.partition(step)
    hint = f"did you mean {before}{guess.upper()}{after}?" if guess else "it has no effect"
    raise NotASetting(f"unknown, {hint}")


def _check_where(name: str, steps: list[str]) -> None:
    if len(steps) != 2 or steps[1].upper() not in WHERE:
        names = ", ".join(f"{PREFIX}CONFIG__{where}" for where in WHERE)
        raise NotASetting(f"unknown; there are {names}")


def _given_name(step: str, existing: Iterable[str]) -> str:
    alike = [name for name in existing if _plain(name) == _plain(step)]
    return step if step in existing or len(alike) != 1 else alike[0]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _parsed(text: str, path: Path, shape: Shape) -> Any:
    if shape.kind not in STRUCTURED:
        return text
    try:
        return json.loads(text)
    except ValueError:
        if path[-1] == "args":
            return text
    example = '["a", "b"]' if shape.kind is Kind.LIST else '{"name": "value"}'
    raise ValueError(f"expected JSON, such as {example}")


def _nested(path: Path, value: Any) -> Json:
    for step in reversed(path):
        value = {step: value}
    whole: Json = value
    return whole
