"""The documents are tests too: what they say exists, and what they show runs."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import anyio
import click
import pytest
from pydantic import BaseModel
from starlette.routing import BaseRoute, Match

from mcp_bridge.api.body import check_chat
from mcp_bridge.app import create_app
from mcp_bridge.cli import main
from mcp_bridge.config.load import Loaded, load
from mcp_bridge.config.settings import Settings
from tests.api.bridged import Place, bridged
from tests.fakes import Request, Said, answer
from tests.mcp_client.running import PATIENCE

Json = dict[str, Any]

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]
SOURCES = "\n".join(path.read_text().lower() for path in (ROOT / "mcp_bridge").rglob("*.py"))

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for found, text in FENCE.findall(document.read_text()) if found == language]


def codes(document: Path) -> list[str]:
    """What stands between backticks in the prose."""
    prose = FENCE.sub("", document.read_text())
    return [" ".join(code.split()) for _, code in CODE.findall(prose)]


def named(items: list[tuple[Path, str]]) -> pytest.MarkDecorator:
    ids = [f"{path.name}: {' '.join(text.split())[:40]}" for path, text in items]
    return pytest.mark.parametrize("text", [text for _, text in items], ids=ids)


# Links


def links(document: Path) -> list[str]:
    """The places in this repository that a document leads to."""
    found = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith(("http://", "https://"))]


def anchors(document: Path) -> set[str]:
    """Where the headings of a document can be reached."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_found_from_the_readme() -> None:
    found: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        found.add(document)
        paths = {(document.parent / link.partition("#")[0]).resolve() for link in links(document)}
        todo += [path for path in paths - found if path.suffix == ".md"]
    assert not [page.name for page in PAGES if page not in found]


FILE = re.compile(r"[\w.-]*(/[\w.-]+)*\.(py|md|json|yml|toml)|scripts/\w+")


@each_document
def test_every_file_of_ours_that_is_named_is_there(document: Path) -> None:
    """From the top of the repository, or from the package."""
    places = (ROOT, ROOT / "mcp_bridge")
    theirs = {"mcp.json"}  # LM Studio's
    ours = {"config.json"}  # the reader's
    for name in filter(FILE.fullmatch, codes(document)):
        if name not in theirs | ours:
            assert any((place / name).exists() for place in places), name


# Reasons

COMPLAINT = re.compile(r"\b([LPSTDOXU])([1-9]\d?)(?:-\1([1-9]\d?))?\b")
"""Such as L22, or L18-L20."""
PROMISE = re.compile(r"DESIGN (3\.\d+(?:, 3\.\d+)*)")


def reasons(text: str) -> set[str]:
    """What a text gives as the reasons of its code."""
    found = {f"DESIGN {point}" for points in PROMISE.findall(text) for point in points.split(", ")}
    for letter, first, last in COMPLAINT.findall(text):
        found |= {f"{letter}{number}" for number in range(int(first), int(last or first) + 1)}
    return found


def explained() -> set[str]:
    page = (ROOT / "docs/why.md").read_text(encoding="utf-8")
    return set(re.findall(r"^- \*\*([^*]+)\*\* ", page, re.MULTILINE))


def test_every_reason_that_is_given_is_explained() -> None:
    """By the code, and by the page of reasons itself."""
    known = explained()
    for path in (*(ROOT / "mcp_bridge").rglob("*.py"), ROOT / "docs/why.md"):
        unknown = reasons(path.read_text(encoding="utf-8")) - known
        assert not unknown, f"{path.relative_to(ROOT)}: explain {unknown} in docs/why.md"


def test_reasons_are_found() -> None:
    text = "(DESIGN 3.16, 3.17; L18-L20), see U4; x = 1  # noqa: S101"
    assert reasons(text) == {"DESIGN 3.16", "DESIGN 3.17", "L18", "L19", "L20", "U4"}


# Configurations

ALIASES = {"mcpServers", "servers"}
SECTIONS = set(Settings.model_fields) | ALIASES
SERVER = {"command", "url", "image"}
NO_MISTAKES = ("no MCP server has that name", "the bridge serves MCP clients only")
"""What is true of a part of a configuration alone."""


def whole(text: str) -> Json | None:
    """The JSON object that is shown, or None. A fragment of one gets its braces."""
    for candidate in (text, "{" + text + "}"):
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        return found if isinstance(found, dict) else None
    return None


def configuration(shown: Json) -> Json | None:
    """It as a whole configuration, if it is a part of one."""
    if shown.keys() & SERVER:
        return {"mcp_servers": {"shown": shown}}
    if "base_url" in shown:
        return {"inference_server": shown}
    sections = [value for key, value in shown.items() if key in SECTIONS]
    return shown if sections and all(isinstance(value, dict) for value in sections) else None


