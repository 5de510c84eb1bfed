"""The wire contract of `/v1/chat/completions` (DESIGN section 3), through the front door."""

import json
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.api.bridged import bridged, scripted_server
from tests.fakes import (
    DONE,
    Reply,
    answer,
    chunk,
    closed_port,
    completion_of,
    event,
    page,
    sse,
    whole,
    with_headers,
)
from tests.mcp_client.running import PATIENCE, entries, logged
from tests.servers.raw import Asked, Pipe, raw

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def function(name: str, **more: Any) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}} | more}


def give(id: str, result: Json) -> tuple[str, str, str]:
    """A call of the scripted server's tool that answers whatever it is told to."""
    return (id, "give", json.dumps({"result": result}))


def say(id: str, text: str) -> tuple[str, str, str]:
    return (id, "echo", json.dumps({"text": text}))


# 1. Lossless


@BOTH
async def test_unknown_fields_reach_the_inference_server_and_nothing_internal_does(
    stream: bool,
) -> None:
    async with bridged(answer("hello")) as place:
        await place.said(
            "hi",
            stream=stream,
            top_k=7,
            chat_template_kwargs={"enable_thinking": False},
            mcp={"tools": ["tools:echo"]},
            messages_extra=None,
        )
        sent = place.inference.requests[0].json
    assert sent["top_k"] == 7
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert "mcp" not in sent
    assert sent["messages_extra"] is None


@BOTH
async def test_fields_that_the_engine_adds_reach_the_client(stream: bool) -> None:
    timings = {"prompt_ms": 1.5}

    def engine(request: Any) -> Any:
        if request.streamed:
            last = chunk({}, finish_reason="stop", timings=timings)
            return sse(chunk({"role": "assistant", "content": "a", "x_note": "n"}), last, DONE)
        body = completion_of(answer("a"))
        body["choices"][0]["message"]["x_note"] = "n"
        return whole({**body, "timings": timings})

    async with bridged(engine) as place:
        if stream:
            read = await place.streamed()
            assert read.deltas[0]["x_note"] == "n"
            assert any(c.get("timings") == timings for c in read.chunks)
        else:
            completion = await place.chat()
            assert completion["timings"] == timings
            assert completion["choices"][0]["message"]["x_note"] == "n"


async def test_numbers_beyond_64_bits_survive_in_both_directions() -> None:
    huge = 2**70 + 1
    async with bridged(lambda _: whole({**completion_of(answer("a")), "x_big": huge})) as place:
        completion = await place.chat("hi", x_seed=huge)
        assert place.inference.requests[0].json["x_seed"] == huge
    assert completion["x_big"] == huge


# 2. One message


async def test_three_rounds_are_one_message() -> None:
    script = [
        answer("Let me see.", calls=[say("c1", "one")]),
        answer("And more.", calls=[say("c2", "two")]),
        answer("It is done."),
    ]
    async with bridged(*script) as place:
        read = await place.streamed()
    assert read.text == "Let me see.\n\nAnd more.\n\nIt is done."
    assert read.finish_reason == "stop"
    assert read.calls == []
    assert read.done


async def test_the_client_gets_a_byte_before_the_first_tool_has_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    async with (
        bridged(answer(calls=[("c1", "hang", "{}")]), mcp_servers=servers) as place,
        place.http.stream(
            "POST", "/v1/chat/completions", json=place.body("hi", stream=True)
        ) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        with anyio.fail_after(10):
            first = await anext(response.aiter_raw())
        assert first.startswith((b":", b"data:"))


# 3. The client's tools live


@BOTH
async def test_the_clients_own_call_is_handed_back(stream: bool) -> None:
    async with bridged(answer(calls=[("c1", "lookup", '{"q": 1}')])) as place:
        said = await place.said("hi", stream=stream, tools=[function("lookup")])
        offered = [t["function"]["name"] for t in place.inference.requests[0].json["tools"]]
    assert offered[0] == "lookup"
    assert "echo" in offered
    assert said["finish_reason"] == "tool_calls"
    assert said["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": '{"q": 1}'}}
    ]


