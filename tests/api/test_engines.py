"""Every recorded answer of every engine, through the whole bridge, as a strict client reads it.

One bridge serves all of them, one after the other: what one engine says must not rub off on the
next answer. Each fixture is told twice: as calls of the client's own tools, which are handed back,
and as calls of ours, which are run before the model is asked again.
"""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
import pytest

from tests.api.bridged import Place, Streamed, bridged, lines, scripted_server
from tests.fakes import USAGE, Reply, answer, whole
from tests.inference.engines.all import ALL, REFUSALS
from tests.inference.engines.fixture import Call, Expected, ExpectedError, Fixture, Refusal
from tests.inference.engines.folding import said
from tests.mcp_client.running import PATIENCE

Json = dict[str, Any]
EVENTS = {"content-type": "text/event-stream"}
BOTH = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

SHAPES = [(f, stream) for f in ALL for stream in (False, True) if stream or f.whole is not None]
"""Every fixture in each shape that the engine has."""


def cases(chosen: list[tuple[Fixture, bool]]) -> pytest.MarkDecorator:
    ids = [f"{fixture.name}-{'streamed' if stream else 'whole'}" for fixture, stream in chosen]
    return pytest.mark.parametrize(("fixture", "stream"), chosen, ids=ids)


def calls_of(fixture: Fixture) -> tuple[Call, ...]:
    """The calls that a tool of ours can answer: an MCP server has no tools without a schema."""
    calls = fixture.expect.calls if isinstance(fixture.expect, Expected) else ()
    return tuple(call for call in calls if "custom" not in call.extra)


ANSWERS = [case for case in SHAPES if isinstance(case[0].expect, Expected)]
ERRORS = [case for case in SHAPES if isinstance(case[0].expect, ExpectedError)]
OUR_CALLS = [case for case in ANSWERS if calls_of(case[0])]
OUR_TOOLS = sorted({call.name for fixture, _ in OUR_CALLS for call in calls_of(fixture)})


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """All tests of this file share one bridge, and so one loop."""
    return "asyncio"


@pytest.fixture(scope="module")
async def place() -> AsyncGenerator[Place]:
    servers = {"tools": scripted_server(*(f"tool={name}" for name in OUR_TOOLS))}
    async with bridged(mcp_servers=servers, inference={"name": "it"}) as place:
        yield place


def recorded(fixture: Fixture, *, stream: bool) -> Reply:
    if stream:
        return Reply(200, EVENTS, [fixture.stream])
    return whole(fixture.whole)


def expected(fixture: Fixture, *, stream: bool) -> Expected:
    expect = fixture.expect
    assert isinstance(expect, Expected)
    return replace(expect, **(expect.streamed if stream else expect.whole))


async def ask(place: Place, *script: Any, stream: bool, **fields: Any) -> Json:
    """What a client has put together: `message`, `finish_reason` and `usage`."""
    place.inference.script = list(script)
    place.inference.requests.clear()
    if not stream:
        completion = await place.chat("hi", **fields)
        assert completion["object"] == "chat.completion"
        choice = completion["choices"][0]
        usage = completion.get("usage")
        return {
            "message": choice["message"],
            "finish_reason": choice["finish_reason"],
            "usage": usage,
        }
    read = await place.streamed("hi", stream_options={"include_usage": True}, **fields)
    assert read.error is None, read.error
    assert read.done
    return {
        "message": put_together(read),
        "finish_reason": read.finish_reason,
        "usage": read.usage,
    }


def put_together(read: Streamed) -> Json:
    """The message of a stream: texts grow, and so do the items of lists, by their index."""
    message: Json = {"content": None}
    for delta in read.deltas:
        for field, value in delta.items():
            if field != "tool_calls":
                message[field] = grown(message.get(field), value)
    return {**message, "tool_calls": read.calls} if read.calls else message


def grown(old: Any, new: Any) -> Any:
    match old, new:
        case str(), str():
            return old + new
        case list(), list():
            return [*old, *new] if not old else [merged(old[0], new[0])]
        case _:
            return old if new is None else new


def merged(old: Json, new: Json) -> Json:
    return {**old, **new, "text": old["text"] + new["text"]}


def check_message(message: Json, expect: Expected) -> None:
    heard = {key: value for key, value in said(message).items() if key != "tool_calls"}
    assert {**heard, "content": heard["content"] or None} == {
        **expect.message,
        "content": expect.content or None,
    }


def check_calls(calls: list[Json], expect: tuple[Call, ...]) -> None:
    assert calls == [
        item(wanted, wanted.id or call["id"]) for call, wanted in zip(calls, expect, strict=True)
    ]
    assert all(call["id"] for call in calls)
    assert len({call["id"] for call in calls}) == len(calls)


def item(call: Call, id: str) -> Json:
    if "custom" in call.extra:
        return {"id": id, **call.extra}
    function = {"name": call.name, "arguments": call.arguments or "{}"}
    return {"id": id, "type": "function", "function": function, **call.extra}


def clients_tool(call: Call) -> Json:
    if "custom" in call.extra:
        return {"type": "custom", "custom": {"name": call.name}}
    return {"type": "function", "function": {"name": call.name, "parameters": {"type": "object"}}}


def handed_reason(expect: Expected) -> str:
    if expect.calls:
        return "tool_calls" if all(call.complete for call in expect.calls) else "length"
    return expect.finish_reason or "stop"


