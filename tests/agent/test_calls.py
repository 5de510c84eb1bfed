"""One round's tool calls, run side by side (L4, L6, L7, L20, L22)."""

import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import anyio
import pytest

from mcp_bridge.agent.calls import CallerSide, CallRunner, Caps, Outcome, Told
from mcp_bridge.agent.elicitation import Put
from mcp_bridge.agent.events import ToolFinished, ToolProgress, ToolStarted
from mcp_bridge.errors import (
    OutcomeUnknown,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from mcp_bridge.inference.answer import ModelCall
from mcp_bridge.tools.catalog import Catalog
from mcp_bridge.tools.runner import ToolRunner
from mcp_bridge.tools.source import Answerer, CallContext, text_result
from mcp_bridge.tools.stored import READ, StoredResults
from mcp_bridge.types import Caller, Json
from tests.tools.sources import Handler, Source, tool

ANNA = Caller("anna")
NUMBER: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def runner(
    stored: StoredResults | None = None,
    *,
    cap: int = 0,
    caps: Caps | None = None,
    parallel: int = 16,
) -> CallRunner:
    stored = stored or StoredResults(cap, 60)
    return CallRunner(ToolRunner(), stored, cap=cap, caps=caps or {}, parallel=parallel)


def side(*sources: Source, vision: bool = False) -> CallerSide:
    return CallerSide(ANNA, Catalog(sources).view(), "chat", vision, meta={"traceparent": "00-x"})


def call(name: str, arguments: str = "{}", id: str = "") -> ModelCall:
    return ModelCall(id or f"id-{name}", name, arguments)


async def run(
    calls: Sequence[ModelCall],
    where: CallerSide,
    using: CallRunner | None = None,
    seconds: float = 5,
) -> list[Told]:
    """Everything that is told while these calls run."""
    seen: list[Told] = []
    with anyio.fail_after(10):
        events = (using or runner()).run(calls, where, seconds)
        async with aclosing(events):
            seen += [event async for event in events]
    return seen


def outcomes(events: Sequence[Told]) -> dict[str, Outcome]:
    found = [event for event in events if isinstance(event, Outcome)]
    by_id = {outcome.call.id: outcome for outcome in found}
    assert len(by_id) == len(found), "each call is answered once"
    return by_id


async def text_of(one: ModelCall, where: CallerSide, using: CallRunner | None = None) -> str:
    (outcome,) = outcomes(await run([one], where, using)).values()
    return outcome.readable.text


def answering(result: Json) -> Handler:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        return result

    return handler


def failing(error: Exception) -> Handler:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        raise error

    return handler


async def hanging(name: str, arguments: Json, context: CallContext) -> Json:
    await anyio.sleep_forever()
    return {}


# What is told


async def test_a_call_is_told_from_its_begin_to_its_outcome() -> None:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        assert context.caller is ANNA
        assert context.meta == {"traceparent": "00-x"}
        assert context.on_progress is not None
        context.on_progress(1, 2, "half")
        return text_result("done")

    one = call("t", '{"a": 1}')
    events = await run([one], side(Source("s", ["t"], handler)))
    match events:
        case [ToolStarted() as started, ToolProgress() as progress, ToolFinished() as end, outcome]:
            assert started == ToolStarted("id-t", "t", {"a": 1})
            assert progress == ToolProgress("id-t", "t", 1, 2, "half")
            assert (end.text, end.is_error, end.arguments) == ("done", False, {"a": 1})
            assert end.seconds >= 0
            assert isinstance(outcome, Outcome)
            assert outcome.call is one
        case _:
            pytest.fail(f"unexpected: {events}")


async def test_progress_that_nobody_reads_is_left_out_and_the_end_is_not() -> None:
    async def flooding(name: str, arguments: Json, context: CallContext) -> Json:
        assert context.on_progress is not None
        for step in range(100_000):
            context.on_progress(step, None, None)
        return text_result("done")

    events = await run([call("t")], side(Source("s", ["t"], flooding)))
    assert len(events) < 2_000
    assert isinstance(events[0], ToolStarted)
    assert isinstance(events[-1], Outcome)


async def test_a_round_without_calls_tells_nothing() -> None:
    assert await run([], side()) == []


async def test_the_source_gets_the_arguments_as_the_schema_wants_them() -> None:
    source = Source("s", {"t": NUMBER})
    assert await text_of(call("t", '{"n": "5"}'), side(source)) == "t {'n': 5}"


# What a model did wrong (L6, L7)


async def test_arguments_that_do_not_fit_are_a_result_and_the_tool_is_not_called() -> None:
    source = Source("s", {"t": NUMBER})
    for arguments, said in (("{", "not valid JSON"), ("{}", "'n' is a required property")):
        events = await run([call("t", arguments)], side(source))
        (outcome,) = outcomes(events).values()
        assert outcome.readable.is_error
        assert outcome.readable.text.startswith("Error: The arguments")
        assert said in outcome.readable.text
        assert not any(isinstance(event, ToolStarted) for event in events)
        assert any(isinstance(event, ToolFinished) for event in events)
    assert source.calls == []


async def test_a_call_is_announced_before_it_runs() -> None:
    source = Source("one", ["t", "u"])
    events = runner().run([call("t"), call("u")], side(source), 5)
    async with aclosing(events):
        assert isinstance(await anext(events), ToolStarted)
        assert source.calls == []


class Echo:
    """An answerer that can sample, and answers with the question."""

    def capabilities(self) -> Json:
        return {"sampling": {}}

    async def answer(self, source: str, method: str, params: Json) -> Json:
        return {"source": source, "method": method, **params}


async def test_who_answers_a_server_is_made_for_each_call_once_it_asks() -> None:
    made: list[Put] = []

    def make(put: Put) -> Answerer:
        made.append(put)
        return Echo()

    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        if name == "quiet":
            return text_result("done")
        assert context.answerer is not None
        can = context.answerer.capabilities()
        said = await context.answerer.answer("s", "sampling/createMessage", {"n": 1})
        return text_result(f"{can} {said}")

    where = replace(side(Source("one", ["asks", "quiet"], handler)), answerer=make)
    assert await text_of(call("quiet"), where) == "done"
    assert not made
    said = "{'source': 's', 'method': 'sampling/createMessage', 'n': 1}"
    assert await text_of(call("asks"), where) == f"{{'sampling': {{}}}} {said}"
    assert len(made) == 1


async def test_a_tool_that_is_not_there_is_answered_with_close_names() -> None:
    where = side(Source("s", ["read_file", "write_file"]))
    text = await text_of(call("read_files"), where)
    assert text.startswith("Error: there is no tool 'read_files'. Did you mean read_file")
    text = await text_of(call("zzz"), where)
    assert text == "Error: there is no tool 'zzz'. There are: read_file, write_file."
    assert "There are: no tools." in await text_of(call("zzz"), side())
    many = side(Source("s", [f"t{n}" for n in range(1000)]))
    assert len(await text_of(call("q" * 10_000), many)) < 700


async def test_a_tool_of_the_catalog_that_the_caller_does_not_see_is_not_there() -> None:
    source = Source("s", ["secret"])
    hidden = CallerSide(
        ANNA, Catalog([source]).view(()).renamed(lambda name: "other"), "chat", False
    )
    assert "there is no tool 'secret'" in await text_of(call("secret"), hidden)
    assert source.calls == []


# What a source did (L22)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            SourceUnavailable("s", "s is not connected"),
            "Error: s is not connected. Nothing was done.",
        ),
        (OutcomeUnknown("s", "It broke."), "Error: It broke. The outcome is unknown: the call may"),
        (SourceTimeout("s", "No answer."), "Error: No answer. It may have taken effect"),
        (SourceRefused("s", "Bad", rpc_code=-32602), "Error: Bad (error -32602)"),
        (SourceRefused("s", "Bad", rpc_code=1, data={"a": 2}), 'Error: Bad (error 1): {"a":2}'),
        (SourceError("s", "Odd"), "Error: Odd."),
        (KeyError("x"), "Error: t failed unexpectedly: KeyError."),
    ],
)
async def test_what_a_source_could_not_do_is_a_result_that_says_what_to_think(
    error: Exception, said: str
) -> None:
    (outcome,) = outcomes(await run([call("t")], side(Source("s", ["t"], failing(error))))).values()
    assert outcome.readable.is_error
    assert outcome.readable.text.startswith(said)