@BOTH
async def test_a_name_on_both_sides_is_the_clients_and_ours_is_prefixed(stream: bool) -> None:
    script = [
        answer(calls=[("c1", "tools__echo", '{"text": "ours"}')]),
        answer(calls=[("c2", "echo", "{}")]),
    ]
    async with bridged(*script) as place:
        said = await place.said("hi", stream=stream, tools=[function("echo")])
        first, second = (request.json for request in place.inference.requests)
    names = [tool["function"]["name"] for tool in first["tools"]]
    assert names.count("echo") == 1
    assert "tools__echo" in names
    assert second["messages"][-1]["content"] == "ours"
    assert [call["id"] for call in said["tool_calls"]] == ["c2"]


@BOTH
async def test_a_mixed_turn_runs_ours_and_returns_the_clients(stream: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = [
        answer("Both.", calls=[say("c1", "ours"), ("c2", "lookup", "{}")]),
        answer("All known."),
    ]
    servers = {"tools": scripted_server(log=log)}
    async with bridged(*script, mcp_servers=servers) as place:
        tools = [function("lookup")]
        said = await place.said("hi", stream=stream, tools=tools)
        assert [call["id"] for call in said["tool_calls"]] == ["c2"]
        history = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": said["content"], "tool_calls": said["tool_calls"]},
            {"role": "tool", "tool_call_id": "c2", "content": "theirs"},
        ]
        final = await place.said(history, stream=stream, tools=tools)
        sent = place.inference.requests[1].json["messages"]
    assert final["content"] == "All known."
    assert [m["role"] for m in sent] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in sent[1]["tool_calls"]] == ["c1", "c2"]
    assert [(m["tool_call_id"], m["content"]) for m in sent[2:]] == [
        ("c1", "ours"),
        ("c2", "theirs"),
    ]


async def test_another_callers_follow_up_does_not_get_the_other_half() -> None:
    keys = [{"key": "key-of-a"}, {"key": "key-of-b"}]
    security = {"auth": {"enabled": True, "api_keys": keys}}
    script = [answer(calls=[say("c1", "secret"), ("c2", "lookup", "{}")]), answer("Done.")]
    async with bridged(*script, security=security) as place:
        tools = [function("lookup")]
        first = await place.post("hi", headers={"authorization": "Bearer key-of-a"}, tools=tools)
        message = first.json()["choices"][0]["message"]
        history = [
            {"role": "user", "content": "hi"},
            message,
            {"role": "tool", "tool_call_id": "c2", "content": "theirs"},
        ]
        await place.post(history, headers={"authorization": "Bearer key-of-b"}, tools=tools)
        sent = place.inference.requests[1].json["messages"]
    assert "secret" not in json.dumps(sent)


# 4. Every call is answered once, in order, side by side


@BOTH
async def test_every_call_is_answered_exactly_once_in_call_order(stream: bool) -> None:
    calls = [("c1", "slow", '{"steps": 3, "pause": 0.05}'), say("c2", "b"), ("c3", "fail", "{}")]
    async with bridged(answer(calls=calls), answer("ok")) as place:
        await place.said("hi", stream=stream)
        sent = place.inference.requests[1].json["messages"]
    assert [c["id"] for c in sent[1]["tool_calls"]] == ["c1", "c2", "c3"]
    results = [(m["role"], m["tool_call_id"], m["content"]) for m in sent[2:]]
    assert results == [
        ("tool", "c1", "done"),
        ("tool", "c2", "b"),
        ("tool", "c3", "Error: it went wrong"),
    ]


