"""An MCP server that keeps notes in one folder: `python -m mcp_bridge.demo.servers.notes FOLDER`.

A note is a text file directly in the folder. Its name is checked to be a plain file name, links are
never followed, and the number and the size of notes are bounded: whatever a model asks for, nothing
outside the folder is read or written.
"""

import os
import re
import stat
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from mcp_bridge.demo.servers.hints import CHANGES, READS

ENDING = ".md"
MAX_NAME_BYTES = 120
MAX_NOTE_BYTES = 64 * 1024
MAX_NOTES = 500
MAX_MATCHES = 50
FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')
"""Separators, and what some file systems give a meaning of its own."""
RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""Names that are devices on Windows."""

Name = Annotated[str, Field(description="The note's name, such as shopping. No folders.")]


class NoteInfo(BaseModel):
    """A note without its text."""

    name: str
    bytes: int
    modified: str = Field(description="Date and time (UTC) in ISO 8601.")


class NoteList(BaseModel):
    """All notes."""

    notes: list[NoteInfo]


class Note(BaseModel):
    """A note."""

    name: str
    text: str


class Match(BaseModel):
    """A line of a note in which the words were found."""

    name: str
    line: int = Field(description="Counted from 1; 0: the note's name itself.")
    text: str


class Matches(BaseModel):
    """What a search has found."""

    matches: list[Match]
    truncated: bool = Field(description="Whether there were more matches.")


class Folder:
    """Notes in a folder. Every method raises ToolError with a reason for whoever asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()

    def infos(self) -> list[NoteInfo]:
        with self._lock:
            return [self._info(name) for name in self._names()]

    def read(self, name: str) -> Note:
        with self._lock:
            content = content_of(self._existing(name))
        if len(content) > MAX_NOTE_BYTES:
            raise ToolError(f"the note {name!r} is larger than {MAX_NOTE_BYTES} bytes")
        return Note(name=self._plain(name), text=content.decode(errors="replace"))

    def write(self, name: str, text: str, *, append: bool) -> NoteInfo:
        path = self._path_of(name)
        with self._lock:
            names = self._names()
            is_new = path.stem not in names
            if is_new and os.path.lexists(path):
                raise ToolError(f"{name!r} is not a plain file and cannot be written")
            if is_new and len(names) >= MAX_NOTES:
                raise ToolError(f"there are {MAX_NOTES} notes already; delete some first")
            if append and not is_new:
                text = joined(content_of(path).decode(errors="replace"), text)
            content = text.encode()
            if len(content) > MAX_NOTE_BYTES:
                raise ToolError(
                    f"the note would have {len(content)} bytes; at most {MAX_NOTE_BYTES} fit"
                )
            self._replace(path, content)
            return self._info(path.stem)

    def search(self, query: str) -> Matches:
        words = query.casefold().split()
        if not words:
            raise ToolError("the query is empty; give the words to look for")
        found: list[Match] = []
        with self._lock:
            for name in self._names():
                found += self._matches(name, words)
                if len(found) > MAX_MATCHES:
                    break
        return Matches(matches=found[:MAX_MATCHES], truncated=len(found) > MAX_MATCHES)

    def delete(self, name: str) -> str:
        with self._lock:
            self._existing(name).unlink()
        return f"the note {self._plain(name)!r} is deleted"

    def _matches(self, name: str, words: list[str]) -> list[Match]:
        text = content_of(self._path_of(name)).decode(errors="replace")
        return [
            Match(name=name, line=number, text=line[:300])
            for number, line in enumerate((name, *text.splitlines()))
            if all(word in line.casefold() for word in words)
        ]

    def _names(self) -> list[str]:
        """Names of the plain files that are notes; links and anything else are not there."""
        with os.scandir(self._path) as entries:
            return sorted(
                entry.name.removesuffix(ENDING)
                for entry in entries
                if entry.name.endswith(ENDING)
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            )

    def _info(self, name: str) -> NoteInfo:
        found = (self._path / f"{name}{ENDING}").lstat()
        modified = datetime.fromtimestamp(found.st_mtime, UTC).isoformat(timespec="seconds")
        return NoteInfo(name=name, bytes=found.st_size, modified=modified)

    def _plain(self, name: str) -> str:
        """The name without the ending, when it is a plain file name."""
        plain = name.strip().removesuffix(ENDING)
        if not plain:
            raise ToolError("a note needs a name")
        if plain.startswith(".") or FORBIDDEN.search(plain) or RESERVED.fullmatch(plain):
            raise ToolError(
                f"{name[:100]!r} cannot be a note's name: use letters, digits, spaces and dashes; "
                "there are no folders, and it cannot begin with a dot"
            )
        if len(plain.encode()) > MAX_NAME_BYTES:
            raise ToolError(f"a note's name has at most {MAX_NAME_BYTES} bytes")
        return plain

    def _path_of(self, name: str) -> Path:
        return self._path / f"{self._plain(name)}{ENDING}"

    def _existing(self, name: str) -> Path:
        path = self._path_of(name)
        try:
            is_plain_file = stat.S_ISREG(path.lstat().st_mode)
        except FileNotFoundError:
            is_plain_file = False
        if not is_plain_file:
            names = ", ".join(self._names()[:20]) or "none yet"
            raise ToolError(f"there is no note {self._plain(name)!r}; there are: {names}")
        return path

    def _replace(self, path: Path, content: bytes) -> None:
        """All or nothing. The new file takes the place of the name, so no link is followed."""
        handle, temporary = tempfile.mkstemp(dir=self._path, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def content_of(path: Path) -> bytes:
    """The file's content, and one byte too many when it is too large."""
    # O_NOFOLLOW closes the gap between the check for links and the opening.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(handle, "rb") as file:
        return file.read(MAX_NOTE_BYTES + 1)


def joined(text: str, more: str) -> str:
    """`more` on lines of its own after `text`."""
    return f"{text}\n{more}" if text and not text.endswith("\n") else text + more


def build(folder: Folder) -> MCPServer:
    """The server of that folder."""
    server = MCPServer("notes", title="Notes", version="1", log_level="WARNING")

    @server.tool(title="List notes", annotations=READS)
    def list_notes() -> NoteList:
        """List all notes with their size and the time of their last change."""
        return NoteList(notes=folder.infos())

    @server.tool(title="Read a note", annotations=READS)
    def read_note(name: Name) -> Note:
        """Read the text of a note."""
        return folder.read(name)

    @server.tool(title="Write a note", annotations=CHANGES)
    def write_note(
        name: Name,
        text: Annotated[str, Field(description="The text, at most 64 KiB.")],
        append: Annotated[
            bool, Field(description="True: put the text after what is there.")
        ] = False,
    ) -> NoteInfo:
        """Write a note: make a new one, or replace the text of the one with that name."""
        return folder.write(name, text, append=append)

    @server.tool(title="Search notes", annotations=READS)
    def search_notes(
        query: Annotated[str, Field(description="Words that a line must hold, in any case.")],
    ) -> Matches:
        """Search all notes for lines that hold certain words."""
        return folder.search(query)

    @server.tool(title="Delete a note", annotations=CHANGES)
    def delete_note(name: Name) -> str:
        """Delete a note for good."""
        return folder.delete(name)

    return server


def main(arguments: list[str]) -> None:
    match arguments:
        case [path] if os.path.isdir(path):
            build(Folder(Path(path).resolve())).run()
        case [path]:
            sys.exit(f"{path} is no folder; make it first")
        case _:
            sys.exit("usage: python -m mcp_bridge.demo.servers.notes FOLDER")


if __name__ == "__main__":
    main(sys.argv[1:])
