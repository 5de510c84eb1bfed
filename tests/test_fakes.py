"""The scripted inference server does what a test asks of it."""

import anyio
import httpx2
import pytest

from tests.fakes import DONE, ScriptedInference, answer, chunk, hang, refuse, sse, whole

ASK = {"model": "model-a", "messages": [{"role": "user", "content": "hi"}]}


async def test_the_script_is_followed_and_the_requests_are_recorded() -> None:
    async with (
        ScriptedInference(answer("one"), whole({"error": {}}, status=429)) as server,
        httpx2.AsyncClient(base_url=server.base_url) as client,
    ):
        first = await client.post("/chat/completions", json=ASK)
        second = await client.post("/chat/completions", json=ASK)
        third = await client.post("/chat/completions", json=ASK)
        listed = await client.get("/models")
        echoed = await client.post("/embeddings?x=1", json={"input": "a"})
    assert first.json()["choices"][0]["message"]["content"] == "one"
    assert (second.status_code, third.status_code) == (429, 500)
    assert [request.json for request in server.requests] == [ASK] * 3
    assert listed.json()["data"][0]["id"] == "model-a"
    assert echoed.json()["path"] == "/v1/embeddings?x=1"


async def test_pieces_wait_for_their_event_and_leaving_is_noticed() -> None:
    gate = anyio.Event()
    script = sse(chunk({"content": "a"}), gate, chunk({"content": "b"}), DONE, end="hang")
    async with (
        ScriptedInference(script) as server,
        httpx2.AsyncClient(base_url=server.base_url) as client,
    ):
        with anyio.fail_after(5):
            async with client.stream("POST", "/chat/completions", json=ASK) as response:
                pieces = response.aiter_raw()
                assert b'"a"' in await anext(pieces)
                gate.set()
                assert b'"b"' in await anext(pieces)
            await server.disconnected.wait()
    assert server.requests[0].gone.is_set()


@pytest.mark.parametrize("end", ["cut", "refused", "hang"])
async def test_an_answer_can_break(end: str) -> None:
    replies = {"cut": sse(b"data: {", end="cut"), "refused": refuse(), "hang": hang()}
    async with (
        ScriptedInference(replies[end]) as server,
        httpx2.AsyncClient(base_url=server.base_url, timeout=0.2) as client,
    ):
        with pytest.raises(httpx2.TransportError):
            await client.post("/chat/completions", json=ASK)
