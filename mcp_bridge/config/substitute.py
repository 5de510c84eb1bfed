"""`${VAR}`, `${VAR:-default}`, `${env:VAR}` and `${file:/path}` in every string.

`$${` is a literal `${`, and a default may hold references again.

What cannot be found is reported with its path and left as it was written: inside an MCP server it
disables that server, elsewhere it is a mistake. No message ever holds a value.
"""

import hashlib
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_bridge.config.shape import Path
from mcp_bridge.types import Json

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.()-]*")
LARGEST_FILE = 1 << 20


class Unresolved(Exception):
    """A reference has no value; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What could not be found, and where it was asked for."""

    path: Path
    reason: str


@dataclass(slots=True)
class Substitution:
    """One pass over a configuration. `files` are those it asked for, with what it found."""

    environ: Mapping[str, str]
    missing: list[Missing] = field(default_factory=list)
    files: dict[pathlib.Path, str | None] = field(default_factory=dict)

    def apply(self, value: Any, path: Path = ()) -> Any:
        """The value with every reference replaced, at any depth."""
        match value:
            case str():
                return self._text(value, path)
            case dict():
                return {key: self.apply(item, (*path, key)) for key, item in value.items()}
            case list():
                return [self.apply(item, (*path, n)) for n, item in enumerate(value)]
        return value

    def _text(self, text: str, path: Path) -> str:
        try:
            return self.expand(text)
        except Unresolved as exc:
            self.missing.append(Missing(path, str(exc)))
            return text

    def expand(self, text: str) -> str:
        """The text with its references replaced.

        Raises:
            Unresolved: one of them has no value.
        """
        done = ""
        while (start := text.find("${")) >= 0:
            if text[:start].endswith("$"):
                done, text = done + text[: start - 1] + "${", text[start + 2 :]
                continue
            end = _closing_brace(text, start)
            done += text[:start] + self._resolve(text[start + 2 : end])
            text = text[end + 1 :]
        return done + text

    def _resolve(self, reference: str) -> str:
        name, separator, default = reference.partition(":-")
        try:
            value = self._find(name.strip())
        except Unresolved:
            if not separator:
                raise
            return self.expand(default)
        return self.expand(default) if separator and not value else value

    def _find(self, name: str) -> str:
        kind, colon, rest = name.partition(":")
        if colon and kind == "file":
            return self._read(rest)
        if colon and kind == "input":
            raise Unresolved(
                f"${{{name}}} asks a person, which only an editor can do; "
                "write ${NAME} and set that variable in the bridge's environment"
            )
        variable = rest if colon and kind == "env" else name
        if not NAME.fullmatch(variable):
            raise Unresolved("a ${…} in it names no variable; write $${ for a literal ${")
        if variable == "userHome" and variable not in self.environ:  # VS Code and Cursor
            return str(pathlib.Path.home())
        if variable not in self.environ:
            raise Unresolved(
                f"variable {variable} is not set; set it in the bridge's environment, "
                f"or give a default: ${{{variable}:-…}}"
            )
        return self.environ[variable]

    def _read(self, name: str) -> str:
        path = pathlib.Path(name).expanduser().absolute()
        try:
            raw = read_file(path, LARGEST_FILE)
            text = raw.decode()
        except (OSError, ValueError) as exc:
            self.files[path] = None
            raise Unresolved(f"file {name} cannot be read: {reason(exc)}") from None
        self.files[path] = digest(raw)
        return text.rstrip("\r\n")


def substitute(data: Json, environ: Mapping[str, str]) -> tuple[Json, Substitution]:
    """The configuration with its references replaced, and what came up."""
    substitution = Substitution(environ)
    return substitution.apply(data), substitution


def read_file(path: pathlib.Path, limit: int) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than the limit.
    """
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return raw


def digest(raw: bytes) -> str:
    """What tells two contents of a file apart."""
    return hashlib.sha256(raw).hexdigest()


def reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read, without what is in it."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def _closing_brace(text: str, start: int) -> int:
    depth, at = 0, start
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
        elif text[at] == "}":
            depth, at = depth - 1, at + 1
            if depth == 0:
                return at - 1
        else:
            at += 1
    raise Unresolved("a ${ in it is not closed by }; write $${ for a literal ${")
