"""Real MCP servers from npm, which `scripts/node` installs."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "tests/node/node_modules/@modelcontextprotocol"


def npm_server(name: str, *args: str) -> list[str]:
    """The command line of a server of `@modelcontextprotocol`, or a skip as in `script`."""
    return script(PACKAGES / name / "dist/index.js", *args)


def script(path: Path, *args: str) -> list[str]:
    """The command line of a script for Node; skips the test where it is not installed.

    In CI such a skip is a failure (tests/conftest.py).
    """
    node = shutil.which("node", path=str(ROOT / ".cache/node/bin")) or shutil.which("node")
    if node is None or not path.exists():
        where = path.relative_to(ROOT)
        pytest.skip(f"{where} needs Node 22 with npm: install it, then run scripts/node")
    return [node, str(path), *args]
