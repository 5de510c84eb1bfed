"""The application: what is answered when everything else has failed."""

import pytest

from tests.api.bridged import bridged


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/t/x/v1/completions"])
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


async def test_the_documentation_of_the_rest_door_is_served() -> None:
    async with bridged(mcp_servers={}) as place:
        assert (await place.http.get("/docs")).status_code == 200
        paths = (await place.http.get("/openapi.json")).json()["paths"]
    assert "/mcp/tools" in paths
