"""The application: what is answered when everything else has failed."""

import re

import pytest

from tests.api.bridged import bridged


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/embeddings", "/t/none/v1/completions"]
)
async def test_a_mistake_of_ours_is_a_500_in_openais_shape(path: str) -> None:
    async with bridged(mcp_servers={}) as place:
        app = place.app
        bridge, app.state.bridge = app.state.bridge, None
        response = await place.http.post(path, json=place.body("hi"))
        app.state.bridge = bridge
        assert (await place.http.get("/v1/models")).status_code == 200
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-request-id"]


async def test_the_documentation_of_the_rest_door_needs_no_other_host() -> None:
    async with bridged(mcp_servers={}) as place:
        page = await place.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "openapi.json" in page.text
    assert "//" not in re.sub(r"^\s*//.*$", "", page.text, flags=re.MULTILINE)
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy


async def test_the_rest_door_describes_each_placeholder_of_its_paths() -> None:
    async with bridged(mcp_servers={}) as place:
        paths = (await place.http.get("/openapi.json")).json()["paths"]
    assert "/mcp/tools" in paths
    for path, operations in paths.items():
        for operation in operations.values():
            described = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            assert described == re.findall(r"{(\w+)}", path), path


async def test_who_opens_the_address_in_a_browser_finds_the_documentation() -> None:
    async with bridged(mcp_servers={}) as place:
        response = await place.http.get("/")
    assert response.status_code == 307
    assert response.headers["location"] == "/docs"


@pytest.mark.parametrize("path", ["models", "models/model-a", "embeddings"])
async def test_a_path_of_a_toolset_that_is_not_there_is_404(path: str) -> None:
    async with bridged(mcp_servers={}) as place:
        response = await place.http.get(f"/t/nowhere/v1/{path}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "toolset_not_found"
