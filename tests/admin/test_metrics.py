"""`/metrics`, as a scraper reads it after the bridge has worked."""

import anyio
from prometheus_client.parser import text_string_to_metric_families

from tests.admin.asking import bearer, get, keys
from tests.api.bridged import Place, bridged, scripted_server
from tests.fakes import answer, hang, whole
from tests.mcp_client.running import PATIENCE


async def scraped(place: Place, name: str) -> dict[tuple[str, ...], float]:
    """The samples of that name, by the values of their labels in the order of their names."""
    response = await get(place, "/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.name == name
    }


async def test_tool_calls_of_every_door_are_counted() -> None:
    async with bridged(answer(calls=[("c1", "echo", "{}")]), answer("done")) as place:
        await place.chat("call it")
        await place.http.post("/mcp/tools/fail/call", json={})
        calls = await scraped(place, "mcp_bridge_tool_calls_total")
    assert calls == {("ok", "tools", "echo"): 1, ("error", "tools", "fail"): 1}


async def test_conversations_are_counted_with_their_rounds_and_tokens() -> None:
    async with bridged(answer(calls=[("c1", "echo", "{}")]), answer("done")) as place:
        await place.chat("call it")
        ended = await scraped(place, "mcp_bridge_conversations_total")
        rounds = await scraped(place, "mcp_bridge_conversation_rounds_sum")
        tokens = await scraped(place, "mcp_bridge_tokens_total")
    assert ended == {("anonymous", "stop", "model-a", ""): 1}
    assert rounds == {(): 2}
    assert tokens == {
        ("anonymous", "prompt", "model-a"): 20,
        ("anonymous", "completion", "model-a"): 10,
    }


async def test_conversations_that_failed_or_that_nobody_waited_for_are_counted() -> None:
    failure = whole({"error": {"message": "out of memory"}}, status=500)
    async with bridged(failure, hang()) as place:
        assert (await place.post()).status_code == 500
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(place.post)
            with anyio.fail_after(PATIENCE):
                await place.inference.wait_for_requests(2)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(PATIENCE):
            await place.inference.requests[1].gone.wait()
            ended: dict[tuple[str, ...], float] = {}
            while len(ended) < 2:  # the bridge may still be putting things away
                ended = await scraped(place, "mcp_bridge_conversations_total")
    assert ended == {
        ("anonymous", "error", "model-a", ""): 1,
        ("anonymous", "cancelled", "model-a", ""): 1,
    }


async def test_requests_are_counted_by_their_route() -> None:
    async with bridged(answer("hello")) as place:
        await place.http.post("/mcp/tools/echo/call", json={})
        await place.http.post("/mcp/tools/nothing/call", json={})
        await place.streamed("hi")
        requests = await scraped(place, "mcp_bridge_http_requests_total")
        streams = await scraped(place, "mcp_bridge_streams_open")
    assert requests["POST", "/mcp/tools/{name}/call", "200"] == 1
    assert requests["POST", "/mcp/tools/{name}/call", "404"] == 1
    assert requests["POST", "/v1/chat/completions", "200"] == 1
    assert streams == {(): 0}


async def test_servers_are_shown_with_their_state() -> None:
    servers = {"good": scripted_server(), "bad": scripted_server("crash")}
    async with bridged(mcp_servers=servers) as place:
        states = await scraped(place, "mcp_bridge_mcp_server_state")
        connected = await scraped(place, "mcp_bridge_mcp_server_connected")
    assert states == {("good", "connected"): 1, ("bad", "failed"): 1}
    assert connected == {("good",): 1, ("bad",): 0}


async def test_metrics_can_be_switched_off() -> None:
    async with bridged(mcp_servers={}, telemetry={"metrics": False}) as place:
        response = await get(place, "/metrics")
    assert response.status_code == 404
    assert "telemetry.metrics" in response.json()["error"]["message"]


async def test_with_authentication_metrics_need_an_operators_key() -> None:
    security = keys(operator={"scopes": ["admin"]}, user={"scopes": ["chat"]})
    async with bridged(mcp_servers={}, security=security) as place:
        assert (await get(place, "/metrics")).status_code == 401
        assert (await place.http.get("/metrics", headers=bearer("user"))).status_code == 403
        assert (await place.http.get("/metrics", headers=bearer("operator"))).status_code == 200