async def test_a_timeout_of_a_tool_that_changes_nothing_is_just_a_timeout() -> None:
    source = Source("s", [], failing(SourceTimeout("s", "No answer.")))
    source.tools = (tool("s", "t", annotations={"readOnlyHint": True}),)
    assert await text_of(call("t"), side(source)) == "Error: No answer."


async def test_an_error_of_the_tool_is_told_as_one() -> None:
    source = Source("s", ["t"], answering(text_result("no such file", is_error=True)))
    (outcome,) = outcomes(await run([call("t")], side(source))).values()
    assert (outcome.readable.text, outcome.readable.is_error) == ("Error: no such file", True)


# Side by side (L4)


async def test_calls_run_side_by_side_and_one_failure_touches_no_other() -> None:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        if name == "b":
            raise OutcomeUnknown("s", "It broke.")
        await met.wait()
        return text_result(name)

    met = anyio.Event()
    source = Source("s", ["a", "b", "c"], handler)
    seen: list[str] = []
    with anyio.fail_after(5):
        calls = [call("a"), call("b"), call("c"), call("nope")]
        events = runner().run(calls, side(source), 5)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Outcome):
                    seen.append(event.call.name)
                if len(seen) == 2:
                    met.set()
    assert sorted(seen[:2]) == ["b", "nope"]
    assert sorted(seen[2:]) == ["a", "c"]


