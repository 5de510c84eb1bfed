"""A bridge whose operator's door is under test."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.admin.library import Seen, library
from tests.api.bridged import Place, bridged, scripted_server
from tests.servers.web import serving

Json = dict[str, Any]


@asynccontextmanager
async def with_library(seen: Seen | None = None, **config: Any) -> AsyncGenerator[Place]:
    """A bridge with the servers `library` (HTTP) and `tools` (stdio, scripted)."""
    async with serving(library(seen)) as site:
        servers = {
            "library": {"url": f"{site.url}/mcp"},
            "tools": scripted_server("prompts", include=["echo", "fail", "refuse"]),
        }
        async with bridged(mcp_servers=servers, **config) as place:
            yield place


def keys(**more: Json) -> Json:
    """The section `security` with a key for each keyword: its name, its key, and its settings."""
    entries = [{"key": f"key-of-{name}", "name": name, **fields} for name, fields in more.items()]
    return {"auth": {"enabled": True, "api_keys": entries}}


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer key-of-{name}"}


async def get(place: Place, path: str, name: str | None = None, **options: Any) -> httpx2.Response:
    return await place.http.get(path, headers=bearer(name) if name else {}, **options)


def error(response: httpx2.Response) -> Json:
    """The error of an answer, whose shape is OpenAI's."""
    value = response.json()["error"]
    assert set(value) == {"message", "type", "param", "code"}
    assert isinstance(value, dict)
    return value
