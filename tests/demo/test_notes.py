"""The notes server: what it keeps, and that nothing leaves its folder."""

import os
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from mcp_bridge.demo.servers.notes import MAX_MATCHES, MAX_NOTE_BYTES, MAX_NOTES, Folder, build
from tests.demo.calling import call, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.mkdir()
    (tmp_path / "secret.md").write_text("secret")
    return path


@pytest.fixture
def server(folder: Path) -> MCPServer:
    return build(Folder(folder))


async def names(server: MCPServer) -> list[str]:
    return [note["name"] for note in (await call(server, "list_notes"))["notes"]]


async def test_a_note_is_written_read_listed_and_deleted(server: MCPServer, folder: Path) -> None:
    written = await call(server, "write_note", name="to do", text="call Bob\n")
    assert (written["name"], written["bytes"]) == ("to do", 9)
    assert (folder / "to do.md").read_text() == "call Bob\n"
    assert await call(server, "read_note", name="to do") == {"name": "to do", "text": "call Bob\n"}
    assert await names(server) == ["to do"]
    told = await call(server, "delete_note", name="to do.md")
    assert told == {"result": "the note 'to do' is deleted"}
    assert await names(server) == []


async def test_writing_replaces_and_appending_adds_lines(server: MCPServer) -> None:
    await call(server, "write_note", name="a", text="old")
    await call(server, "write_note", name="a", text="one")
    await call(server, "write_note", name="a", text="two\n", append=True)
    await call(server, "write_note", name="a", text="three", append=True)
    assert (await call(server, "read_note", name="a"))["text"] == "one\ntwo\nthree"


async def test_a_search_finds_lines_with_all_words_and_names(server: MCPServer) -> None:
    await call(server, "write_note", name="food", text="Buy milk\nbuy red apples\n")
    await call(server, "write_note", name="apples", text="sour")
    found = await call(server, "search_notes", query="APPLES")
    assert found["matches"] == [
        {"name": "apples", "line": 0, "text": "apples"},
        {"name": "food", "line": 2, "text": "buy red apples"},
    ]
    found = await call(server, "search_notes", query="red buy")
    assert [match["line"] for match in found["matches"]] == [2]
    assert found["truncated"] is False


async def test_a_search_with_many_matches_says_that_there_are_more(server: MCPServer) -> None:
    await call(server, "write_note", name="a", text="word\n" * (MAX_MATCHES + 1))
    found = await call(server, "search_notes", query="word")
    assert len(found["matches"]) == MAX_MATCHES
    assert found["truncated"] is True


BAD_NAMES = [
    "../secret",
    "..",
    ".hidden",
    "a/b",
    "a\\b",
    "/etc/passwd",
    "c:x",
    "a\0b",
    "a\nb",
    "",
    "  ",
    ".md",
    "x" * 200,
    "é" * 100,
    "CON",
    "nul.txt",
]
TOOLS: list[tuple[str, dict[str, Any]]] = [
    ("read_note", {}),
    ("write_note", {"text": "x"}),
    ("delete_note", {}),
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(("tool", "more"), TOOLS)
async def test_a_name_that_is_no_plain_file_name_is_refused(
    server: MCPServer, folder: Path, name: str, tool: str, more: dict[str, Any]
) -> None:
    assert "name" in await refused(server, tool, name=name, **more)
    assert os.listdir(folder) == []
    assert (folder.parent / "secret.md").read_text() == "secret"


@pytest.mark.parametrize(("tool", "more"), TOOLS)
async def test_a_link_out_of_the_folder_is_not_followed(
    server: MCPServer, folder: Path, tool: str, more: dict[str, Any]
) -> None:
    (folder / "link.md").symlink_to(folder.parent / "secret.md")
    await refused(server, tool, name="link", **more)
    assert await names(server) == []
    assert (await call(server, "search_notes", query="secret"))["matches"] == []
    assert (folder.parent / "secret.md").read_text() == "secret"


async def test_an_unknown_note_is_answered_with_those_that_exist(server: MCPServer) -> None:
    await call(server, "write_note", name="shopping", text="eggs")
    told = await refused(server, "read_note", name="shoping")
    assert "there is no note 'shoping'; there are: shopping" in told


async def test_a_note_has_a_largest_size(server: MCPServer, folder: Path) -> None:
    await call(server, "write_note", name="a", text="x" * MAX_NOTE_BYTES)
    assert "at most" in await refused(server, "write_note", name="a", text="é", append=True)
    assert len((folder / "a.md").read_bytes()) == MAX_NOTE_BYTES
    (folder / "b.md").write_bytes(b"x" * (MAX_NOTE_BYTES + 1))
    assert "larger than" in await refused(server, "read_note", name="b")


async def test_there_are_only_so_many_notes(server: MCPServer, folder: Path) -> None:
    for number in range(MAX_NOTES):
        (folder / f"{number}.md").touch()
    assert "delete some first" in await refused(server, "write_note", name="one more", text="x")
    await call(server, "write_note", name="0", text="changed")
    assert len(os.listdir(folder)) == MAX_NOTES


async def test_text_that_is_not_utf8_is_still_read(server: MCPServer, folder: Path) -> None:
    (folder / "old.md").write_bytes(b"caf\xe9")
    assert (await call(server, "read_note", name="old"))["text"] == "caf\ufffd"
