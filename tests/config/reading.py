"""Configurations for the tests, read from a real file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mcp_bridge.config.load import Loaded, load
from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import ConfigError

Json = dict[str, Any]


class Reader:
    """Writes `config.json` into a folder of its own, and loads it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "config.json"

    def __call__(
        self, data: Json | str, environ: Mapping[str, str] | None = None, **overrides: Any
    ) -> Loaded:
        self.write(data)
        return load(str(self.file), environ or {}, overrides or None)

    def write(self, data: Json | str) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self.file.write_text(text, encoding="utf-8")

    def server(self, entry: Json, environ: Mapping[str, str] | None = None) -> McpServer:
        """The one MCP server that the entry describes, read without a warning."""
        loaded = self({"mcp_servers": {"it": entry}}, environ)
        assert loaded.warnings == ()
        return loaded.settings.mcp_servers["it"]

    def mistakes(
        self, data: Json | str, environ: Mapping[str, str] | None = None, **overrides: Any
    ) -> list[str]:
        """What is wrong with it, without the name of the file."""
        with pytest.raises(ConfigError) as caught:
            self(data, environ, **overrides)
        return [line.removeprefix(f"{self.file}: ") for line in caught.value.mistakes]

    def warnings(self, data: Json | str, environ: Mapping[str, str] | None = None) -> list[str]:
        return [line.removeprefix(f"{self.file}: ") for line in self(data, environ).warnings]