async def test_calls_of_one_round_overlap_and_those_of_a_serial_server_do_not(
    tmp_path: Path,
) -> None:
    async def order(parallel: bool) -> list[str]:
        log = tmp_path / str(parallel)
        servers = {"tools": scripted_server(log=log, parallel=parallel)}
        calls = [("c1", "slow", '{"steps": 2, "pause": 0.2}'), say("c2", "b")]
        async with bridged(answer(calls=calls), answer("ok"), mcp_servers=servers) as place:
            read = await place.streamed("hi", mcp={"progress": "reasoning"})
        return [line.split("(")[0].strip() for line in read.reasoning.splitlines() if "✓" in line]

    assert await order(parallel=True) == ["✓ echo", "✓ slow"]
    assert await order(parallel=False) == ["✓ slow", "✓ echo"]


# 5. The finish reason is not trusted


@BOTH
async def test_calls_are_run_though_the_engine_says_stop(stream: bool) -> None:
    script = [answer(calls=[say("c1", "x")], finish_reason="stop"), answer("ok")]
    async with bridged(*script) as place:
        said = await place.said("hi", stream=stream)
    assert said["content"] == "ok"
    assert said["finish_reason"] == "stop"


@BOTH
async def test_a_call_that_was_cut_is_never_run(stream: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    cut = answer(calls=[("c1", "echo", '{"text": "ha')], finish_reason="length")
    async with bridged(cut, mcp_servers={"tools": scripted_server(log=log)}) as place:
        said = await place.said("hi", stream=stream)
    assert said["finish_reason"] == "length"
    assert "tool_calls" not in said
    assert not any(e.get("method") == "tools/call" for e in entries(log))


# 6. Arguments


@pytest.mark.parametrize("arguments", ["", "  ", "null", '""'])
async def test_empty_arguments_are_an_empty_object(arguments: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with bridged(
        answer(calls=[("c1", "echo", arguments)]),
        answer("ok"),
        mcp_servers={"tools": scripted_server(log=log)},
    ) as place:
        await place.chat()
    call = await logged(log, lambda e: e.get("method") == "tools/call")
    assert call["params"]["arguments"] == {}


@BOTH
async def test_arguments_that_do_not_parse_go_back_to_the_model_and_not_to_the_tool(
    stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with bridged(
        answer(calls=[("c1", "echo", '{"text": nope}')]),
        answer("ok"),
        mcp_servers={"tools": scripted_server(log=log)},
    ) as place:
        await place.said("hi", stream=stream)
        sent = place.inference.requests[1].json["messages"]
    assert "not valid JSON" in sent[2]["content"]
    assert isinstance(json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]), dict)
    assert not any(e.get("method") == "tools/call" for e in entries(log))


# 7. Unknown names, failing again and again


@BOTH
async def test_an_unknown_name_is_answered_with_close_matches(stream: bool) -> None:
    async with bridged(answer(calls=[("c1", "ecko", "{}")]), answer("ok")) as place:
        said = await place.said("hi", stream=stream)
        sent = place.inference.requests[1].json["messages"]
    assert said["content"] == "ok"
    assert "echo" in sent[2]["content"]


@BOTH
async def test_the_same_failing_call_three_times_ends_the_loop(stream: bool) -> None:
    failing = answer(calls=[("c1", "fail", "{}")])
    async with bridged(failing, failing, failing, answer("I give up.")) as place:
        said = await place.said("hi", stream=stream)
        requests = place.inference.requests
    assert said["content"] == "I give up."
    assert len(requests) == 4
    assert requests[3].json["tool_choice"] == "none"
    assert requests[3].json["tools"] == requests[0].json["tools"]


async def test_ids_that_an_engine_uses_again_are_answered_apart() -> None:
    same = [answer(calls=[say("call_0", "a")]), answer(calls=[say("call_0", "b")]), answer("ok")]
    async with bridged(*same) as place:
        await place.chat()
        sent = place.inference.requests[2].json["messages"]
    ids = [m["tool_call_id"] for m in sent if m["role"] == "tool"]
    assert len(set(ids)) == 2
    assert [m["content"] for m in sent if m["role"] == "tool"] == ["a", "b"]


# 8. Bounds


@BOTH
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"max_rounds": 2}, "max_rounds"),
        ({"max_calls": 2}, "max_calls"),
        ({"max_tokens": 25}, "max_tokens"),
    ],
)
async def test_at_a_bound_one_last_round_ends_it(stream: bool, limits: Json, why: str) -> None:
    calling = [answer(calls=[say(f"c{n}", str(n))]) for n in range(2)]
    async with bridged(*calling, answer("So far."), limits=limits) as place:
        said = await place.said("hi", stream=stream)
        last = place.inference.requests[-1].json
    assert said["content"] == "So far."
    assert said["finish_reason"] == "stop"
    assert len(place.inference.requests) == 3
    assert last["tool_choice"] == "none"
    assert last["tools"]
    assert why