@cases(ANSWERS)
async def test_an_answer_reaches_the_client_as_the_engine_meant_it(
    place: Place, fixture: Fixture, stream: bool
) -> None:
    expect = expected(fixture, stream=stream)
    tools = list({call.name: clients_tool(call) for call in expect.calls}.values())
    fields = {"tools": tools} if tools else {}
    heard = await ask(place, recorded(fixture, stream=stream), stream=stream, mcp=False, **fields)
    check_message(heard["message"], expect)
    check_calls(heard["message"].get("tool_calls", []), expect.calls)
    assert heard["finish_reason"] == handed_reason(expect)
    assert heard["usage"] == expect.usage
    assert len(place.inference.requests) == 1


@cases(OUR_CALLS)
async def test_calls_of_our_tools_are_run_and_the_model_goes_on(
    place: Place, fixture: Fixture, stream: bool
) -> None:
    expect = expected(fixture, stream=stream)
    heard = await ask(place, recorded(fixture, stream=stream), answer("Done."), stream=stream)
    message, sent = heard["message"], [request.json for request in place.inference.requests]
    assert "tool_calls" not in message
    if not any(call.complete for call in expect.calls):
        assert (heard["finish_reason"], len(sent)) == ("length", 1)
        return
    assert message["content"] == "\n\n".join(filter(None, [expect.content, "Done."]))
    assert heard["finish_reason"] == "stop"
    assert heard["usage"] == summed(expect.usage)
    assert len(sent) == 2
    _, turn, *results = sent[1]["messages"]
    check_message(turn, expect)
    check_turn(turn["tool_calls"], results, expect.calls)


def summed(usage: Json | None) -> Json:
    """The usage of the first round and of our answer."""
    return USAGE if usage is None else {**usage, **{k: usage[k] + n for k, n in USAGE.items()}}


def check_turn(calls: list[Json], results: list[Json], expect: tuple[Call, ...]) -> None:
    """Each call went back as it came, and was answered once, in order, by its tool."""
    assert [r["tool_call_id"] for r in results] == [call["id"] for call in calls]
    assert all(result["role"] == "tool" for result in results)
    for call, result, wanted in zip(calls, results, expect, strict=True):
        assert call["id"] == (wanted.id or call["id"]) != ""
        assert call["function"]["name"] == wanted.name
        assert {k: v for k, v in call.items() if k not in ("id", "type", "function")} == (
            wanted.extra
        )
        if wanted.complete:
            arguments = json.loads(wanted.arguments or "{}")
            assert json.loads(call["function"]["arguments"]) == arguments
            assert json.loads(result["content"]) == arguments
        else:
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert "not run" in result["content"]


@cases(ERRORS)
async def test_an_answer_that_fails_before_it_is_shown_keeps_its_status(
    place: Place, fixture: Fixture, stream: bool
) -> None:
    expect = fixture.expect
    assert isinstance(expect, ExpectedError)
    place.inference.script = [
        recorded(fixture, stream=stream)
    ]  # in one piece: all is known at once
    response = await place.post("hi", stream=stream, mcp=False)
    assert response.status_code == expect.status
    assert response.headers["content-type"] == "application/json"
    check_error(response.json()["error"], expect)


SHOWN = [f for f in ALL if isinstance(f.expect, ExpectedError) and f.expect.shown]


@pytest.mark.parametrize("fixture", SHOWN, ids=lambda fixture: fixture.name)
async def test_an_answer_that_fails_after_it_was_shown_is_an_error_inside_the_stream(
    place: Place, fixture: Fixture
) -> None:
    assert isinstance(fixture.expect, ExpectedError)
    read = await read_in_two(place, *in_two(fixture.stream))
    assert (read.status, read.text, read.done) == (200, fixture.expect.shown, False)
    check_error(read.error, fixture.expect)


def in_two(stream: bytes) -> tuple[bytes, bytes]:
    """A stream before and from the event that tells of the error."""
    events = stream.split(b"\n\n")
    failed = next(n for n, event in enumerate(events) if b'"error"' in event)
    return b"\n\n".join([*events[:failed], b""]), b"\n\n".join(events[failed:])


async def read_in_two(place: Place, shown: bytes, rest: bytes) -> Streamed:
    """What a client reads that has the beginning before the engine says the rest."""
    heard = anyio.Event()
    place.inference.script = [Reply(200, EVENTS, [shown, heard, rest])]
    body = place.body("hi", stream=True, mcp=False)
    with anyio.fail_after(PATIENCE):
        async with place.http.stream("POST", "/v1/chat/completions", json=body) as response:
            read = Streamed(response.status_code, dict(response.headers))
            async with aclosing(lines(response)) as found:
                async for line in found:
                    read.take(line)
                    if read.text:
                        heard.set()
    read.check()
    return read


def check_error(error: Json | None, expect: ExpectedError) -> None:
    assert error is not None
    assert expect.message in error["message"]
    assert error["code"] == expect.code
    assert isinstance(error["type"], str)


@BOTH
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
async def test_a_refusal_keeps_its_status_and_its_words(
    place: Place, refusal: Refusal, stream: bool
) -> None:
    place.inference.script = [Reply(refusal.status, refusal.headers, [refusal.body])]
    response = await place.post("hi", stream=stream, mcp=False)
    error = response.json()["error"]
    assert response.status_code == refusal.status
    assert response.headers["content-type"] == "application/json"
    assert (error["message"], error["type"]) == (refusal.message, refusal.type)
    assert error["code"] == refusal.code
    assert "param" in error
    kept = {name: response.headers[name] for name in refusal.headers if name != "x-request-id"}
    assert kept == {k: v for k, v in refusal.headers.items() if k != "x-request-id"}
