"""Everything else under `/v1`, and the other endpoints of OpenAI clients."""

import json
from typing import Any

import anyio
import pytest

from tests.api.bridged import bridged
from tests.fakes import (
    DONE,
    ScriptedInference,
    answer,
    chunk,
    closed_port,
    sse,
    whole,
    with_headers,
)

Json = dict[str, Any]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
async def test_other_paths_are_forwarded_untouched(method: str) -> None:
    inference = {"api_key": "upstream-key", "headers": {"X-Org": "us"}}
    security = {"auth": {"enabled": True, "api_keys": [{"key": "bridge-key"}]}}
    async with bridged(inference=inference, security=security, mcp_servers={}) as place:
        response = await place.http.request(
            method,
            "/v1/files/abc%2Fd?limit=2&a=%C3%BC",
            content=b"\x00\x01 any bytes",
            headers={
                "authorization": "Bearer bridge-key",
                "x-api-key": "bridge-key",
                "cookie": "session=1",
                "content-type": "application/octet-stream",
                "x-custom": "kept",
            },
        )
        [sent] = place.inference.others
    assert response.status_code == 200
    assert sent.method == method
    assert sent.path == "/v1/files/abc%2Fd?limit=2&a=%C3%BC"
    assert sent.body == b"\x00\x01 any bytes"
    assert sent.headers["x-custom"] == "kept"
    assert sent.headers["authorization"] == "Bearer upstream-key"
    assert sent.headers["x-org"] == "us"
    assert "bridge-key" not in json.dumps(sent.headers)
    assert "cookie" not in sent.headers


async def test_a_forwarded_answer_is_passed_on_as_it_is() -> None:
    async with bridged(mcp_servers={}) as place:
        reply = with_headers(whole({"error": {"message": "no"}}, status=418), x_strange="yes")
        place.inference.routes["POST", "/v1/embeddings"] = reply
        response = await place.http.post("/v1/embeddings", json={"model": "e", "input": "a"})
    assert response.status_code == 418
    assert response.headers["x-strange"] == "yes"
    assert response.json() == {"error": {"message": "no"}}


async def test_a_forwarded_answer_is_streamed() -> None:
    held = anyio.Event()
    async with bridged(mcp_servers={}) as place:
        place.inference.routes["POST", "/v1/responses"] = sse(chunk({"content": "a"}), held, DONE)
        with anyio.fail_after(10):
            async with place.http.stream("POST", "/v1/responses", json={"stream": True}) as got:
                pieces = got.aiter_raw()
                assert b'"a"' in await anext(pieces)
                held.set()
                assert b"[DONE]" in b"".join([piece async for piece in pieces])


async def test_leaving_a_forwarded_request_stops_it() -> None:
    async with bridged(mcp_servers={}) as place:
        place.inference.routes["POST", "/v1/responses"] = sse(chunk({"content": "a"}), end="hang")
        with anyio.fail_after(10):
            async with place.http.stream("POST", "/v1/responses", json={}) as got:
                await anext(got.aiter_raw())
            await place.inference.disconnected.wait()


async def test_a_forwarded_request_to_a_server_that_is_down_is_502() -> None:
    with closed_port() as port:
        inference = {"base_url": f"http://127.0.0.1:{port}/v1"}
        async with bridged(inference=inference, mcp_servers={}) as place:
            response = await place.http.post("/v1/embeddings", json={"model": "e"})
    assert response.status_code == 502
    assert response.json()["error"]["message"]


async def test_forwarded_requests_go_to_the_server_that_has_the_model() -> None:
    async with ScriptedInference(models=["model-b"]) as second:
        async with ScriptedInference(models=["model-a"]) as first:
            servers = [
                {"base_url": first.base_url, "models": ["model-a"]},
                {"base_url": second.base_url, "models": ["model-b"]},
            ]
            async with bridged(inference_server=servers, mcp_servers={}) as place:
                await place.http.post("/v1/embeddings", json={"model": "model-b"})
                await place.http.post("/v1/embeddings", json={"model": "model-a"})
            assert [len(s.others) for s in (first, second)] == [1, 1]
            assert json.loads(second.others[0].body) == {"model": "model-b"}