def configurations() -> list[tuple[Path, str]]:
    """All that a reader may paste into `config.json`."""
    texts = [(d, text) for d in DOCUMENTS for text in (*blocks(d, "json"), *codes(d))]
    objects = [(document, text, whole(text)) for document, text in texts]
    return [(document, text) for document, text, found in objects if found and configuration(found)]


@named(configurations())
def test_a_configuration_that_is_shown_loads(text: str, tmp_path: Path) -> None:
    shown = whole(text)
    assert shown is not None
    file = tmp_path / "config.json"
    file.write_text(json.dumps(configuration(shown)))
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "set")
    loaded = load(str(file), variables)
    told = [w for w in loaded.warnings if not w.endswith(NO_MISTAKES)]
    assert told == []


@each_document
def test_every_json_block_is_json(document: Path) -> None:
    for text in blocks(document, "json"):
        assert whole(text) is not None, text


def test_the_variables_that_are_shown_are_read(tmp_path: Path) -> None:
    block = next(b for b in blocks(ROOT / "docs/configuration.md", "sh") if "__NETWORK__" in b)
    lines = "".join(block).replace("…", "something").splitlines()
    variables = dict(line.split("=", 1) for line in map(unquoted, lines))
    loaded = load(environ=variables)
    assert loaded.settings.network.port == 9090
    assert loaded.settings.mcp_servers["fetch"].command == "uvx"


def unquoted(line: str) -> str:
    return "".join(shlex.split(line))


# Settings


def settings_named(document: Path) -> Iterator[str]:
    """Dotted names that begin with a section, such as `tools.prefix`."""
    for code in codes(document):
        name = code.replace("[]", "")
        if re.fullmatch(r"[a-z_]+(\.\w+)+", name) and name.split(".")[0] in SECTIONS:
            yield name


def part_of(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's values are made of, if they are."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = map(part_of, get_args(annotation)) if get_origin(annotation) else iter(())
    return next(filter(None, parts), None)


def exists(model: type[BaseModel], steps: list[str]) -> bool:
    field = model.model_fields.get(steps[0])
    if field is None or len(steps) == 1:
        return field is not None
    part, rest = part_of(field.annotation), steps[1:]
    if get_origin(field.annotation) is dict:
        rest = rest[1:]  # the name that a user gives
    return not rest or (part is not None and exists(part, rest))


@each_document
def test_every_setting_that_is_named_exists(document: Path) -> None:
    for name in settings_named(document):
        if (ROOT / "mcp_bridge" / name.replace(".", "/")).with_suffix(".py").exists():
            continue  # a logger
        assert exists(Settings, name.split(".")), name


def test_settings_are_found_and_missed() -> None:
    """The test above would not fail if nothing were found."""
    assert exists(Settings, ["security", "auth", "api_keys", "toolset"])
    assert exists(Settings, ["mcp_servers", "NAME", "tools", "NAME", "timeout"])
    assert not exists(Settings, ["mcp_servers", "NAME", "timeouts"])
    assert not exists(Settings, ["tools", "prefixes"])
    assert sum(len(list(settings_named(document))) for document in DOCUMENTS) > 30


# Commands


def commands(document: Path) -> Iterator[str]:
    shell = "\n".join(blocks(document, "sh")).replace("\\\n", " ")
    for text in (*shell.splitlines(), *codes(document)):
        found = re.match(r"(?:python -m mcp_bridge|mcp-bridge) (.+)", text.strip())
        if found and not found[1].startswith("COMMAND"):
            yield re.split(r" [>|] |  +#", found[1])[0]


@each_document
def test_every_command_that_is_named_exists(document: Path) -> None:
    for text in commands(document):
        name, *arguments = shlex.split(text)
        if name in ("--help", "--version"):
            continue
        assert name in main.commands, text
        main.commands[name].make_context(name, arguments)


def test_commands_are_found() -> None:
    found = [text.split()[0] for document in DOCUMENTS for text in commands(document)]
    assert {"serve", "demo", "check", "doctor", "tools", "stdio"} <= set(found)
    with pytest.raises(click.UsageError):
        main.commands["serve"].make_context("serve", ["--prot", "1"])


INSTALLED = re.compile(r"(pip3? install|uv tool install|uv add|pipx install|uvx)\s+mcp[-_]bridge")


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "pyproject.toml"], ids=lambda p: p.name)
def test_nobody_is_told_to_install_another_projects_package(document: Path) -> None:
    """The name on the public index is not ours."""
    assert not INSTALLED.search(document.read_text())


# Endpoints

