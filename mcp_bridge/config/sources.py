"""Where the configuration comes from: a file, a URL, inline JSON."""

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from mcp_bridge.config.merge import Layer, Notes
from mcp_bridge.config.names import canonical
from mcp_bridge.config.substitute import digest, read_file, reason
from mcp_bridge.config.variables import source
from mcp_bridge.types import Json

DEFAULT_FILE = "config.json"
LARGEST = 16 << 20
HTTP_TIMEOUT = 10.0
"""Seconds for each step of asking the URL: nothing can be configured before it has answered."""


class Unreadable(Exception):
    """A source is not a JSON object; the message says where and what to do."""


@dataclass(slots=True)
class Sources:
    """The whole sources, weakest first, and what came up while reading them.

    `complete` is False when one of them could not be read at all.
    """

    layers: list[Layer] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    files: dict[pathlib.Path, str | None] = field(default_factory=dict)
    complete: bool = True

    def fail(self, reason: str) -> None:
        """The source that is being read cannot be used."""
        self.complete = False
        self.notes.mistake(reason)

    def add(self, label: str, raw: bytes | str) -> None:
        self.notes.label = label
        try:
            data = parse(raw, self.notes)
        except Unreadable as exc:
            self.fail(str(exc))
        else:
            self.layers.append(Layer(label, canonical(data, self.notes)))


def read_sources(path: str | None, environ: Mapping[str, str]) -> Sources:
    """The file, the URL and the inline JSON, as far as they are there."""
    sources = Sources()
    _read_file(sources, path or source(environ, "FILE"))
    if url := source(environ, "HTTP_URL"):
        _read_url(sources, url)
    if inline := source(environ, "JSON"):
        sources.add("MCP_BRIDGE__CONFIG__JSON", inline)
    return sources


def _read_file(sources: Sources, name: str | None) -> None:
    """The named file, or the default one, which need not be there."""
    path = pathlib.Path(name or DEFAULT_FILE).expanduser().absolute()
    sources.files[path] = None
    sources.notes.label = name or DEFAULT_FILE
    try:
        raw = read_file(path, LARGEST)
    except FileNotFoundError:
        if name:
            sources.fail(f"there is no such file; looked for {path}")
    except (OSError, ValueError) as exc:
        sources.fail(f"the file cannot be read: {reason(exc)}")
    else:
        sources.files[path] = digest(raw)
        sources.add(name or DEFAULT_FILE, raw)


def _read_url(sources: Sources, text: str) -> None:
    variable = "MCP_BRIDGE__CONFIG__HTTP_URL"
    sources.notes.label = variable
    try:
        url = httpx2.URL(text)
        if url.scheme not in ("http", "https") or not url.host:
            raise httpx2.InvalidURL("")
    except httpx2.InvalidURL:
        sources.fail("expected an address such as https://host/config.json")
        return
    label = str(url.copy_with(username=None, password=None, query=None, fragment=None))
    sources.notes.label = f"{variable} ({label})"
    try:
        sources.add(label, _fetch(url))
    except Unreadable as exc:
        sources.fail(str(exc))


def _fetch(url: httpx2.URL) -> bytes:
    """The body behind that URL. Redirects are not followed: what comes back is run as commands."""
    body = b""
    try:
        with httpx2.stream("GET", url, timeout=HTTP_TIMEOUT) as response:
            if response.is_redirect:
                raise Unreadable("it redirects elsewhere; name the final address")
            if response.status_code != 200:
                raise Unreadable(f"the server answered {response.status_code}")
            for piece in response.iter_bytes():
                body += piece
                if len(body) > LARGEST:
                    raise Unreadable(f"the answer is larger than {LARGEST} bytes")
    except httpx2.TimeoutException as exc:
        raise Unreadable(f"no answer within {HTTP_TIMEOUT:g} seconds") from exc
    except httpx2.HTTPError as exc:
        raise Unreadable(f"the server cannot be reached ({type(exc).__name__})") from exc
    return body


def parse(raw: bytes | str, notes: Notes) -> Json:
    """The JSON object in there. UTF-8 with or without its mark; UTF-16 too, for Windows writes it.

    Raises:
        Unreadable: it is something else.
    """

    def object_of(pairs: list[tuple[str, Any]]) -> Json:
        found: Json = {}
        for key, value in pairs:
            if key in found:
                notes.warn(f'"{key}" is written twice in one object; only the last one counts')
            found[key] = value
        return found

    try:
        text = raw if isinstance(raw, str) else raw.decode(json.detect_encoding(raw))
        if not text.strip("\ufeff \t\r\n"):
            raise Unreadable("it is empty; write at least {}")
        data = json.loads(
            text.removeprefix("\ufeff"), object_pairs_hook=object_of, parse_constant=_refuse
        )
    except json.JSONDecodeError as exc:
        raise Unreadable(f"line {exc.lineno}, column {exc.colno}: {_why(exc)}") from None
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text") from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise Unreadable("expected a JSON object, such as {…}")
    return data


def _refuse(constant: str) -> None:
    raise Unreadable(f"{constant} is not JSON")


def _why(error: json.JSONDecodeError) -> str:
    """What is wrong there, with the usual causes by name; never what is written there."""
    before, rest = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    after_comma = before.endswith(",") or rest.startswith(",")
    for starts, words in CAUSES.items():
        if rest.startswith(starts):
            return words
    if after_comma and rest.lstrip(", \t\r\n").startswith(("}", "]")):
        return "there is a comma after the last item; remove it"
    for message, words in JSON_ERRORS.items():
        if error.msg.startswith(message):
            return words if rest else "it ends before everything is closed"
    return "not JSON"


CAUSES = {
    ("//", "/*", "#"): "JSON has no comments; remove it",
    ("'", "\u201c", "\u201d"): 'text stands in straight double quotes: "…"',
    ("True", "False", "None"): "JSON writes true, false and null",
}
JSON_ERRORS = {
    "Expecting ','": "a comma is missing before this, or a bracket is not closed",
    "Expecting ':'": 'after a name comes a colon: "name": value',
    "Expecting property name": 'a name in double quotes belongs here: "name": value',
    "Expecting value": "a value belongs here",
    "Extra data": "there is more after the end",
    "Invalid control": "a closing quote is missing on this line",
    "Unterminated": "a closing quote is missing",
    "Invalid \\": 'a backslash is written twice in JSON: "C:\\\\tools"',
}
