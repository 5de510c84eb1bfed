"""The life of a connection: eras, lists, timeouts, repairs, and how it explains itself."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_bridge.config.settings import McpServer
from mcp_bridge.errors import OutcomeUnknown, SourceError, SourceTimeout, SourceUnavailable
from mcp_bridge.mcp_client.connection import Connection, translated, wait_before
from mcp_bridge.tools.source import CallContext, ToolSource
from mcp_bridge.types import Json
from tests.fakes import closed_port
from tests.mcp_client.running import PATIENCE, children, entries, logged, running, scripted, text


def names(connection: Connection) -> list[str]:
    return [tool.name for tool in connection.tools]


async def test_a_connection_is_a_tool_source() -> None:
    async with running(scripted()) as watch:
        source: ToolSource = watch.connection
        assert source.name == "x"
        assert source.parallel is True
        assert "echo" in [tool.name for tool in source.tools]
        assert watch.connection.instructions == "Be scripted."
        assert watch.changes == ["tools", "state"]


# Eras.


@pytest.mark.parametrize("behaviour", ["exit-on-unknown", "ignore-unknown", "no-version"])
async def test_servers_that_cannot_take_a_probe_are_spoken_to_the_old_way(behaviour: str) -> None:
    async with running(scripted(behaviour, startup_timeout=3)) as watch:
        assert watch.connection.protocol_version == "2025-11-25"
        assert text(await watch.call("echo", text="hi")) == "hi"


async def test_what_the_probe_found_is_remembered(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted("exit-on-unknown", log=log)) as watch:
        with pytest.raises(OutcomeUnknown):
            await watch.call("die")
        assert text(await watch.call("echo", text="again")) == "again"
    probes = [e for e in entries(log) if e.get("method") == "server/discover"]
    assert len(probes) == 1


async def test_legacy_skips_the_probe(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted(log=log, protocol="legacy")) as watch:
        assert watch.connection.state == "connected"
    assert "server/discover" not in [e.get("method") for e in entries(log)]


async def test_an_unknown_protocol_version_is_accepted_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(scripted("strange-version")) as watch:
        assert watch.connection.protocol_version == "2030-01-01"
    assert "unknown protocol version 2030-01-01" in caplog.text


@pytest.mark.parametrize(
    ("protocol", "expected"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")]
)
async def test_a_real_server_answers_in_both_eras(protocol: str, expected: str) -> None:
    settings = McpServer.model_validate(
        {"command": sys.executable, "args": ["-m", "mcp_server_time"], "protocol": protocol}
    )
    async with running(settings) as watch:
        assert watch.connection.protocol_version == expected
        assert "get_current_time" in names(watch.connection)
        result = await watch.call("get_current_time", timezone="Europe/Berlin")
        assert json.loads(text(result))["timezone"] == "Europe/Berlin"


# Lists.


async def test_a_bad_tool_is_repaired_or_skipped_and_the_others_stay() -> None:
    async with running(scripted("bad-tools")) as watch:
        tools = {tool.name: tool.definition for tool in watch.connection.tools}
        skipped = watch.connection.status()["skipped_tools"]
    assert tools["no_schema"]["inputSchema"] == {"type": "object"}
    assert tools["null_schema"]["inputSchema"] == {"type": "object"}
    assert tools["odd"]["annotations"] == 7
    assert tools["echo"]["x-vendor"] == {"kept": True}
    assert [entry["name"] for entry in skipped[-2:]] == ["echo", "list_schema"]
    assert all(entry["name"].startswith("#") for entry in skipped[:-2])  # what has no name
    assert len(skipped) == 4


async def test_all_pages_are_listed() -> None:
    async with running(scripted()) as whole, running(scripted("paged")) as paged:
        assert names(paged.connection) == names(whole.connection)


async def test_an_endless_cursor_ends_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with running(scripted("endless-cursor")) as watch:
        assert "echo" in names(watch.connection)
    assert "repeats a cursor" in caplog.text


async def test_a_server_whose_tools_cannot_be_listed_is_not_connected() -> None:
    async with running(scripted("broken-list")) as watch:
        assert watch.connection.state == "failed"
        assert "database is locked" in watch.connection.status()["error"]


async def test_a_change_is_fetched_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with running(scripted()) as watch:
        watch.changes.clear()
        await watch.call("grow", names=["one", "two"])
        await watch.until(lambda c: "two" in names(c))
        assert watch.changes == ["tools"]
        await watch.call("announce", method="notifications/tools/list_changed")
        await watch.call("grow", names=["three"])
        await watch.until(lambda c: "three" in names(c))
        assert watch.changes == ["tools", "tools"]
    assert "tools: added one, two" in caplog.text


async def test_include_and_exclude_choose_tools(caplog: pytest.LogCaptureFixture) -> None:
    settings = scripted(include=["e*", "big", "typo*"], exclude=["error_*"])
    async with running(settings) as watch:
        assert names(watch.connection) == ["echo", "big", "environment"]
    assert '"include" pattern typo* matches no tool' in caplog.text


async def test_prompts_and_resources_are_listed_when_the_server_has_them() -> None:
    async with running(scripted("prompts")) as watch:
        connection = watch.connection
        assert connection.prompts == ({"name": "hello", "x-vendor": 1},)
        assert [r["uri"] for r in connection.resources] == ["file:///a"]
        assert connection.resource_templates == ()
        prompt = await connection.request("prompts/get", {"name": "hello"}, CallContext())
        assert prompt["x-name"] == "hello"


async def test_subscriptions_are_renewed_after_a_reconnect(tmp_path: Path) -> None:
    log = tmp_path / "log"
    heard: list[tuple[str, Json]] = []
    async with running(scripted("prompts", log=log)) as watch:
        connection = watch.connection
        stop = connection.subscribe_notifications(
            lambda method, params: heard.append((method, params))
        )
        await connection.request("resources/subscribe", {"uri": "file:///a"}, CallContext())
        since = time.time()
        with pytest.raises(OutcomeUnknown):
            await watch.call("die")
        await watch.until_connected_again(since)
        updated = {"method": "notifications/resources/updated", "params": {"uri": "file:///a"}}
        await watch.call("announce", **updated)
        stop()
        await watch.call("announce", **updated)
    assert heard == [("notifications/resources/updated", {"uri": "file:///a"})]
    asked = [e["params"]["uri"] for e in entries(log) if e.get("method") == "resources/subscribe"]
    assert asked == ["file:///a", "file:///a"]


# Calls.


async def test_a_call_that_takes_too_long_is_cancelled_and_the_next_one_works(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    async with running(scripted(log=log)) as watch:
        with pytest.raises(SourceTimeout, match=r"within 0\.2 s"):
            await watch.call("hang", CallContext(timeout=0.2))
        asked = await logged(log, lambda e: e.get("method") == "tools/call")
        notice = await logged(log, lambda e: e.get("method") == "notifications/cancelled")
        assert notice["params"]["requestId"] == asked["id"]
        assert text(await watch.call("echo", text="next")) == "next"


async def test_what_ended_a_request_is_told_when_it_was_its_own_deadline() -> None:
    async with running(scripted(timeout=60, max_timeout=600)) as watch:
        context = CallContext(deadline=time.monotonic() + 0.2)
        hang = {"name": "hang", "arguments": {}}
        with pytest.raises(SourceTimeout, match="in the time that was left for the request;"):
            await watch.connection.request("tools/call", hang, context)


async def test_a_timeout_can_be_set_for_one_tool() -> None:
    async with running(scripted(tools={"hang": {"timeout": 0.2}})) as watch:
        with pytest.raises(SourceTimeout):
            await watch.call("hang")


async def test_progress_starts_the_timeout_again_and_is_passed_on_in_order() -> None:
    seen: list[tuple[float, float | None, str | None]] = []
    context = CallContext(timeout=0.6, on_progress=lambda *told: seen.append(told))
    async with running(scripted()) as watch:
        assert text(await watch.call("slow", context, steps=6, pause=0.2)) == "done"
    assert seen == [(float(n), None, f"step {n}") for n in range(1, 7)]


async def test_progress_cannot_go_on_for_ever() -> None:
    async with running(scripted(timeout=0.6, max_timeout=1)) as watch:
        with pytest.raises(SourceTimeout, match="within 1 s"):
            await watch.call("slow", steps=1000, pause=0.1)


async def test_leaving_a_call_cancels_it_and_harms_nobody(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted(log=log)) as watch:
        others: list[str] = []

        async def other() -> None:
            others.append(text(await watch.call("slow", steps=5, pause=0.1)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as mine:
                    mine.start_soon(watch.call, "hang")
                    await logged(log, lambda e: e.get("params", {}).get("name") == "hang")
                    scope.cancel()
            await logged(log, lambda e: e.get("method") == "notifications/cancelled")
        assert others == ["done"]
        assert watch.connection.state == "connected"


async def test_meta_is_sent_with_a_progress_token() -> None:
    async with running(scripted()) as watch:
        meta = json.loads(text(await watch.call("meta", CallContext(meta={"traceparent": "00-1"}))))
    assert meta["traceparent"] == "00-1"
    assert isinstance(meta["progressToken"], int)


async def test_log_messages_go_to_the_call_that_caused_them() -> None:
    logs: list[Json] = []
    async with running(scripted()) as watch:
        with pytest.raises(SourceTimeout):
            await watch.call("hang", CallContext(timeout=0.3, on_log=logs.append))
    assert logs == [{"level": "info", "data": "hanging"}]


# Repairs.


async def test_a_call_whose_outcome_is_unknown_is_not_repeated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted(log=log)) as watch:
        with pytest.raises(OutcomeUnknown, match="whether the call took effect is unknown"):
            await watch.call("die_once")
        await watch.call("echo", text="back")
    assert [e for e in entries(log) if e.get("executed") == "die_once"] == [
        {"executed": "die_once"}
    ]


async def test_a_call_that_may_be_repeated_is_repeated_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running(scripted(log=log)) as watch:
        assert text(await watch.call("read_and_die")) == "again"
    assert len([e for e in entries(log) if "executed" in e]) == 2


@pytest.mark.parametrize(
    ("tool", "expected"), [("set_and_die", OutcomeUnknown), ("read_and_die", SourceUnavailable)]
)
async def test_a_call_that_cannot_be_repeated_may_have_taken_effect_if_it_changes_things(
    tmp_path: Path, tool: str, expected: type[SourceError]
) -> None:
    program = tmp_path / "server"
    program.symlink_to(sys.executable)
    settings = scripted(log=tmp_path / "log").model_copy(update={"command": str(program)})
    async with running(settings) as watch:
        program.unlink()
        with pytest.raises(expected, match="x is not connected"):
            await watch.call(tool)
    assert len([e for e in entries(tmp_path / "log") if "executed" in e]) == 1


async def test_an_idle_server_that_dies_is_noticed_and_its_tools_stay() -> None:
    async with running(scripted()) as watch:
        before = names(watch.connection)
        since = time.time()
        os.kill(watch.connection.status()["pid"], signal.SIGKILL)
        await watch.until(lambda c: c.state == "degraded")
        assert names(watch.connection) == before
        assert "was killed by SIGKILL" in watch.connection.status()["error"]
        await watch.until_connected_again(since)
        assert watch.connection.status()["error"] is None


async def test_a_server_that_comes_later_is_found_on_demand(tmp_path: Path) -> None:
    program = tmp_path / "server"
    settings = scripted().model_copy(update={"command": str(program)})
    async with running(settings) as watch:
        assert watch.connection.state == "failed"
        program.symlink_to(sys.executable)
        watch.connection.reconnect()
        await watch.until(lambda c: c.state == "connected")


async def test_a_failed_server_answers_calls_with_its_reason() -> None:
    async with running(scripted("crash")) as watch:
        with pytest.raises(SourceUnavailable, match="out of luck"):
            await watch.call("echo")


async def test_a_server_that_hangs_in_initialize_is_given_up_and_stopped() -> None:
    before = children()
    async with running(scripted("hang-initialize", startup_timeout=0.5)) as watch:
        assert watch.connection.state == "failed"
        assert "within 0.5 s" in watch.connection.status()["error"]
    assert children() == before


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (McpServer(command="x", disabled=True), "disabled in the configuration"),
        (McpServer(command="x", problem="API_KEY is not set"), "API_KEY is not set"),
    ],
)
async def test_a_disabled_server_is_not_started(settings: McpServer, reason: str) -> None:
    async with running(settings) as watch:
        assert watch.connection.state == "disabled"
        with pytest.raises(SourceUnavailable, match=reason):
            await watch.call("echo")


async def test_a_websocket_that_is_refused_is_said_in_words() -> None:
    with closed_port() as port:
        async with running(McpServer(url=f"ws://127.0.0.1:{port}/")) as watch:
            assert watch.connection.status()["error"] == "connection refused"


@pytest.mark.parametrize("behaviour", ["hang-initialize", "crash", "slow", "prompts"])
async def test_it_can_be_cancelled_at_any_stage(behaviour: str) -> None:
    before = children()
    connection = Connection("x", scripted(behaviour))
    for delay in (0, 0.001, 0.01, 0.03, 0.1):
        with anyio.move_on_after(delay):
            await connection.run()
        assert children() == before


async def test_calls_that_wait_fail_when_the_connection_is_stopped(tmp_path: Path) -> None:
    log = tmp_path / "log"
    connection = Connection("x", scripted("hang-initialize", log=log))
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.run)
            await logged(log, lambda e: e.get("method") == "server/discover")
            tasks.cancel_scope.cancel()
        with pytest.raises(SourceUnavailable, match="stopped"):
            await connection.call("echo", {}, CallContext())


def test_the_backoff_grows_to_a_minute() -> None:
    waits = [wait_before(attempt) for attempt in range(1, 12)]
    assert 0.5 <= waits[0] <= 1
    assert 60 <= waits[-1] <= 60.5


def test_a_failure_of_the_system_becomes_a_source_error() -> None:
    assert isinstance(translated("x", OSError(24, "Too many open files")), SourceError)


def test_what_is_nobodys_error_stays_a_bug() -> None:
    bug: Any = KeyError("bug")
    assert translated("x", bug) is bug
