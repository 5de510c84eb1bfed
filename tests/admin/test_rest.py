"""REST for tools, prompts and resources, as the original MCP Bridge has it."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio

from mcp_bridge.telemetry.metrics import Metrics
from tests.admin.asking import bearer, error, get, keys, with_library
from tests.admin.library import Seen
from tests.api.bridged import bridged, scripted_server
from tests.mcp_client.running import PATIENCE

Json = dict[str, Any]
OPERATING = Path(__file__).parents[2] / "docs/operating.md"


# Tools


async def test_tools_are_listed_as_their_servers_describe_them() -> None:
    async with with_library() as place:
        tools = {tool["name"]: tool for tool in (await get(place, "/mcp/tools")).json()["tools"]}
    assert set(tools) == {"add", "wrapped", "hang", "echo", "fail", "refuse"}
    assert tools["add"]["description"] == "Add two numbers."
    assert tools["add"]["inputSchema"]["required"] == ["a", "b"]
    assert tools["echo"]["x-vendor"] == {"kept": True}
    assert tools["echo"]["_meta"] == {"mcp_bridge/server": "tools"}


async def test_a_tool_with_another_name_here_is_listed_with_its_own() -> None:
    servers = {name: scripted_server(include=["echo"]) for name in ("one", "two")}
    async with bridged(mcp_servers=servers) as place:
        tools = (await get(place, "/mcp/tools")).json()["tools"]
        named = [(tool["name"], tool["_meta"]) for tool in tools]
        result = await place.http.post("/mcp/tools/two__echo/call", json={"text": "hi"})
    assert named == [
        ("echo", {"mcp_bridge/server": "one"}),
        ("two__echo", {"mcp_bridge/server": "two", "mcp_bridge/name": "echo"}),
    ]
    assert result.json()["content"][0]["text"] == "hi"


async def test_a_tool_is_called_with_its_arguments_as_the_body_or_in_it() -> None:
    arguments = {"a": 1, "b": 2}
    async with with_library() as place:
        for body in (arguments, {"arguments": arguments}):
            response = await place.http.post("/mcp/tools/add/call", json=body)
            assert response.status_code == 200
            result = response.json()
            assert result["content"] == [{"type": "text", "text": "3"}]
            assert result["structuredContent"] == {"result": 3}


async def test_a_tool_whose_argument_is_called_arguments_gets_it() -> None:
    async with with_library() as place:
        for inner in ({"x": 1}, {"arguments": 1}):
            body = {"arguments": inner}
            response = await place.http.post("/mcp/tools/wrapped/call", json=body)
            assert response.json()["content"][0]["text"] == str(sorted(inner))


async def test_a_tool_without_arguments_needs_no_body() -> None:
    async with bridged() as place:
        for body in (b"", b"  ", b"{}", b'{"arguments": null}'):
            response = await place.http.post("/mcp/tools/echo/call", content=body)
            assert response.status_code == 200, body


async def test_what_a_tool_does_wrong_is_its_result_and_what_a_server_refuses_is_an_error() -> None:
    async with with_library() as place:
        failed = await place.http.post("/mcp/tools/fail/call", json={})
        refused = await place.http.post("/mcp/tools/refuse/call", json={})
    assert failed.status_code == 200
    assert failed.json()["isError"] is True
    assert refused.status_code == 502
    assert error(refused)["code"] == "source_refused"


LIMIT = 200_000
BAD_BODIES: list[tuple[bytes, int, str | None]] = [
    (b"{", 400, "invalid_json"),
    (b"[1]", 400, "invalid_json"),
    (b'"text"', 400, "invalid_json"),
    (b"[" * 100_000, 400, "invalid_json"),
    (b'\xff{"a": 1}', 400, "invalid_json"),
    (b'{"arguments": [1]}', 400, None),
    (b'{"a": 1}', 400, "invalid_arguments"),
    (b'{"a": "one", "b": 2}', 400, "invalid_arguments"),
    (b'{"a": 1, "b": 2, "c": "%s"}' % (b"x" * LIMIT), 413, "request_too_large"),
]


async def test_a_body_that_does_not_fit_is_refused_and_the_tool_not_called() -> None:
    async with with_library(limits={"max_request_bytes": LIMIT}) as place:
        for body, status, code in BAD_BODIES:
            response = await place.http.post("/mcp/tools/add/call", content=body)
            assert response.status_code == status, body[:40]
            assert error(response)["code"] == code
        calls = (await get(place, "/metrics")).text
    assert 'tool="add"' not in calls


async def test_an_unknown_tool_is_404_with_the_names_that_are_close() -> None:
    async with with_library() as place:
        response = await place.http.post("/mcp/tools/ecko/call", json={})
    assert response.status_code == 404
    assert error(response)["code"] == "tool_not_found"
    assert "did you mean echo?" in error(response)["message"]


async def test_leaving_stops_the_tool() -> None:
    seen = Seen()
    async with with_library(seen) as place, anyio.create_task_group() as tasks:
        with anyio.fail_after(PATIENCE):

            async def call() -> None:
                await place.http.post("/mcp/tools/hang/call", json={})

            tasks.start_soon(call)
            await seen.began.wait()
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await seen.cancelled.wait()
    assert seen.cancelled.is_set()


# Prompts


async def test_prompts_are_listed_by_server() -> None:
    async with with_library() as place:
        found = (await get(place, "/mcp/prompts")).json()
    assert [prompt["name"] for prompt in found["library"]["prompts"]] == ["greet"]
    assert found["tools"]["prompts"] == [{"name": "hello", "x-vendor": 1}]


async def test_a_prompt_is_filled_in() -> None:
    async with with_library() as place:
        for name in ("greet", "library__greet"):
            response = await place.http.post(f"/mcp/prompts/{name}", json={"who": "Ann"})
            assert response.status_code == 200
            assert response.json()["messages"][0]["content"]["text"] == "Greet Ann warmly"


async def test_of_prompts_with_the_same_name_the_server_is_chosen() -> None:
    servers = {name: scripted_server("prompts", include=["echo"]) for name in ("one", "two")}
    async with bridged(mcp_servers=servers) as place:
        path = "/mcp/prompts/hello"
        assert (await place.http.post(path)).json()["x-name"] == "hello"
        assert (await place.http.post(path, params={"server": "two"})).status_code == 200
        wrong = await place.http.post(path, params={"server": "three"})
    assert wrong.status_code == 404
    assert error(wrong)["code"] == "mcp_server_not_found"


async def test_arguments_that_a_prompt_cannot_take_are_named() -> None:
    bad: list[tuple[Json, str]] = [
        ({}, "who"),
        ({"who": 5}, "who"),
        ({"who": "Ann", "tone": None}, "tone"),
    ]
    async with with_library() as place:
        for body, param in bad:
            response = await place.http.post("/mcp/prompts/greet", json=body)
            assert response.status_code == 400
            assert error(response)["param"] == param


async def test_an_unknown_prompt_is_404() -> None:
    async with with_library() as place:
        response = await place.http.post("/mcp/prompts/gret", json={})
    assert response.status_code == 404
    assert "did you mean greet?" in error(response)["message"]


# Resources


async def test_resources_and_templates_are_listed_by_server() -> None:
    async with with_library() as place:
        found = (await get(place, "/mcp/resources")).json()
        templates = (await get(place, "/mcp/resources/templates")).json()
    assert [r["uri"] for r in found["library"]["resources"]] == ["books://list"]
    assert [r["uri"] for r in found["tools"]["resources"]] == ["file:///a"]
    (template,) = templates["library"]["resourceTemplates"]
    assert template["uriTemplate"] == "books://shelf/{number}"


async def test_a_resource_is_read_by_its_uri() -> None:
    async with with_library() as place:
        for uri, text in {"books://list": "all books", "books://shelf/7": "shelf 7"}.items():
            posted = await place.http.post("/mcp/resources/read", json={"uri": uri})
            got = await get(place, f"/mcp/resources/{quote(uri, safe='')}")
            assert posted.status_code == 200
            assert posted.json()["contents"][0]["text"] == text
            assert got.json() == posted.json()
        as_it_is = await get(place, "/mcp/resources/books://list")
    assert as_it_is.json()["contents"][0]["text"] == "all books"


async def test_a_resource_that_no_server_has_is_404() -> None:
    async with with_library() as place:
        response = await place.http.post("/mcp/resources/read", json={"uri": "books://none"})
        unlisted = await get(place, "/mcp/resources/nothing")
    for answer in (response, unlisted):
        assert answer.status_code == 404
        assert error(answer)["code"] == "resource_not_found"


async def test_a_read_without_a_uri_is_400() -> None:
    async with bridged(mcp_servers={}) as place:
        for body in ({}, {"uri": 5}, {"uri": ""}, {"uri": "a:b", "server": 1}):
            response = await place.http.post("/mcp/resources/read", json=body)
            assert response.status_code == 400, body


# Who sees what


KEYS = keys(
    all={},
    reader={"tools": ["library:add"], "scopes": ["tools"]},
    nobody={"tools": []},
    chatter={"scopes": ["chat"]},
    bound={"toolset": "books"},
)
TOOLSETS = {"books": {"include": ["library:*"], "prefix": "always"}}


SEEN = {
    "all": {"add", "wrapped", "hang", "echo", "fail", "refuse"},
    "reader": {"add"},
    "nobody": set(),
    "bound": {"library__add", "library__wrapped", "library__hang"},
}


async def test_what_is_not_listed_for_a_key_cannot_be_used_with_it() -> None:
    async with with_library(security=KEYS, toolsets=TOOLSETS) as place:
        for name, tools in SEEN.items():
            listed = (await get(place, "/mcp/tools", name)).json()["tools"]
            assert {tool["name"] for tool in listed} == tools
            for hidden in set[str]().union(*SEEN.values()) - tools:
                path = f"/mcp/tools/{hidden}/call"
                response = await place.http.post(path, json={}, headers=bearer(name))
                assert response.status_code == 404, (name, hidden)
                hints = error(response)["message"].partition("did you mean")[2]
                assert set(hints.strip(" ?").split(", ")) - {""} <= tools


async def test_prompts_and_resources_go_with_their_server() -> None:
    async with with_library(security=KEYS, toolsets=TOOLSETS) as place:
        for path in ("/mcp/prompts", "/mcp/resources", "/mcp/resources/templates"):
            assert set((await get(place, path, "all")).json()) == {"library", "tools"}
            assert set((await get(place, path, "bound")).json()) == {"library"}
            assert (await get(place, path, "nobody")).json() == {}
        headers = bearer("bound")
        prompt = await place.http.post("/mcp/prompts/hello", json={}, headers=headers)
        chosen = await place.http.post("/mcp/prompts/hello?server=tools", headers=headers)
        resource = await place.http.post(
            "/mcp/resources/read", json={"uri": "file:///a"}, headers=headers
        )
    assert [r.status_code for r in (prompt, chosen, resource)] == [404, 404, 404]


ADD, LIBRARY = {"add"}, {"library__add", "library__wrapped", "library__hang"}
CHOSEN = [
    ("all", ["library:a*"], ADD),
    ("all", ["books, !library:hang"], SEEN["all"] & {"add", "wrapped"}),
    ("all", ["library:add", "tools:echo"], {"add", "echo"}),
    ("all", ["books"], LIBRARY),
    ("all", ["none"], set()),
    ("all", [","], SEEN["all"]),
    ("reader", ["tools:*"], set()),
    ("reader", ["library:*"], ADD),
    ("bound", ["*:*"], LIBRARY),
    ("bound", ["books"], LIBRARY),
]
"""A key, the values of the header `X-MCP-Toolset`, and the tools that are seen then."""


async def test_the_header_that_chat_has_chooses_here_too() -> None:
    async with with_library(security=KEYS, toolsets=TOOLSETS) as place:
        for name, values, tools in CHOSEN:
            sent = [*bearer(name).items(), *(("x-mcp-toolset", value) for value in values)]
            listed = (await place.http.get("/mcp/tools", headers=sent)).json()["tools"]
            assert {tool["name"] for tool in listed} == tools, (name, values)
            for tool in (SEEN["all"] | LIBRARY) - tools:
                called = await place.http.post(f"/mcp/tools/{tool}/call", json={}, headers=sent)
                assert called.status_code == 404, (name, values, tool)


async def test_the_header_chooses_prompts_and_resources_by_their_server() -> None:
    async with with_library() as place:
        headers = {"x-mcp-toolset": "library:*"}
        for path in ("/mcp/prompts", "/mcp/resources", "/mcp/resources/templates"):
            assert set((await place.http.get(path, headers=headers)).json()) == {"library"}
        prompt = await place.http.post("/mcp/prompts/hello", json={}, headers=headers)
        tools = await place.http.get("/mcp/servers/tools/tools", headers=headers)
        servers = await place.http.get("/mcp/servers", headers=headers)
    assert (prompt.status_code, tools.status_code) == (404, 404)
    assert [server["name"] for server in servers.json()["servers"]] == ["library"]


async def test_what_the_header_cannot_mean_is_refused_as_in_chat() -> None:
    toolsets = {**TOOLSETS, "other": {"include": ["*:*"]}}
    body = {"model": "model-a", "messages": [{"role": "user", "content": "?"}]}
    many = ",".join(["a:b"] * 300)
    async with with_library(security=KEYS, toolsets=toolsets) as place:
        for name, value in [
            ("all", "nope"),
            ("all", "books, x"),
            ("bound", "other"),
            ("all", many),
        ]:
            headers = {**bearer(name), "x-mcp-toolset": value}
            here = await place.http.get("/mcp/tools", headers=headers)
            chat = await place.http.post("/v1/chat/completions", json=body, headers=headers)
            assert here.status_code == (400 if value == many else 404)
            assert (here.status_code, error(here)) == (chat.status_code, error(chat))


async def test_each_of_it_needs_a_key_with_the_scope_tools() -> None:
    routes = [
        ("GET", "/mcp/tools"),
        ("POST", "/mcp/tools/add/call"),
        ("GET", "/mcp/prompts"),
        ("POST", "/mcp/prompts/greet"),
        ("GET", "/mcp/resources"),
        ("GET", "/mcp/resources/templates"),
        ("POST", "/mcp/resources/read"),
        ("GET", "/mcp/resources/books%3A%2F%2Flist"),
        ("GET", "/mcp/servers/library/tools"),
        ("GET", "/mcp/servers/library/prompts"),
        ("GET", "/mcp/servers/library/resources"),
    ]
    async with bridged(mcp_servers={}, security=KEYS, toolsets=TOOLSETS) as place:
        for method, path in routes:
            without = await place.http.request(method, path)
            wrong = await place.http.request(method, path, headers={"x-api-key": "no"})
            chatter = await place.http.request(method, path, headers=bearer("chatter"))
            assert (without.status_code, error(without)["code"]) == (401, "invalid_api_key")
            assert (wrong.status_code, error(wrong)["code"]) == (401, "invalid_api_key")
            assert (chatter.status_code, error(chatter)["code"]) == (403, "insufficient_scope")


# Browsers


ORIGINS = {
    None: 200,
    "http://localhost:3000": 200,
    "http://127.0.0.1:8000": 200,
    "http://[::1]:8000": 200,
    "https://trusted.example": 200,
    "https://evil.example": 403,
    "http://127.0.0.1.evil.example": 403,
    "http://[broken": 403,
    "null": 403,
}


async def test_without_keys_only_known_pages_may_call_tools() -> None:
    """A page can send a plain POST anywhere: the answer is kept from it, the call is not."""
    async with bridged(network={"allowed_origins": ["https://trusted.example"]}) as place:
        for origin, status in ORIGINS.items():
            headers = {"origin": origin, "content-type": "text/plain"} if origin else {}
            path = "/mcp/tools/echo/call"
            response = await place.http.post(path, content=b"{}", headers=headers)
            assert response.status_code == status, origin
            if status == 403:
                assert "network.allowed_origins" in error(response)["message"]


async def test_with_a_key_any_page_that_has_it_may_call_tools() -> None:
    async with bridged(security=keys(ann={})) as place:
        headers = {**bearer("ann"), "origin": "https://app.example"}
        response = await place.http.post("/mcp/tools/echo/call", json={}, headers=headers)
    assert response.status_code == 200


# The documents


async def test_every_route_is_documented_with_its_answer() -> None:
    async with bridged(mcp_servers={}) as place:
        document = (await get(place, "/openapi.json")).json()
        assert (await get(place, "/docs")).status_code == 200
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    told = set(re.findall(r"`((?:GET|POST) /[^`]+)`", OPERATING.read_text()))
    assert set(operations) == told
    for name, operation in operations.items():
        if "/mcp/" in name:
            assert operation["summary"] and operation["security"], name
            good = [answer for code, answer in operation["responses"].items() if code < "300"]
            assert "schema" in good[0]["content"]["application/json"], name
            assert "422" not in operation["responses"], f"{name}: what does not fit is 400"


def test_every_metric_is_documented() -> None:
    metrics = Metrics()
    metrics.request("GET", "/", 200, 0)
    page = metrics.page({}).decode()
    served = set(re.findall(r"^# TYPE (mcp_bridge\S+)", page, re.M))
    told = set(re.findall(r"^\| `(mcp_bridge\S+)` \|", OPERATING.read_text(), re.M))
    assert {name for name in served if not name.endswith("_created")} == told
