"""Real MCP servers from npm, which `scripts/node` installs."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "tests/node/node_modules/@modelcontextprotocol"


def npm_server(name: str, *args: str) -> list[str]:
    """The command line of `@modelcontextprotocol/NAME`; skips the test where it is not installed.

    In CI such a skip is a failure (tests/conftest.py).
    """
    script = PACKAGES / name / "dist/index.js"
    node = shutil.which("node", path=str(ROOT / ".cache/node/bin")) or shutil.which("node")
    if node is None or not script.exists():
        pytest.skip(f"{name} needs Node 22 with npm: install it, then run scripts/node")
    return [node, str(script), *args]