@BOTH
async def test_a_model_that_calls_on_after_the_bound_is_ended_with_length(stream: bool) -> None:
    async with bridged(then=answer(calls=[say("c", "x")]), limits={"max_rounds": 2}) as place:
        said = await place.said("hi", stream=stream)
    assert said["finish_reason"] == "length"
    assert "limit of rounds" in said["content"]
    assert "tool_calls" not in said


class Endless(list[Any]):
    """The pieces of a stream that never ends."""

    def __iter__(self) -> Any:
        return chain(super().__iter__(), repeat(self[-1]))


def piece_of_a_call(**function: str) -> bytes:
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    return event(chunk({"role": "assistant", "tool_calls": [call]}))


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([event(chunk({"role": "assistant", "content": "on and "}))], "on and on and"),
        (
            [
                piece_of_a_call(name="say", arguments='{"text": "on'),
                piece_of_a_call(arguments=" and"),
            ],
            "",
        ),
    ],
)
async def test_a_model_that_never_ends_is_cut_when_the_time_is_up(
    pieces: list[bytes], text: str
) -> None:
    babbling = Reply(200, {"content-type": "text/event-stream"}, Endless(pieces))
    async with bridged(babbling, answer("again"), limits={"max_seconds": 0.2}) as place:
        read = await place.streamed()
        with anyio.fail_after(10):
            await place.inference.requests[0].gone.wait()
        assert (await place.chat("hi", mcp=False))["choices"][0]["message"]["content"] == "again"
    assert read.text.startswith(text)
    assert not any(c["choices"][0]["delta"].get("tool_calls") for c in read.chunks)
    assert read.finish_reason == "length"
    assert read.done
    assert read.chunks[-1]["mcp_bridge"]["stopped"] == "max_seconds"


# 9. tool_choice


@BOTH
async def test_tool_choice_none_adds_nothing(stream: bool) -> None:
    async with bridged(answer("ok")) as place:
        await place.said("hi", stream=stream, tool_choice="none")
        sent = place.inference.requests[0].json
    assert "tools" not in sent
    assert sent["tool_choice"] == "none"


@BOTH
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "echo"}}])
async def test_a_forced_call_is_forced_in_the_first_round_only(stream: bool, choice: Any) -> None:
    async with bridged(answer(calls=[say("c1", "x")]), answer("ok")) as place:
        await place.said("hi", stream=stream, tool_choice=choice)
        first, second = (request.json for request in place.inference.requests)
    assert first["tool_choice"] == choice
    assert second["tool_choice"] == "auto"


async def test_tool_choice_none_adds_nothing_though_an_earlier_result_was_cut() -> None:
    cut = 'cut: … Read the rest with read_tool_result(id="a", offset=1)'
    history: list[Json] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{**function("echo"), "id": "c1"}]},
        {"role": "tool", "tool_call_id": "c1", "content": cut},
    ]
    async with bridged(answer("ok")) as place:
        await place.chat(history, tool_choice="none")
        assert "tools" not in place.inference.requests[0].json


