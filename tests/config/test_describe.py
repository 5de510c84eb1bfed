"""The schema and the reference say what the loader does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mcp_bridge.config.describe import reference, schema, updated
from mcp_bridge.config.settings import Section, Settings
from mcp_bridge.config.shape import ROOT, Kind, Shape, shape_of
from tests.config.reading import Reader
from tests.config.test_entries import CLAUDE_DESKTOP, CLINE, CURSOR, GEMINI, VS_CODE, WINDSURF
from tests.config.test_load import ORIGINAL

REPOSITORY = Path(__file__).parent.parent.parent
DOCUMENT = REPOSITORY / "docs" / "configuration.md"
EXAMPLE = (REPOSITORY / "config.json.example").read_text(encoding="utf-8")


def sections(shape: Shape = ROOT) -> list[type[Section]]:
    inner = [shape_of(field.annotation) for field in shape.fields().values()]
    found = [section for one in [*inner, shape.item] if one for section in sections(one)]
    return [shape.section, *found] if shape.kind is Kind.SECTION and shape.section else found


def test_the_document_is_up_to_date() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert updated(text) == text, "run: python -m mcp_bridge.config.describe docs/configuration.md"


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_each_setting_is_documented(section: type[Section]) -> None:
    text = reference()
    for name, field in section.model_fields.items():
        row = re.search(rf"^\| `{name}` \|.+\|.+\| .+ \|$", text, re.MULTILINE)
        assert (row is None) == (name == "problem"), f"{section.__name__}.{name} is not documented"
        if field.description and name != "problem":
            assert field.description.replace("|", "\\|") in text


def test_the_command_in_the_document_writes_the_reference(tmp_path: Path) -> None:
    file = tmp_path / "configuration.md"
    file.write_text("# Written by hand\n", encoding="utf-8")
    command = [sys.executable, "-m", "mcp_bridge.config.describe", str(file)]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "PYTHONUTF8": "1"})
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Written by hand\n\n<!--")
    assert text.endswith(reference())
    assert updated(text) == text


def test_the_example_loads_without_a_warning(read: Reader) -> None:
    names = re.findall(r"\$\{(\w+)\}", EXAMPLE)
    loaded = read(EXAMPLE, {name: f"value-of-{name}" for name in names})
    assert loaded.warnings == ()
    assert loaded.settings.mcp_servers
    assert all(server.problem is None for server in loaded.settings.mcp_servers.values())


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


@pytest.mark.parametrize(
    "data",
    [
        json.loads(EXAMPLE),
        ORIGINAL,
        CLAUDE_DESKTOP,
        CLINE,
        CURSOR,
        GEMINI,
        VS_CODE,
        WINDSURF,
        {"$schema": "x", "inference_server": [{"base_url": "http://a/v1"}]},
        {"network": {"port": "${PORT}"}, "security": {"CORS": {"enabled": "${CORS:-false}"}}},
        {"servers": {"a": {"command": ["x"], "env": {"A": 1, "B": True}, "type": "local"}}},
        {"mcp_servers": {"a": {"command": "x", "args": "a b", "enabled": True}}},
    ],
)
def test_what_the_loader_takes_is_valid_by_the_schema(data: dict[str, Any]) -> None:
    jsonschema.validate(data, schema())


@pytest.mark.parametrize(
    "data",
    [
        {"network": {"port": "eighty"}},
        {"mcp_servers": {"a": {"command": 1}}},
        {"mcpServers": {"a": {"type": "pigeon"}}},
        {"security": {"CORS": {"enabled": "perhaps"}}},
        {"inference_server": "http://x"},
    ],
)
def test_what_is_plainly_wrong_is_invalid_by_the_schema(data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


def test_the_schema_has_every_name_and_no_internal_one() -> None:
    definitions = schema()["$defs"]
    server = definitions["McpServer"]["properties"]
    assert {"url", "serverUrl", "httpUrl", "type", "transport", "enabled"} <= server.keys()
    assert "problem" not in server
    assert {"mcp_servers", "mcpServers", "servers"} <= schema()["properties"].keys()
    assert {"cors", "CORS"} <= definitions["Security"]["properties"].keys()
    for section in sections():
        if section is Settings:
            continue
        for name, node in definitions[section.__name__]["properties"].items():
            described = "description" in node or "$ref" in node
            assert described, f"{section.__name__}.{name} has no description"


def test_the_examples_of_the_schema_load_without_a_warning(read: Reader) -> None:
    definitions = schema()["$defs"]
    environ = {"TOKEN": "t", "BRIDGE_KEY": "k"}
    for n, example in enumerate(definitions["McpServer"]["examples"]):
        assert read({"mcp_servers": {f"s{n}": example}}, environ).warnings == ()
    data = {
        "inference_server": definitions["InferenceServer"]["examples"][0],
        "toolsets": {"research": definitions["Toolset"]["examples"][0]},
        "security": {"auth": {"enabled": True, "api_keys": definitions["ApiKey"]["examples"]}},
    }
    assert read(data, environ).warnings == ()
