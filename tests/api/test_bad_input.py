"""Bad input of every kind: a clear error or a good answer, and the next request works."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.api.bridged import Place, bridged, scripted_server
from tests.fakes import DONE, Reply, answer, chunk, hang, page, refuse, sse, whole
from tests.mcp_client.running import logged

Json = dict[str, Any]
HI = [{"role": "user", "content": "hi"}]


async def raw(place: Place, body: bytes, **headers: str) -> tuple[int, Json]:
    with anyio.fail_after(20):
        response = await place.http.post(
            "/v1/chat/completions",
            content=body,
            headers={"content-type": "application/json", **headers},
        )
    return response.status_code, response.json()


async def works(place: Place) -> None:
    """The next request is served as if nothing had been."""
    place.inference.script.insert(0, answer("still here"))
    completion = await place.chat("are you there?")
    assert completion["choices"][0]["message"]["content"] == "still here"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"not json", b"[]", b'"text"', b"null", b'{"model":' + b"[" * 100_000],
    ids=["empty", "half", "text", "list", "string", "null", "deep"],
)
async def test_a_body_that_is_no_json_object_is_400(body: bytes) -> None:
    async with bridged(mcp_servers={}) as place:
        status, value = await raw(place, body)
        assert status == 400
        assert value["error"]["type"] == "invalid_request_error"
        assert value["error"]["message"]
        await works(place)


async def test_bytes_that_are_no_utf_8_are_400() -> None:
    async with bridged(mcp_servers={}) as place:
        status, value = await raw(place, b'{"model": "\xff\xfe", "messages": []}')
        assert status == 400
        assert "JSON" in value["error"]["message"]
        await works(place)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [*HI, {"role": "wizard"}]}, "messages[1].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"n": "two"}, "n"),
        ({"mcp": 1}, "mcp"),
        ({"mcp": {"wizard": 1}}, "mcp.wizard"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_wrong_field_is_400_and_named(fields: Json, param: str) -> None:
    async with bridged(mcp_servers={}) as place:
        body = {"model": "model-a", "messages": HI, **fields}
        status, value = await raw(place, json.dumps(body).encode())
        assert status == 400
        assert value["error"]["type"] == "invalid_request_error"
        assert value["error"]["param"] == param
        assert place.inference.requests == []
        await works(place)


async def test_a_body_that_is_too_large_is_413_and_read_no_further() -> None:
    async with bridged(mcp_servers={}, limits={"max_request_bytes": 1000}) as place:
        status, value = await raw(place, b" " * 5000)
        assert status == 413
        assert "max_request_bytes" in value["error"]["message"]

        async def endless() -> Any:
            yield b'{"model": "'
            for _ in range(10):
                yield b"x" * 500

        response = await place.http.post("/v1/chat/completions", content=endless())
        assert response.status_code == 413
        await works(place)


async def test_a_hundred_megabytes_are_refused_by_default() -> None:
    async with bridged(mcp_servers={}) as place:
        status, _ = await raw(place, b"x" * 100_000_000)
        assert status == 413
        await works(place)


async def test_a_compressed_body_is_415() -> None:
    async with bridged(mcp_servers={}) as place:
        status, value = await raw(place, b"\x1f\x8b", **{"content-encoding": "gzip"})
        assert status == 415
        assert value["error"]["code"] == "unsupported_encoding"
        await works(place)


async def test_ten_thousand_messages_and_two_thousand_tools_pass() -> None:
    messages = [{"role": "user", "content": f"m{n}"} for n in range(10_000)]
    tools = [{"type": "function", "function": {"name": f"t{n}"}} for n in range(2_000)]
    async with bridged(answer("ok")) as place:
        completion = await place.chat(messages, tools=tools)
        sent = place.inference.requests[0].json
    assert completion["choices"][0]["message"]["content"] == "ok"
    assert len(sent["messages"]) == 10_000
    assert len(sent["tools"]) > 2_000


async def test_deep_json_does_no_harm() -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    async with bridged(answer("ok"), mcp_servers={}) as place:
        await place.chat("hi", x_deep=deep)
        assert place.inference.requests[0].json["x_deep"] == deep


async def test_half_characters_become_whole_ones_and_nothing_is_lost() -> None:
    text = b'{"model": "model-a", "messages": [{"role": "user", "content": "a\\ud800b"}]}'
    async with bridged(answer("ok"), mcp_servers={}) as place:
        status, _ = await raw(place, text)
        assert status == 200
        assert place.inference.requests[0].json["messages"][0]["content"] == "a\ufffdb"


@pytest.mark.parametrize("key", ["Bearer sch\u00f6n", "Bearer", "Basic abc", "Bearer wrong"])
async def test_a_key_that_is_none_is_401_in_openais_shape(key: str) -> None:
    security = {"auth": {"enabled": True, "api_keys": [{"key": "right-key"}]}}
    async with bridged(answer("ok"), security=security, mcp_servers={}) as place:
        response = await place.http.post(
            "/v1/chat/completions",
            json=place.body("hi"),
            headers=[(b"authorization", key.encode("latin-1"))],
        )
        assert response.status_code == 401
        error = response.json()["error"]
        assert error["code"] == "invalid_api_key"
        assert set(error) == {"message", "type", "param", "code"}
        good = await place.post("hi", headers={"authorization": "Bearer right-key"})
        assert good.status_code == 200
        assert (await place.http.get("/healthz")).status_code == 200


async def test_a_model_that_no_server_has_is_404() -> None:
    async with bridged(mcp_servers={}) as place:
        response = await place.post("hi", model="model-z")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
        assert response.json()["error"]["param"] == "model"
        assert place.inference.requests == []
        await works(place)


HALF = chunk({"role": "assistant", "content": "half"})
FAULTS: dict[str, Reply] = {
    "refusing": refuse(),
    "html": page(),
    "html with 200": page(status=200),
    "401": whole({"error": {"message": "bad key"}}, status=401),
    "429": whole({"error": {"message": "slow down"}}, status=429),
    "500": whole({"error": {"message": "oops"}}, status=500),
    "500 without a body": Reply(500),
    "empty 200": Reply(200, {"content-type": "application/json"}),
    "empty stream": sse(),
    "only [DONE]": sse(DONE),
    "only comments": sse(b": hello\n\n"),
    "half a stream": sse(HALF, end="cut"),
    "garbage in the stream": sse(b"data: {nope\n\n"),
    "null": whole(None),
    "no choices": whole({"object": "chat.completion", "choices": []}),
    "error with 200": whole({"error": {"message": "no memory"}}),
    "error in the stream": sse({"error": {"message": "no memory"}}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_the_inference_server_does_the_client_gets_an_error(
    fault: str, stream: bool
) -> None:
    async with bridged(FAULTS[fault], mcp_servers={}) as place:
        response = await place.post("hi", stream=stream)
        if response.status_code == 200:
            assert stream, response.text
            events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
            assert json.loads(events[-1])["error"]["message"]
            assert "[DONE]" not in response.text
        else:
            error = response.json()["error"]
            assert response.status_code >= 400
            assert error["message"] and error["type"]
            assert "<html" not in error["message"]
        await works(place)


async def test_a_hanging_inference_server_is_given_up_after_its_timeout() -> None:
    async with bridged(hang(), mcp_servers={}, inference={"first_byte_timeout": 0.2}) as place:
        response = await place.post("hi")
        assert response.status_code == 504
        assert "first_byte_timeout" in response.json()["error"]["message"]
        await works(place)


async def test_a_stream_that_falls_silent_ends_with_an_error() -> None:
    silent = sse(HALF, end="hang")
    async with bridged(silent, mcp_servers={}, inference={"idle_timeout": 0.2}) as place:
        read = await place.streamed()
        assert read.text == "half"
        assert read.error is not None
        assert "idle_timeout" in read.error["message"]
        await works(place)


@pytest.mark.parametrize(
    "stream",
    [
        sse(HALF, chunk({}, finish_reason="stop")),
        sse(HALF, DONE),
        sse(b"data:" + json.dumps(HALF).encode() + b"\r\n\r\ndata: [DONE]\r\n\r\n"),
        sse(
            b": x\n\nid: 1\nevent: y\nretry: 5\ndata: " + json.dumps(HALF).encode() + b"\n\n", DONE
        ),
    ],
    ids=["no [DONE]", "no finish reason", "CRLF and no space", "other fields"],
)
async def test_streams_of_other_makes_are_understood(stream: Reply) -> None:
    async with bridged(stream, mcp_servers={}) as place:
        read = await place.streamed()
    assert read.text == "half"
    assert read.finish_reason == "stop"
    assert read.done


async def test_a_huge_chunk_and_a_cut_character_arrive_whole() -> None:
    text = "ü" * 2_500_000
    data = b"data: " + json.dumps(chunk({"content": text}), ensure_ascii=False).encode() + b"\n\n"
    middle = data.index("ü".encode()) + 1
    async with bridged(sse(data[:middle], data[middle:], DONE), mcp_servers={}) as place:
        read = await place.streamed()
    assert read.text == text


# What MCP servers do


def give(result: Any) -> tuple[str, str, str]:
    return ("c1", "give", json.dumps({"result": result}))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("c1", "die", "{}"), "outcome is unknown"),
        (("c1", "answer_and_die", "{}"), "last words"),
        (("c1", "not_an_object", "{}"), "no usable answer"),
        (("c1", "broken_json", "{}"), "no usable answer"),
        (("c1", "error_as_text", "{}"), "it failed"),
        (("c1", "refuse", "{}"), "no"),
        (("c1", "fail", "{}"), "it went wrong"),
        (("c1", "wrong_id", "{}"), "yours"),
        (("c1", "twice", "{}"), "first"),
        (give({"content": []}), "no content"),
        (give({}), "no content"),
        (give({"structuredContent": {"only": "this"}}), "only"),
        (give({"content": "just text"}), "just text"),
        (give({"content": [{"type": "hologram", "data": "AAAA"}]}), "hologram"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_whatever_a_tool_does_the_model_reads_it(
    call: tuple[str, str, str], expected: str, stream: bool
) -> None:
    async with bridged(answer(calls=[call]), answer("ok")) as place:
        said = await place.said("hi", stream=stream)
        result = place.inference.requests[1].json["messages"][-1]
    assert said["content"] == "ok"
    assert result["tool_call_id"] == "c1"
    assert expected in result["content"]


async def test_a_server_that_died_before_the_call_is_started_again() -> None:
    script = [answer(calls=[("c1", "echo", '{"text": "back"}')]), answer("ok")]
    async with bridged(answer(calls=[("c0", "die", "{}")]), answer("ok"), *script) as place:
        await place.chat("kill it")
        await place.chat("use it")
        result = place.inference.requests[3].json["messages"][-1]["content"]
    assert result == "back"


async def test_a_huge_result_arrives() -> None:
    script = [answer(calls=[("c1", "big", '{"size": 10000000}')]), answer("ok")]
    async with bridged(*script, tools={"max_result_chars": 0}) as place:
        await place.chat()
        result = place.inference.requests[1].json["messages"][-1]["content"]
    assert len(result) == 10_000_000


@pytest.mark.parametrize(
    "behaviour", ["crash", "hang-initialize", "broken-list"], ids=lambda name: name
)
async def test_a_broken_server_delays_nobody(behaviour: str) -> None:
    servers = {
        "broken": scripted_server(behaviour, startup_timeout=0.5),
        "missing": {"command": "no-such-command-anywhere"},
        "tools": scripted_server(),
    }
    script = [answer(calls=[("c1", "echo", '{"text": "x"}')]), answer("ok")]
    async with bridged(*script, mcp_servers=servers) as place:
        completion = await place.chat()
        states = {name: str(c.state) for name, c in place.bridge.connections.items()}
    assert completion["choices"][0]["message"]["content"] == "ok"
    assert states == {"broken": "failed", "missing": "failed", "tools": "connected"}


# Clients that leave


async def test_a_client_that_leaves_while_it_sends_does_no_harm() -> None:
    async with bridged(mcp_servers={}) as place:
        port = int(place.url.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as socket:
            head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"
            await socket.send(head.encode())
        await works(place)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_client_that_leaves_in_the_second_round_stops_it(
    stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    script: list[Any] = [answer(calls=[("c1", "echo", '{"text": "x"}')]), hang()]
    async with bridged(*script, mcp_servers=servers) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: place.post("hi", stream=stream))
            await logged(log, lambda e: e.get("method") == "tools/call")
            with anyio.fail_after(10):
                await place.inference.wait_for_requests(2)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await place.inference.requests[1].gone.wait()
        await works(place)