async def test_an_empty_list_of_tools_is_omitted() -> None:
    async with bridged(answer("ok"), mcp_servers={}) as place:
        await place.chat("hi", tools=[], tool_choice="auto")
        sent = place.inference.requests[0].json
    assert "tools" not in sent
    assert "tool_choice" not in sent


# 10. Usage


@BOTH
async def test_usage_is_the_sum_of_all_rounds(stream: bool) -> None:
    detailed = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    script = [answer(calls=[say("c1", "x")], usage=detailed), answer("ok", usage=detailed)]
    async with bridged(*script) as place:
        said = await place.said("hi", stream=stream)
    assert said["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


async def test_a_stream_carries_usage_only_when_it_was_asked_for() -> None:
    async with bridged(answer(calls=[say("c1", "x")]), answer("ok")) as place:
        read = await place.streamed()
        asked = [request.json["stream_options"] for request in place.inference.requests]
    assert not any(chunk.get("usage") for chunk in read.chunks)
    assert asked == [{"include_usage": True}] * 2


# 11. Leaving stops the work


@BOTH
async def test_leaving_during_a_tool_cancels_it_and_harms_nobody(
    stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    script = [answer(calls=[("c1", "hang", "{}")]), answer(calls=[say("c2", "x")]), answer("ok")]
    async with bridged(*script, mcp_servers=servers) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: place.post("hi", stream=stream))
            call = await logged(log, lambda e: e.get("params", {}).get("name") == "hang")
            tasks.cancel_scope.cancel()
        left = await logged(log, lambda e: e.get("method") == "notifications/cancelled")
        assert left["params"]["requestId"] == call["id"]
        assert (await place.chat("again"))["choices"][0]["message"]["content"] == "ok"
        assert len(place.inference.requests) == 3


@BOTH
async def test_leaving_during_the_question_closes_it(stream: bool) -> None:
    held = anyio.Event()
    pieces: list[Any] = [
        chunk({"role": "assistant", "content": "a"}),
        held,
        chunk({"content": "b"}),
        DONE,
    ]
    async with bridged(lambda _: sse(*pieces)) as place:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: place.post("hi", stream=stream))
            with anyio.fail_after(10):
                await place.inference.wait_for_requests(1)
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await place.inference.disconnected.wait()


# 12. Silence never kills it


