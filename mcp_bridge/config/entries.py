"""MCP server entries as people paste them, brought into one form.

Claude Desktop, Cursor, VS Code, LM Studio, Windsurf, Gemini CLI, Cline and opencode all write such
entries, each a little differently. What the pasted text says is settled before the merge
(`before_names`, `reshape`); what depends on substituted values comes after it (`settle`).
"""

import os
import shlex
from typing import Any

from mcp_bridge.config.merge import Notes
from mcp_bridge.config.shape import Path
from mcp_bridge.config.wording import spell
from mcp_bridge.types import Json

TRANSPORTS = {
    "http": "http",
    "streamablehttp": "http",
    "sse": "sse",
    "stdio": "stdio",
    "local": "stdio",
    "docker": "stdio",
    "ws": "websocket",
    "websocket": "websocket",
    "auto": "auto",
    "remote": "auto",
}
"""What `transport` and `type` may say, without case, dashes and underscores."""

NO_KEY = ("", "none", "null")
"""API keys that mean "no key": tools that insist on one are given these."""

LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}


def before_names(entry: Json, path: Path, notes: Notes) -> Json:
    """The entry without `enabled`, which is `disabled` the other way round."""
    if "enabled" not in entry:
        return entry
    rest = {key: value for key, value in entry.items() if key != "enabled"}
    enabled = _boolean(entry["enabled"])
    if enabled is None:
        notes.mistake(f"{spell((*path, 'enabled'))}: expected true or false")
    elif "disabled" not in rest:
        rest["disabled"] = not enabled
    elif not enabled:
        rest["disabled"] = True
    return rest


def reshape(entry: Json, path: Path, notes: Notes) -> Json:
    """Commands given as lists, arguments as one string, and numbers where text belongs."""
    entry = dict(entry)
    if isinstance(entry.get("command"), list) and entry["command"]:
        program, *first = entry["command"]
        entry["command"] = program
        if isinstance(entry.get("args"), str | list | None):  # else it is refused as it is
            entry["args"] = first + _words(entry.get("args"), path, notes)
    elif isinstance(entry.get("args"), str):
        entry["args"] = _words(entry["args"], path, notes)
    if isinstance(entry.get("args"), list):
        entry["args"] = [_text(arg) for arg in entry["args"]]
    for name in ("env", "headers"):
        if isinstance(entry.get(name), dict):
            entry[name] = {key: _text(value) for key, value in entry[name].items()}
    return entry


def settle(data: Json) -> Json:
    """The whole configuration with the values that have several spellings in one of them."""
    data = dict(data)
    if isinstance(servers := data.get("mcp_servers"), dict):
        data["mcp_servers"] = {name: _settled(entry) for name, entry in servers.items()}
    match data.get("inference_server"):
        case dict(server):
            data["inference_server"] = _without_empty_key(server)
        case list(several):
            data["inference_server"] = [_without_empty_key(server) for server in several]
    if isinstance(logging := data.get("logging"), dict):
        data["logging"] = _upper_level(logging)
    return data


def _settled(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    entry = {key: value for key, value in entry.items() if not (key in ADDRESSES and value == "")}
    if isinstance(transport := entry.get("transport"), str):
        form = transport.lower().replace("-", "").replace("_", "")
        entry["transport"] = TRANSPORTS.get(form, transport)
    return entry


ADDRESSES = ("command", "url", "image")


def _without_empty_key(server: Any) -> Any:
    if not isinstance(server, dict) or not isinstance(key := server.get("api_key"), str):
        return server
    return {**server, "api_key": None} if key.strip().lower() in NO_KEY else server


def _upper_level(logging: Json) -> Json:
    if not isinstance(level := logging.get("log_level"), str):
        return logging
    return {**logging, "log_level": LEVELS.get(level.upper(), level.upper())}


def _words(args: str | list[Any] | None, path: Path, notes: Notes) -> list[Any]:
    """Split before substitution: a substituted value with a space stays one argument."""
    if isinstance(args, list) or args is None:
        return args or []
    try:
        return shlex.split(args, posix=os.name != "nt")
    except ValueError:
        notes.mistake(f"{spell((*path, 'args'))}: a quote is not closed; write a list instead")
        return []


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None