@pytest.mark.parametrize(("parallel", "together"), [(16, 5), (2, 2), (1, 1)])
async def test_no_more_calls_than_the_cap_run_together(parallel: int, together: int) -> None:
    running = most = 0

    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.wait_all_tasks_blocked()
        running -= 1
        return text_result(name)

    names = [f"t{n}" for n in range(5)]
    source = Source("s", names, handler)
    events = await run([call(n) for n in names], side(source), runner(parallel=parallel))
    assert len(outcomes(events)) == 5
    assert most == together


async def test_a_source_that_takes_one_call_at_a_time_gets_them_in_the_order_of_the_calls() -> None:
    names = [f"t{n}" for n in range(8)]
    source = Source("s", names, parallel=False)
    await run([call(n) for n in reversed(names)], side(source))
    assert source.calls == list(reversed(names))


async def test_closing_the_run_cancels_what_is_running_and_waiting() -> None:
    cancelled: list[str] = []

    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.append(name)
        return {}

    source = Source("s", ["a", "b", "c"], handler)
    with anyio.fail_after(5):
        events = runner(parallel=2).run([call(n) for n in "abc"], side(source), 5)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, ToolStarted) and event.name == "b":
                    break
    assert sorted(cancelled) == ["a", "b"]
    assert source.calls == ["a", "b"]


async def test_what_fails_in_an_unforeseen_way_is_told_and_touches_no_other_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(StoredResults):
        def keep(self, caller: Caller, text: str, cap: int) -> str:
            raise LookupError("a mistake of ours")

    using = runner(Broken(10, 60), cap=10)
    sources = (long_source(), Source("short", ["v"], answering(text_result("fine"))))
    found = outcomes(await run([call("t"), call("v")], side(*sources), using))
    assert found["id-t"].readable.text == "Error: it failed unexpectedly: LookupError."
    assert found["id-v"].readable.text == "fine"
    assert "a mistake of ours" in caplog.text