async def test_silence_is_broken_by_comments() -> None:
    held = anyio.Event()
    pieces: list[Any] = [chunk({"role": "assistant", "content": "a"}), held]
    limits = {"keep_alive": 0.05}
    async with bridged(lambda _: sse(*pieces), limits=limits) as place:
        body = place.body("hi", stream=True)
        comments = 0
        with anyio.fail_after(10):
            async with place.http.stream("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    comments += line.startswith(":")
                    if comments == 3:
                        break


# 13. Errors keep their status


@BOTH
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
async def test_an_error_before_the_first_byte_keeps_its_status(stream: bool, status: int) -> None:
    refusal = whole({"error": {"message": "no", "type": "t", "code": "c", "x": 1}}, status=status)
    refusal = with_headers(refusal, retry_after="7", x_ratelimit_remaining="0")
    async with bridged(then=refusal, mcp_servers={}) as place:
        response = await place.post("hi", stream=stream)
    error = response.json()["error"]
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert "no" in error["message"]
    assert error["x"] == 1
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-ratelimit-remaining"] == "0"


async def test_an_error_after_the_first_byte_is_an_event_without_choices() -> None:
    seen = anyio.Event()
    failing = sse(
        chunk({"role": "assistant", "content": "Half"}),
        seen,
        event({"error": {"message": "out of memory", "type": "server_error", "code": 500}}),
    )
    async with bridged(failing) as place:
        read = await place.streamed(on_chunk=seen.set)
    assert read.text == "Half"
    assert read.error is not None
    assert "out of memory" in read.error["message"]
    assert isinstance(read.error["code"], str)
    assert not read.done


@BOTH
async def test_an_error_after_a_tool_ran_is_not_to_be_retried(stream: bool) -> None:
    async with bridged(answer(calls=[say("c1", "x")]), page(status=502)) as place:
        response = await place.post("hi", stream=stream)
        if stream:
            assert response.status_code == 200
            assert '"error"' in response.text
        else:
            assert response.status_code == 502
            assert response.headers["x-should-retry"] == "false"


@BOTH
async def test_an_inference_server_that_is_down_is_a_502_that_says_so(stream: bool) -> None:
    with closed_port() as port:
        inference = {"base_url": f"http://127.0.0.1:{port}/v1"}
        async with bridged(inference=inference) as place:
            response = await place.post("hi", stream=stream)
    assert response.status_code == 502
    assert "127.0.0.1" in response.json()["error"]["message"]


# 14. Results


async def test_results_of_every_kind_reach_the_model_as_it_can_read_them() -> None:
    png = "iVBORw0KGgo" * 50
    results: dict[str, Json] = {
        "text": {"content": [{"type": "text", "text": "plain"}]},
        "structured": {"content": [], "structuredContent": {"a": 1}},
        "image": {"content": [{"type": "image", "mimeType": "image/png", "data": png}]},
        "empty": {"content": []},
        "failed": {"content": [{"type": "text", "text": "bad luck"}], "isError": True},
    }
    calls = [give(name, result) for name, result in results.items()]
    async with bridged(answer(calls=calls), answer("ok")) as place:
        await place.chat()
        sent = place.inference.requests[1].json["messages"]
    read = {m["tool_call_id"]: m["content"] for m in sent if m["role"] == "tool"}
    assert read["text"] == "plain"
    assert json.loads(read["structured"]) == {"a": 1}
    assert png not in read["image"]
    assert "image/png" in read["image"]
    assert read["empty"]
    assert read["failed"] == "Error: bad luck"


async def test_a_model_that_sees_gets_images_as_images() -> None:
    picture = {"content": [{"type": "image", "mimeType": "image/png", "data": "AAAA"}]}
    script = [answer(calls=[give("c1", picture)]), answer("ok")]
    async with bridged(*script, inference={"vision": ["model-*"]}) as place:
        await place.chat()
        sent = place.inference.requests[1].json["messages"]
    parts = sent[-1]["content"]
    assert sent[-1]["role"] == "user"
    assert {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}} in parts


async def test_a_long_result_is_cut_and_can_be_read_on() -> None:
    async def read_on(request: Any) -> Any:
        notice = request.json["messages"][-1]["content"]
        id = notice.split('id="')[1].split('"')[0]
        return answer(calls=[("c2", "read_tool_result", json.dumps({"id": id, "offset": 4990}))])

    script: list[Any] = [answer(calls=[("c1", "big", '{"size": 5000}')]), read_on, answer("ok")]
    async with bridged(*script, tools={"max_result_chars": 1000}) as place:
        await place.chat()
        first, second, third = (request.json for request in place.inference.requests)
    names = [[t["function"]["name"] for t in r["tools"]] for r in (first, second)]
    assert "read_tool_result" not in names[0]
    assert "read_tool_result" in names[1]
    assert len(second["messages"][-1]["content"]) < 1400
    assert "x" * 10 in third["messages"][-1]["content"]


async def test_a_conversation_keeps_its_tools_though_a_reload_drops_their_server() -> None:
    changed = anyio.Event()

    async def call_later(request: Any) -> Any:
        await changed.wait()
        return answer(calls=[say("c1", "still here")])

    async def change(place: Any) -> None:
        await place.inference.wait_for_requests(1)
        place.bridge.apply(place.bridge.settings.model_copy(update={"mcp_servers": {}}))
        await anyio.wait_all_tasks_blocked()
        changed.set()

    async with bridged(call_later, answer("ok")) as place, anyio.create_task_group() as tasks:
        connection = place.bridge.connections["tools"]
        tasks.start_soon(change, place)
        await place.chat()
        assert place.inference.requests[1].json["messages"][-1]["content"] == "still here"
        with anyio.fail_after(10):
            await connection.idle()


