"""How MCP servers are, for operators: which, and why (S4)."""

import json
from typing import Any

import anyio
import pytest

from tests.admin.asking import bearer, error, get, keys
from tests.admin.library import library
from tests.api.bridged import bridged, scripted_server
from tests.fakes import closed_port
from tests.mcp_client.running import PATIENCE
from tests.servers.web import Gate, serving

Json = dict[str, Any]

KEYS = keys(
    operator={"scopes": ["admin"]},
    user={"scopes": ["chat", "tools"]},
    part={"scopes": ["admin"], "tools": ["good:*"]},
)


async def test_every_server_is_listed_with_its_state_and_the_reason() -> None:
    with closed_port() as port:
        servers = {
            "good": scripted_server(),
            "crashing": scripted_server("crash"),
            "away": {"url": f"http://127.0.0.1:{port}/mcp"},
            "missing": {"command": "no-such-program"},
            "off": scripted_server(disabled=True),
        }
        async with bridged(mcp_servers=servers) as place:
            listed = (await get(place, "/mcp/servers")).json()["servers"]
    found = {server["name"]: server for server in listed}
    assert {name: server["state"] for name, server in found.items()} == {
        "good": "connected",
        "crashing": "failed",
        "away": "failed",
        "missing": "failed",
        "off": "disabled",
    }
    assert found["good"]["online"] and found["good"]["error"] is None
    assert found["good"]["tools"] > 10
    assert "no-such-program" in found["missing"]["error"]
    assert found["crashing"]["error"]
    assert (found["off"]["enabled"], found["off"]["online"]) == (False, False)
    assert "stderr" not in found["crashing"]


async def test_the_status_of_a_server_holds_its_last_words() -> None:
    async with bridged(mcp_servers={"crashing": scripted_server("crash")}) as place:
        status = (await get(place, "/mcp/servers/crashing/status")).json()
    assert status["stderr"] == ["Traceback: out of luck"]
    assert status["next_retry_seconds"] is not None


async def test_a_server_whose_name_holds_a_slash_has_a_status() -> None:
    async with bridged(mcp_servers={"team/files": scripted_server()}) as place:
        response = await get(place, "/mcp/servers/team/files/status")
    assert response.json()["name"] == "team/files"


async def test_no_secret_is_in_a_status() -> None:
    secret = "hunter2-hunter2"
    servers = {
        "talkative": scripted_server(env={"TOKEN": secret}, include=["say"]),
        "away": {"url": f"http://user:{secret}@127.0.0.1:1/mcp?token={secret}"},
        "missing": {"command": f"program-{secret}", "args": ["--token", secret]},
    }
    servers["talkative"]["env"] = {"TOKEN": secret}
    async with bridged(mcp_servers=servers) as place:
        said = await place.http.post("/mcp/tools/say/call", json={"text": f"token is {secret}"})
        assert said.status_code == 200
        with anyio.fail_after(PATIENCE):
            while not (await get(place, "/mcp/servers/talkative/status")).json()["stderr"]:
                pass  # it comes through a pipe of its own
        texts = [(await get(place, f"/mcp/servers/{name}/status")).text for name in servers]
        texts += [(await get(place, path)).text for path in ("/mcp/servers", "/mcp/health")]
    assert "token is" in texts[0]
    assert [text for text in texts if secret in text] == []


@pytest.mark.parametrize("action", ["status", "reconnect"])
async def test_an_unknown_server_is_404_with_the_names_that_are_close(action: str) -> None:
    method = "POST" if action == "reconnect" else "GET"
    async with bridged(mcp_servers={"files": scripted_server()}) as place:
        response = await place.http.request(method, f"/mcp/servers/fils/{action}")
    assert response.status_code == 404
    assert error(response)["code"] == "mcp_server_not_found"
    assert "did you mean files?" in error(response)["message"]


async def test_reconnecting_begins_an_attempt_at_once() -> None:
    gate = Gate(library())
    gate.status = 401  # a server that refuses us is asked again after a minute only
    async with serving(gate) as site:
        async with bridged(mcp_servers={"away": {"url": f"{site.url}/mcp"}}) as place:
            changed = anyio.Event()
            place.bridge.subscribe(lambda kind: changed.set())
            connection = place.bridge.connections["away"]
            assert connection.state == "needs_auth"
            gate.status = None
            response = await place.http.post("/mcp/servers/away/reconnect")
            assert response.status_code == 202
            assert response.json()["name"] == "away"
            with anyio.fail_after(PATIENCE):
                while connection.state != "connected":
                    await changed.wait()
                    changed = anyio.Event()


async def test_reconnecting_leaves_a_working_connection_alone() -> None:
    async with bridged() as place:
        pid = (await get(place, "/mcp/servers/tools/status")).json()["pid"]
        response = await place.http.post("/mcp/servers/tools/reconnect")
        assert (response.status_code, response.json()["state"]) == (202, "connected")
        assert (await get(place, "/mcp/servers/tools/status")).json()["pid"] == pid


async def test_a_disabled_server_is_not_connected_on_demand() -> None:
    async with bridged(mcp_servers={"off": scripted_server(disabled=True)}) as place:
        response = await place.http.post("/mcp/servers/off/reconnect")
    assert response.status_code == 409
    assert "disabled in the configuration" in error(response)["message"]


async def test_what_one_server_has_is_listed() -> None:
    servers = {
        "one": scripted_server("prompts", include=["echo"]),
        "two": scripted_server(include=["echo"]),
    }
    async with bridged(mcp_servers=servers) as place:
        tools = (await get(place, "/mcp/servers/two/tools")).json()["tools"]
        prompts = (await get(place, "/mcp/servers/one/prompts")).json()["prompts"]
        resources = (await get(place, "/mcp/servers/one/resources")).json()["resources"]
    assert [tool["name"] for tool in tools] == ["two__echo"]
    assert [prompt["name"] for prompt in prompts] == ["hello"]
    assert [resource["uri"] for resource in resources] == ["file:///a"]