@pytest.mark.parametrize("path", ["/v1//models", "//v1/models", "/v1/models/"])
async def test_odd_paths_are_understood(path: str) -> None:
    async with bridged(mcp_servers={}) as place:
        response = await place.http.get(place.url + path)
    assert response.status_code == 200
    assert response.json()["data"][0]["id"] == "model-a"


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/t/none/v1/chat/completions/"])
async def test_a_slash_behind_our_endpoint_leads_to_it(path: str) -> None:
    async with bridged(answer("ok")) as place:
        response = await place.http.post(path, json=place.body("hi"))
        assert [request.path for request in place.inference.requests] == ["/v1/chat/completions"]
    assert response.json()["choices"][0]["message"]["content"] == "ok"


async def test_a_slash_behind_a_forwarded_path_stays() -> None:
    async with bridged(mcp_servers={}) as place:
        await place.http.get("/v1/files/")
        assert place.inference.others[-1].path == "/v1/files/"


async def test_the_request_id_goes_in_and_out() -> None:
    async with bridged(then=answer("ok"), mcp_servers={}) as place:
        given = await place.post("hi", headers={"x-request-id": "mine-1"})
        minted = await place.post("hi")
        evil = await place.http.get("/healthz", headers={"x-request-id": "a b" * 200})
        sent = [request.headers["x-request-id"] for request in place.inference.requests]
    assert given.headers["x-request-id"] == "mine-1"
    assert sent[0] == "mine-1"
    assert minted.headers["x-request-id"] == sent[1]
    assert len(evil.headers["x-request-id"]) < 50


async def test_an_unknown_path_is_404_in_openais_shape() -> None:
    async with bridged(mcp_servers={}) as place:
        response = await place.http.get("/nowhere")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_legacy_completion_is_forwarded(stream: bool) -> None:
    body = {"model": "model-a", "prompt": ["a", "b"], "stream": stream, "logprobs": 2}
    async with bridged() as place:
        response = await place.http.post("/v1/completions", json=body)
        [sent] = [r for r in place.inference.others if r.path == "/v1/completions"]
    assert response.status_code == 200
    assert json.loads(sent.body) == body


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_legacy_completion_with_a_toolset_is_answered_through_tools(stream: bool) -> None:
    script = [answer(calls=[("c1", "echo", '{"text": "x"}')]), answer("It says x.")]
    toolsets = {"small": {"include": ["tools:echo"]}}
    body = {"model": "model-a@small", "prompt": "What does it say?", "stream": stream}
    async with bridged(*script, toolsets=toolsets) as place:
        response = await place.http.post("/v1/completions", json=body)
        first = place.inference.requests[0].json
    assert first["messages"] == [{"role": "user", "content": "What does it say?"}]
    assert [t["function"]["name"] for t in first["tools"]] == ["echo"]
    if stream:
        lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
        assert lines.pop() == "[DONE]"
        chunks = [json.loads(line) for line in lines]
    else:
        chunks = [response.json()]
    assert {c["object"] for c in chunks} == {"text_completion"}
    assert "".join(c["choices"][0]["text"] for c in chunks) == "It says x."
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("field", [{"suffix": "x"}, {"echo": True}, {"prompt": [1, 2]}])
async def test_a_legacy_completion_with_tools_refuses_what_it_cannot_do(field: Json) -> None:
    body = {"model": "model-a", "prompt": "a", "mcp": {"tools": ["echo"]}, **field}
    async with bridged() as place:
        response = await place.http.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(field))


async def test_a_toolset_may_have_any_name_in_a_forwarded_path() -> None:
    async with bridged(mcp_servers={}, toolsets={"v1": {}}) as place:
        await place.http.post("/t/v1/v1/files%2Fa/b", json={})
        [sent] = place.inference.others
    assert sent.path == "/v1/files%2Fa/b"