# 15. No replay


async def test_a_call_whose_outcome_is_unknown_is_not_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    script = [answer(calls=[("c1", "die", "{}")]), answer("ok")]
    async with bridged(*script, mcp_servers=servers) as place:
        await place.chat()
        said = place.inference.requests[1].json["messages"][-1]["content"]
    assert "outcome is unknown" in said
    assert [e for e in entries(log) if e.get("executed") == "die"] == [{"executed": "die"}]


# 16. Side requests


@pytest.mark.parametrize(
    ("extra", "headers"),
    [
        ({}, {"x-openwebui-task": "title_generation"}),
        ({"metadata": {"task": "tags_generation"}}, {}),
        ({"messages": [{"role": "user", "content": "### Task:\nGenerate a concise title"}]}, {}),
    ],
)
async def test_side_requests_of_user_interfaces_get_no_tools(extra: Json, headers: Json) -> None:
    async with bridged(answer("{}"), answer("ok")) as place:
        body = {**place.body("hi"), **extra}
        await place.http.post("/v1/chat/completions", json=body, headers=headers)
        await place.post("hi", headers={"x-openwebui-task": ""})
        side, normal = (request.json for request in place.inference.requests)
    assert "tools" not in side
    assert normal["tools"]


# 17. Which tools


TOOLSETS = {"small": {"include": ["tools:echo", "tools:big"]}, "other": {"include": ["x:*"]}}


@pytest.mark.parametrize(
    ("path", "headers", "body", "expected"),
    [
        ("/t/small/v1", {}, {}, {"echo", "big"}),
        ("/v1", {"x-mcp-toolset": "small"}, {}, {"echo", "big"}),
        ("/v1", {"x-mcp-toolset": "small, !tools:big"}, {}, {"echo"}),
        (
            "/v1",
            {"x-mcp-toolset": "tools:e*"},
            {},
            {"echo", "environment", "error_as_text", "error_without_code"},
        ),
        ("/v1", {}, {"model": "model-a@small"}, {"echo", "big"}),
        ("/v1", {}, {"model": "model-a@none"}, set()),
        ("/v1", {}, {"mcp": {"toolset": "small"}}, {"echo", "big"}),
        ("/v1", {}, {"mcp": {"tools": ["tools:fail"]}}, {"fail"}),
        ("/v1", {}, {"mcp": {"servers": ["nobody"]}}, set()),
        ("/v1", {}, {"mcp": False}, set()),
        (
            "/v1",
            {},
            {"tools": [{"type": "mcp", "server_label": "tools", "allowed_tools": ["fail"]}]},
            {"fail"},
        ),
        ("/t/small/v1", {"x-mcp-toolset": "tools:big"}, {"mcp": {"tools": ["b*", "e*"]}}, {"big"}),
    ],
)
async def test_tools_are_chosen_by_path_header_model_and_body(
    path: str, headers: Json, body: Json, expected: set[str]
) -> None:
    async with bridged(answer("ok"), toolsets=TOOLSETS) as place:
        response = await place.post("hi", path=path, headers=headers, **body)
        assert response.status_code == 200, response.text
        sent = place.inference.requests[0].json
    assert {t["function"]["name"] for t in sent.get("tools", [])} == expected
    assert sent["model"] == "model-a"


async def test_the_model_menu_lists_every_model_with_every_toolset() -> None:
    async with bridged(models=["model-a", "model-b"], toolsets=TOOLSETS) as place:
        listed = (await place.http.get("/v1/models")).json()
        one = (await place.http.get("/v1/models/model-b@small")).json()
        missing = await place.http.get("/v1/models/nope")
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == [
        "model-a",
        "model-b",
        "model-a@small",
        "model-a@other",
        "model-b@small",
        "model-b@other",
    ]
    assert one["id"] == "model-b@small"
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