ENDPOINT = re.compile(
    r"(?:(GET|POST|PUT|DELETE|PATCH) )?(?:http://127\.0\.0\.1:8000)?(/[a-z{][^\s?]*)(?:\?\S*)?"
)
FILES = ("/path/", "/run/", "/home/", "/config")
BELOW = ("/v1", "/mcp/x", "/chat/completions")
"""What is no endpoint, but the beginning or the end of some."""


def endpoints(document: Path) -> Iterator[tuple[str | None, str]]:
    """Paths with or without a method; `…` and `{name}` stand for anything."""
    for code in codes(document):
        found = ENDPOINT.fullmatch(code)
        if found and not found[2].startswith(FILES):
            path = re.sub(r"\{\w+\}|NAME|…", "x", found[2])
            yield found[1], path
    for block in blocks(document, "sh"):
        for path in re.findall(r"http://127\.0\.0\.1:8000(/\S*)", block):
            yield None, path


def served(routes: list[BaseRoute], method: str | None, path: str) -> bool:
    wanted = (Match.FULL,) if method else (Match.FULL, Match.PARTIAL)
    scope = {"type": "http", "method": method or "GET", "path": path, "headers": []}
    socket = {**scope, "type": "websocket"}
    return any(r.matches(s)[0] in wanted for r in routes for s in (scope, socket))


@each_document
def test_every_endpoint_that_is_named_is_served(document: Path) -> None:
    routes = create_app(Loaded(Settings())).router.routes
    for method, path in endpoints(document):
        assert path in BELOW or served(routes, method, path), f"{method or ''} {path}"


def test_endpoints_are_found_and_missed() -> None:
    routes = create_app(Loaded(Settings())).router.routes
    assert sum(len(list(endpoints(document))) for document in DOCUMENTS) > 30
    assert served(routes, "POST", "/mcp/tools/x/call")
    assert not served(routes, "GET", "/mcp/tools/x/call")
    assert not served(routes, None, "/mcp-server/nowhere")


# Words

THEIRS = frozenset({"num_ctx"})  # Ollama's
ABOUT_OTHERS = "performance.md"
WORD = re.compile(r"[a-z]+(_[a-z]+)+|[xX](-[A-Za-z]+)+")


@each_document
def test_codes_fields_and_headers_that_are_named_are_in_the_code(document: Path) -> None:
    """Error codes such as `model_not_found`, states, tools, metrics, `X-MCP-Toolset`."""
    for word in set(filter(WORD.fullmatch, codes(document))) - THEIRS:
        assert document.name == ABOUT_OTHERS or word.lower().removesuffix("_total") in SOURCES, word


# Examples

QUESTION = "What time is it in Tokyo?"


def clock(request: Request) -> Said:
    """A model that uses a tool for the question that the examples ask."""
    last = request.json["messages"][-1]
    if last["role"] == "tool":
        return answer(f"In Tokyo it is {last['content']}.")
    assert last["content"] == QUESTION
    return answer(calls=[("c1", "echo", '{"text": "noon"}')])


def at(place: Place, text: str) -> str:
    """An example with the address of the bridge under test."""
    assert "http://127.0.0.1:8000" in text
    return text.replace("http://127.0.0.1:8000", place.url)


async def test_the_example_with_the_openai_sdk_runs() -> None:
    (example,) = blocks(ROOT / "docs/clients.md", "python")
    printed: list[str] = []
    async with bridged(then=clock, models=["qwen3"]) as place:
        program = compile(at(place, example), "docs/clients.md", "exec")
        with anyio.fail_after(PATIENCE):
            await anyio.to_thread.run_sync(exec, program, {"print": printed.append})
    assert printed == ["In Tokyo it is noon."]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("options", ["", "-N "], ids=["plain", "unbuffered"])
async def test_the_example_with_curl_runs(options: str) -> None:
    (example,) = blocks(ROOT / "docs/clients.md", "sh")
    async with bridged(then=clock, models=["qwen3"]) as place:
        command = at(place, example).replace("curl ", f"curl -sS --fail {options}", 1)
        with anyio.fail_after(PATIENCE):
            ran = await anyio.run_process(["sh", "-c", command])
    events = ran.stdout.decode().splitlines()
    assert [line for line in events if line][-1] == "data: [DONE]"
    chunks = [json.loads(line[6:]) for line in events if line.startswith("data: {")]
    said = [c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]]
    assert "".join(said) == "In Tokyo it is noon."


def requests_shown() -> list[tuple[Path, str]]:
    """Bodies of chat requests."""
    texts = [(document, text) for document in DOCUMENTS for text in blocks(document, "json")]
    return [(document, text) for document, text in texts if "messages" in (whole(text) or {})]


@named(requests_shown())
def test_a_request_that_is_shown_is_a_good_one(text: str) -> None:
    body = whole(text)
    assert body is not None
    check_chat(body)