async def test_all_calls_of_a_round_share_the_time_that_is_left() -> None:
    source = Source("s", ["a", "b"], hanging)
    events = await run([call("a"), call("b")], side(source), runner(parallel=1), seconds=0.05)
    texts = {o.call.name: o.readable.text for o in outcomes(events).values()}
    assert "a was stopped: the time for the request is used up" in texts["a"]
    assert "b was not called" in texts["b"]
    assert source.calls == ["a"]


# Results that are too long (L20)


def long_source(length: int = 1000, name: str = "s") -> Source:
    return Source(name, ["t", "u"], answering(text_result("x" * length)))


async def test_a_long_result_is_cut_and_the_rest_can_be_read() -> None:
    stored = StoredResults(100, 60)
    using = runner(stored, cap=100)
    where = side(long_source())
    (outcome,) = outcomes(await run([call("t")], where, using)).values()
    assert outcome.cut
    text = outcome.readable.text
    assert "this result has 1000 characters, 100 are shown" in text
    found = re.search(r'read_tool_result\(id="(\w+)", offset=(\d+)\)', text)
    assert found is not None
    assert text.startswith("x" * 80 + "\n\n[cut:")
    assert found[2] == "80"
    more = await stored.call(READ, {"id": found[1], "offset": 80}, CallContext(ANNA))
    assert more["content"][0]["text"].startswith("x" * 100 + "\n\n[characters 80 to 180 of 1000")


async def test_reading_a_stored_result_is_a_call_like_any_other_and_not_cut_again() -> None:
    stored = StoredResults(100, 60)
    id = stored.keep(ANNA, "y" * 90 + "z" * 90, cap=100)
    where = CallerSide(ANNA, Catalog([stored]).view(), "chat", False)
    text = await text_of(call(READ, f'{{"id": "{id}"}}'), where, runner(stored, cap=100))
    assert text.startswith("y" * 90 + "z" * 10 + "\n\n[characters 0 to 100 of 180; go on")


@pytest.mark.parametrize(
    ("cap", "caps", "length"),
    [
        (0, {}, 1000),
        (1000, {}, 1000),
        (10, {("s", None): 0}, 1000),
        (10, {("s", None): 20, ("s", "t"): 0}, 1000),
        (10, {("s", "u"): 0}, None),
        (0, {("s", "t"): 10}, None),
    ],
)
async def test_caps_of_a_tool_go_before_those_of_its_server_and_zero_is_no_cap(
    cap: int, caps: Caps, length: int | None
) -> None:
    (outcome,) = outcomes(
        await run([call("t")], side(long_source()), runner(cap=cap, caps=caps))
    ).values()
    assert outcome.cut == (length is None)
    if length is not None:
        assert len(outcome.readable.text) == length


async def test_a_long_error_is_cut_and_stays_an_error() -> None:
    source = Source("s", ["t"], failing(SourceRefused("s", "x" * 1000, rpc_code=1)))
    (outcome,) = outcomes(await run([call("t")], side(source), runner(cap=100))).values()
    assert outcome.cut
    assert outcome.readable.is_error
    assert outcome.readable.text.startswith("Error: xxx")


async def test_images_go_beside_the_text_for_a_model_that_sees() -> None:
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    source = Source("s", ["t"], answering({"content": [image]}))
    (seen,) = outcomes(await run([call("t")], side(source, vision=True))).values()
    (unseen,) = outcomes(await run([call("t")], side(source))).values()
    assert len(seen.readable.images) == 1
    assert unseen.readable.images == ()


def test_a_call_that_was_not_run_is_answered_with_the_reason() -> None:
    outcome = Outcome.refused(call("t"), "the limit of tool calls is reached")
    assert outcome.readable.is_error
    assert outcome.readable.text == (
        "Error: this call was not run: the limit of tool calls is reached."
    )