async def do(asked: Asked, pipe: Pipe) -> None:
    await pipe.result(asked, "from the guest")


async def test_a_server_that_a_request_names_by_url_is_used_beside_ours_for_that_request() -> None:
    calls = [("c1", "do", "{}"), ("c2", "echo", '{"text": "from ours"}')]
    opens = anyio.Event()
    async with (
        raw(do, opens=opens) as guest,
        bridged(answer(calls=calls), answer("ok"), security={"allow_server_url": True}) as place,
        anyio.create_task_group() as tasks,
    ):
        named = {"type": "mcp", "server_label": "guest", "server_url": guest.url}
        ours = {"type": "mcp", "server_label": "tools"}
        answered = anyio.Event()

        async def ask() -> None:
            await place.chat("hi", tools=[named, ours])
            answered.set()

        tasks.start_soon(ask)
        await guest.until(lambda asked: True)
        before = place.bridge.connections["tools"]
        place.bridge.apply(place.bridge.settings.model_copy(update={"mcp_servers": {}}))
        await anyio.wait_all_tasks_blocked()
        opens.set()
        with anyio.fail_after(PATIENCE):
            await answered.wait()
            await before.idle()
        results = [m["content"] for m in place.inference.requests[1].json["messages"][-2:]]
    assert results == ["from the guest", "from ours"]


async def test_a_server_that_a_request_names_by_url_is_refused_unless_allowed() -> None:
    tool = {"type": "mcp", "server_label": "mine", "server_url": "http://127.0.0.1:1/mcp"}
    async with bridged() as place:
        response = await place.post("hi", tools=[tool])
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "server_url_not_allowed"
    assert place.inference.requests == []


# 18. Progress


async def test_progress_is_off_unless_asked_for() -> None:
    async with bridged(answer(calls=[say("c1", "x")]), answer("ok")) as place:
        read = await place.streamed()
    assert read.text == "ok"
    assert read.reasoning == ""
    assert all(set(c) <= {"id", "object", "created", "model", "choices"} for c in read.chunks)


async def test_progress_as_reasoning_shows_the_calls() -> None:
    slow = ("c1", "slow", '{"steps": 2, "pause": 0.01}')
    async with bridged(answer(calls=[slow]), answer("ok")) as place:
        read = await place.streamed("hi", headers={"x-mcp-progress": "reasoning"})
    lines = read.reasoning.splitlines()
    assert lines[0].startswith("→ slow(")
    assert any("step 1" in line for line in lines)
    assert lines[-1].startswith("✓ slow")
    assert read.text == "ok"


async def test_progress_for_open_webui_is_its_native_panel() -> None:
    async with bridged(answer(calls=[say("c1", "x")]), answer("ok")) as place:
        read = await place.streamed("hi", mcp={"progress": "openwebui"})
    items = [c["item"] for c in read.chunks if c.get("type") == "response.output_item.added"]
    assert [item["type"] for item in items] == ["function_call", "function_call_output"]
    assert items[0]["call_id"] == items[1]["call_id"] == "c1"
    assert items[1]["output"] == [{"type": "input_text", "text": "x"}]
    status = [c["event"]["data"] for c in read.chunks if "event" in c]
    assert status[0]["done"] is False
    assert status[-1] == {"description": "echo is done", "done": True, "hidden": True}


@BOTH
async def test_our_own_tool_turns_that_come_back_are_passed_on_and_not_run(
    stream: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    history: list[Json] = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "echo", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": "and now?"},
    ]
    servers = {"tools": scripted_server(log=log)}
    async with bridged(answer("fine"), mcp_servers=servers) as place:
        said = await place.said(history, stream=stream)
        assert place.inference.requests[0].json["messages"] == history
    assert said["content"] == "fine"
    assert not any(e.get("method") == "tools/call" for e in entries(log))