async def test_health_names_the_servers_that_are_not_well() -> None:
    servers = {
        "good": scripted_server(),
        "off": scripted_server(disabled=True),
        "needed": scripted_server("crash", required=True),
        "nice": scripted_server("crash"),
    }
    async with bridged(mcp_servers=servers) as place:
        found = (await get(place, "/mcp/health")).json()
    assert found["status"] == "error"
    events = {event["name"]: event for event in found["unhealthy_events"]}
    assert {name: event["severity"] for name, event in events.items()} == {
        "needed": "error",
        "nice": "warning",
    }
    assert all(event["message"] for event in events.values())


async def test_health_is_ok_when_every_server_is_connected() -> None:
    async with bridged() as place:
        assert (await get(place, "/mcp/health")).json() == {"status": "ok", "unhealthy_events": []}


async def test_each_of_it_needs_a_key_with_the_scope_admin() -> None:
    routes = [
        ("GET", "/mcp/servers"),
        ("GET", "/mcp/servers/good/status"),
        ("POST", "/mcp/servers/good/reconnect"),
        ("GET", "/mcp/health"),
        ("GET", "/metrics"),
    ]
    async with bridged(mcp_servers={"good": scripted_server()}, security=KEYS) as place:
        for method, path in routes:
            statuses = [
                (await place.http.request(method, path, headers=headers)).status_code
                for headers in ({}, bearer("nobody"), bearer("user"), bearer("operator"))
            ]
            assert statuses[:3] == [401, 401, 403], path
            assert statuses[3] in (200, 202), path


async def test_a_key_for_some_servers_sees_the_status_of_these_only() -> None:
    servers = {"good": scripted_server(), "other": scripted_server()}
    async with bridged(mcp_servers=servers, security=KEYS) as place:
        listed = (await get(place, "/mcp/servers", "part")).json()["servers"]
        other = await get(place, "/mcp/servers/other/status", "part")
    assert [server["name"] for server in listed] == ["good"]
    assert other.status_code == 404


# Probes


async def test_healthz_is_open_and_asks_nobody() -> None:
    async with bridged(mcp_servers={"bad": scripted_server("crash")}, security=KEYS) as place:
        before = len(place.inference.requests)
        response = await get(place, "/healthz")
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert len(place.inference.requests) == before


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_probe_may_ask_for_the_head_alone(path: str) -> None:
    async with bridged() as place:
        asked, head = await get(place, path), await place.http.head(path)
    assert (head.status_code, head.headers["content-type"]) == (200, asked.headers["content-type"])


async def ready(place: Any, name: str | None = None) -> tuple[int, Json]:
    response = await get(place, "/readyz", name)
    return response.status_code, response.json()


async def test_ready_is_a_bridge_whose_inference_server_answers() -> None:
    servers = {"fine": scripted_server(required=True), "bad": scripted_server("crash")}
    async with bridged(mcp_servers=servers) as place:
        status, body = await ready(place)
    assert (status, body["status"]) == (200, "ready")
    assert [(c["kind"], c["ready"]) for c in body["checks"]] == [
        ("inference_server", True),
        ("mcp_server", True),
    ]


async def test_a_required_server_that_is_not_connected_makes_it_not_ready_and_says_why() -> None:
    servers = {"needed": {"command": "no-such-program", "required": True}}
    async with bridged(mcp_servers=servers) as place:
        status, body = await ready(place)
    assert (status, body["status"]) == (503, "not_ready")
    (check,) = [check for check in body["checks"] if not check["ready"]]
    assert (check["kind"], check["name"]) == ("mcp_server", "needed")
    assert check["reason"].startswith("failed: ")
    assert "no-such-program" in check["reason"]


async def test_an_inference_server_that_cannot_be_reached_makes_it_not_ready() -> None:
    with closed_port() as port:
        inference = {"base_url": f"http://127.0.0.1:{port}/v1", "name": "gone"}
        async with bridged(inference_server=inference, mcp_servers={}) as place:
            status, body = await ready(place)
    assert status == 503
    (check,) = body["checks"]
    assert (check["kind"], check["name"], check["ready"]) == ("inference_server", "gone", False)
    assert check["reason"]


async def test_one_inference_server_of_several_is_enough_and_the_other_is_named() -> None:
    with closed_port() as port:
        async with bridged(mcp_servers={}) as place:
            working = place.inference.base_url
            servers = [
                {"base_url": f"http://127.0.0.1:{port}/v1", "name": "gone"},
                {"base_url": working, "name": "here"},
            ]
            async with bridged(inference_server=servers, mcp_servers={}) as both:
                status, body = await ready(both)
    assert (status, body["status"]) == (200, "ready")
    assert {check["name"]: check["ready"] for check in body["checks"]} == {
        "gone": False,
        "here": True,
    }


async def test_probes_in_a_row_ask_the_inference_server_once() -> None:
    async with bridged(mcp_servers={}) as place:
        await ready(place)
        before = len(place.inference.requests)
        for _ in range(20):
            await ready(place)
        assert len(place.inference.requests) == before


async def test_why_it_is_not_ready_is_for_operators() -> None:
    servers = {"needed": {"command": "no-such-program", "required": True}}
    async with bridged(mcp_servers=servers, security=KEYS) as place:
        for name in (None, "user"):
            status, body = await ready(place, name)
            assert status == 503
            assert "no-such-program" not in json.dumps(body)
            assert [check["name"] for check in body["checks"] if not check["ready"]] == ["needed"]
        _, body = await ready(place, "operator")
    assert "no-such-program" in json.dumps(body)
