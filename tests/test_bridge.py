"""A running bridge follows its configuration (D4), and leaves nothing behind."""

import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_bridge.app import create_app
from mcp_bridge.bridge import Bridge, open_bridge
from mcp_bridge.config.load import load
from mcp_bridge.config.settings import Settings
from mcp_bridge.tools.runner import ToolCall
from mcp_bridge.types import ANYONE
from tests.api.bridged import scripted_server
from tests.mcp_client.running import PATIENCE, children, dead, logged
from tests.servers.web import serving

Json = dict[str, Any]


@asynccontextmanager
async def opened(*, grace: float = PATIENCE, **config: Any) -> AsyncGenerator[Bridge]:
    async with open_bridge(Settings.model_validate(config)) as bridge:
        with anyio.fail_after(grace):
            await bridge.settled(grace)
        yield bridge


async def until(bridge: Bridge, true: Any) -> None:
    """Wait for a change that makes it true."""
    changed = anyio.Event()
    stop = bridge.subscribe(lambda kind: changed.set())
    with anyio.fail_after(PATIENCE):
        while not true():
            await changed.wait()
            changed = anyio.Event()
    stop()


def names(bridge: Bridge) -> set[str]:
    return {entry.source.name for entry in bridge.catalog.entries}


async def test_a_reload_touches_only_what_has_changed() -> None:
    servers = {"kept": scripted_server(), "changed": scripted_server(), "gone": scripted_server()}
    async with opened(mcp_servers=servers) as bridge:
        before = dict(bridge.connections)
        pids = {name: c.status()["pid"] for name, c in before.items()}
        servers = {
            "kept": scripted_server(),
            "changed": scripted_server(include=["echo"]),
            "fresh": scripted_server(),
        }
        changes = bridge.apply(Settings.model_validate({"mcp_servers": servers}))
        assert (changes.added, changes.removed, changes.changed) == (
            ("fresh",),
            ("gone",),
            ("changed",),
        )
        await until(bridge, lambda: names(bridge) == {"kept", "changed", "fresh"})
        await until(bridge, lambda: bridge.connections["changed"] is not before["changed"])
        assert bridge.connections["kept"] is before["kept"]
        assert bridge.connections["kept"].status()["pid"] == pids["kept"]
        assert [t.name for t in bridge.connections["changed"].tools] == ["echo"]
        await dead(pids["gone"], pids["changed"])


async def test_a_call_in_flight_outlives_the_removal_of_its_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    servers = {"tools": scripted_server(log=log)}
    async with opened(mcp_servers=servers) as bridge:
        entry = bridge.catalog.find("slow")
        assert entry is not None
        result: Json = {}

        async def call() -> None:
            arguments = {"steps": 4, "pause": 0.1}
            result.update(await bridge.runner.run(ToolCall(ANYONE, entry, arguments, "1", "test")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await logged(log, lambda e: e.get("method") == "tools/call")
            bridge.apply(Settings())
            assert bridge.catalog.entries == ()
        assert result["content"][0]["text"] == "done"


async def test_other_rules_change_without_touching_a_server() -> None:
    servers = {"tools": scripted_server()}
    async with opened(mcp_servers=servers) as bridge:
        connection, inference = bridge.connections["tools"], bridge.inference
        keys = {"auth": {"enabled": True, "api_keys": [{"key": "long-enough-key"}]}}
        bridge.apply(Settings.model_validate({"mcp_servers": servers, "security": keys}))
        assert bridge.connections["tools"] is connection
        assert bridge.inference is inference
        assert bridge.settings.security.auth.enabled


async def test_servers_that_do_not_start_block_nothing() -> None:
    servers = {"slow": scripted_server("hang-initialize"), "missing": {"command": "no-such-thing"}}
    async with open_bridge(Settings.model_validate({"mcp_servers": servers})) as bridge:
        assert bridge.catalog.entries == ()
        await bridge.connections["missing"].settled()
        assert "no-such-thing" in bridge.connections["missing"].status()["error"]
        assert bridge.connections["slow"].state == "starting"


async def test_no_child_is_left_when_the_bridge_closes() -> None:
    before = children()
    servers = {f"s{n}": scripted_server() for n in range(3)}
    async with opened(mcp_servers=servers) as bridge:
        pids = [c.status()["pid"] for c in bridge.connections.values()]
        assert len(children() - before) >= 3
    await dead(*pids)
    assert children() - before == set()


async def test_equal_tool_names_are_reported_and_told_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    servers = {"one": scripted_server(), "two": scripted_server()}
    async with opened(mcp_servers=servers) as bridge:
        found = [e for e in bridge.catalog.entries if e.tool.name == "echo"]
        assert [(e.name, e.source.name) for e in found] == [("echo", "one"), ("two__echo", "two")]
    assert "tool name 'echo' is used by several servers: one, two" in caplog.text


@pytest.mark.parametrize("how", ["written", "SIGHUP", "symlink"])
async def test_a_changed_file_is_applied_and_a_broken_one_is_not(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.json"
    if how == "symlink":
        (tmp_path / "first").mkdir()
        (tmp_path / "data").symlink_to("first")
        file.symlink_to("data/config.json")

    def write(text: str) -> None:
        if how != "symlink":
            file.write_text(text)
            return
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "config.json").write_text(text)
        fresh = tmp_path / "fresh"
        fresh.symlink_to(folder.name)
        fresh.rename(tmp_path / "data")

    def written(*servers: str) -> str:
        return json.dumps({"mcp_servers": {name: scripted_server() for name in servers}})

    write(written("one"))
    app = create_app(load(str(file), {}), lambda: load(str(file), {}))
    async with serving(app):
        bridge: Bridge = app.state.bridge
        await until(bridge, lambda: names(bridge) == {"one"})
        write(written("one", "two"))
        if how == "SIGHUP":
            os.kill(os.getpid(), signal.SIGHUP)
        await until(bridge, lambda: names(bridge) == {"one", "two"})
        write('{"mcp_servers": {"one": {}}, "network": {"port": "x"}}')
        with anyio.fail_after(PATIENCE):
            while "the old one stays" not in caplog.text:  # noqa: ASYNC110  # only the log tells
                await anyio.sleep(0.02)
        assert "network.port" in caplog.text  # each mistake by its path
        assert names(bridge) == {"one", "two"}
