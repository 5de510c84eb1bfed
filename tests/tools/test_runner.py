"""The one place that calls a source."""

import math
import time

import anyio
import pytest

from mcp_bridge.errors import OutcomeUnknown, SourceError, SourceTimeout, SourceUnavailable
from mcp_bridge.tools.catalog import Catalog
from mcp_bridge.tools.runner import CallRecord, ToolCall, ToolRunner
from mcp_bridge.tools.source import CallContext, text_result
from mcp_bridge.types import Caller, Json
from tests.tools.sources import Handler, Source


def call_of(source: Source, name: str = "t", seconds: float = math.inf) -> ToolCall:
    entry = Catalog([source]).find(name)
    assert entry is not None
    context = CallContext(deadline=time.monotonic() + seconds)
    return ToolCall(Caller("anna"), entry, {"a": 1}, f"call-{name}", "chat", context)


def failing(error: Exception) -> Handler:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        raise error

    return handler


async def hanging(name: str, arguments: Json, context: CallContext) -> Json:
    await anyio.sleep_forever()
    return {}


async def test_the_raw_result_comes_back_and_the_call_is_recorded() -> None:
    records: list[CallRecord] = []
    result = await ToolRunner(records.append).run(call_of(Source("one", ["t"])))
    assert result == text_result("t {'a': 1}")
    assert [(r.outcome, r.call.id, r.call.caller.name) for r in records] == [
        ("ok", "call-t", "anna")
    ]


async def test_the_source_is_called_by_its_own_name_for_the_tool() -> None:
    source = Source("one", ["a.b"])
    await ToolRunner().run(call_of(source, "a_b"))
    assert source.calls == ["a.b"]


async def test_what_a_tool_calls_an_error_is_a_result_and_recorded_as_error() -> None:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        return text_result("no", is_error=True)

    records: list[CallRecord] = []
    result = await ToolRunner(records.append).run(call_of(Source("one", ["t"], handler)))
    assert result["isError"] is True
    assert records[0].outcome == "error"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (SourceUnavailable("one", "not connected"), "source_unavailable"),
        (OutcomeUnknown("one", "broke"), "outcome_unknown"),
        (SourceTimeout("one", "slow"), "source_timeout"),
    ],
)
async def test_what_a_source_raises_passes_and_is_recorded(
    error: SourceError, outcome: str
) -> None:
    records: list[CallRecord] = []
    with pytest.raises(type(error)):
        await ToolRunner(records.append).run(call_of(Source("one", ["t"], failing(error))))
    assert records[0].outcome == outcome


async def test_a_source_that_breaks_its_promise_fails_its_own_call_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records: list[CallRecord] = []
    with pytest.raises(SourceError, match="t failed unexpectedly: KeyError"):
        await ToolRunner(records.append).run(call_of(Source("one", ["t"], failing(KeyError("x")))))
    assert records[0].outcome == "source_error"
    assert "source one failed" in caplog.text


async def test_a_cancelled_call_is_recorded_too() -> None:
    records: list[CallRecord] = []
    with anyio.move_on_after(0):
        await ToolRunner(records.append).run(call_of(Source("one", ["t"], hanging)))
    assert records[0].outcome == "cancelled"


async def test_a_call_ends_with_the_time_of_the_request() -> None:
    with pytest.raises(SourceTimeout, match="t was stopped"):
        await ToolRunner().run(call_of(Source("one", ["t"], hanging), seconds=0.01))


async def test_a_timer_that_goes_off_a_little_early_has_kept_the_deadline() -> None:
    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        await anyio.sleep(context.deadline - time.monotonic() - 0.002)
        raise SourceTimeout("one", "no answer within an hour")

    with pytest.raises(SourceTimeout, match="t was stopped"):
        await ToolRunner().run(call_of(Source("one", ["t"], handler), seconds=0.2))


async def test_a_call_for_which_no_time_is_left_is_not_made() -> None:
    source = Source("one", ["t"])
    with pytest.raises(SourceUnavailable, match="t was not called"):
        await ToolRunner().run(call_of(source, seconds=0))
    assert source.calls == []


async def test_a_call_whose_turn_never_comes_was_not_made() -> None:
    source = Source("one", ["t", "u"], hanging, parallel=False)
    runner = ToolRunner()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run, call_of(source, "t"))
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(SourceUnavailable, match="u was not called"):
                await runner.run(call_of(source, "u", seconds=0.01))
            tasks.cancel_scope.cancel()
    assert source.calls == ["t"]


@pytest.mark.parametrize(("parallel", "together"), [(True, 3), (False, 1)])
async def test_calls_overlap_unless_the_source_takes_one_at_a_time(
    parallel: bool, together: int
) -> None:
    running, most = 0, 0

    async def handler(name: str, arguments: Json, context: CallContext) -> Json:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.wait_all_tasks_blocked()
        running -= 1
        return {}

    source = Source("one", ["a", "b", "c"], handler, parallel=parallel)
    runner = ToolRunner()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(runner.run, call_of(source, name))
    assert most == together
    assert source.calls == ["a", "b", "c"]
