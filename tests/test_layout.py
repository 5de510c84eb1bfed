"""Imports point down and never sideways (DESIGN section 2)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mcp_bridge"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__main__"}),
    frozenset({"cli"}),
    frozenset({"demo", "doctor", "workers"}),
    frozenset({"app", "serve", "listening"}),
    frozenset({"api", "mcp_server", "admin", "middleware"}),
    frozenset({"bridge"}),
    frozenset({"agent"}),
    frozenset({"tools", "prompts"}),
    frozenset({"policy", "mcp_client", "inference", "websocket"}),
    frozenset(
        {"types", "errors", "exact", "proxy", "sse", "clock", "tasks", "backoff", "http1"}
        | {"config", "telemetry"}
    ),
)
SHARED = {("mcp_client", "tools"), ("mcp_client", "websocket"), ("policy", "tools")}
"""Seams that a lower part implements: only `tools.source` (what a source is) and the WebSocket."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
BOTTOM = LAYERS[-1]


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "mcp_bridge"


def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append(node.module)
    return [name for name in found if name.startswith("mcp_bridge.")]


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_and_never_sideways(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    here = parts[0]
    if here == "__init__":
        assert imports(path) == []
        return
    assert here in RANK, (
        f"{here} has no place in the layers: add it to docs/life-of-a-request.md and here"
    )
    for module in imports(path):
        there = part_of(module)
        if there == here or (here, there) in SHARED:
            continue
        sideways_at_the_bottom = here in BOTTOM and there in BOTTOM
        assert RANK[there] > RANK[here] or sideways_at_the_bottom, f"{here} imports {module}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=str)
def test_a_package_file_holds_a_docstring_and_no_code(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
