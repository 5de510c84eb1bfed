"""The configuration is read again when it changes, and when somebody asks."""

import json
import os
import pathlib
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

from mcp_bridge.config.load import Loaded, load
from mcp_bridge.config.substitute import digest
from mcp_bridge.config.watch import File, Watcher, stamp_of
from mcp_bridge.errors import ConfigError

Outcome = Loaded | ConfigError


class Outcomes:
    """What a running watcher has found, in order."""

    def __init__(self, watcher: Watcher, stream: MemoryObjectReceiveStream[Outcome]) -> None:
        self.watcher = watcher
        self._stream = stream

    async def next(self) -> Outcome:
        with anyio.fail_after(20):
            return await self._stream.receive()

    async def port(self) -> int:
        outcome = await self.next()
        assert isinstance(outcome, Loaded)
        return outcome.settings.network.port

    async def none_before_asking(self) -> None:
        """Asking gives the next outcome: nothing was reported before it."""
        self.watcher.reload()
        await self.next()
        with pytest.raises(anyio.WouldBlock):
            self._stream.receive_nowait()


@asynccontextmanager
async def watching(file: pathlib.Path) -> AsyncGenerator[Outcomes]:
    send, receive = anyio.create_memory_object_stream[Outcome](10)
    watcher = Watcher(load(str(file), {}), lambda: load(str(file), {}), every=0.01)
    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run, send.send, send.send)
        yield Outcomes(watcher, receive)
        tasks.cancel_scope.cancel()


def port(number: int | str) -> str:
    return json.dumps({"network": {"port": number}})


def write(file: pathlib.Path, text: str) -> None:
    file.write_text(text)


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    file = tmp_path / "config.json"
    file.write_text(port(1))
    return file


async def test_a_changed_file_is_read_again(file: pathlib.Path) -> None:
    async with watching(file) as outcomes:
        write(file, port(2))
        assert await outcomes.port() == 2
        write(file, port(3))
        assert await outcomes.port() == 3


async def test_what_changed_between_loading_and_watching_is_found(file: pathlib.Path) -> None:
    send, receive = anyio.create_memory_object_stream[Outcome](10)
    loaded = load(str(file), {})
    write(file, port(2))
    watcher = Watcher(loaded, lambda: load(str(file), {}), every=0.01)
    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run, send.send, send.send)
        assert await Outcomes(watcher, receive).port() == 2
        tasks.cancel_scope.cancel()


async def test_a_file_that_an_editor_replaces_is_read_again(file: pathlib.Path) -> None:
    async with watching(file) as outcomes:
        for number in (2, 3):
            fresh = file.with_suffix(".tmp")
            write(fresh, port(number))
            fresh.replace(file)
            assert await outcomes.port() == number


async def test_a_file_that_is_away_for_a_moment_is_waited_for(file: pathlib.Path) -> None:
    async with watching(file) as outcomes:
        os.unlink(file)
        outcomes.watcher.reload()
        assert isinstance(await outcomes.next(), ConfigError)  # for asking, and nothing before it
        write(file, port(2))
        assert await outcomes.port() == 2


async def test_a_swapped_symlink_is_followed_as_kubernetes_swaps_it(tmp_path: pathlib.Path) -> None:
    for number in (1, 2, 3):
        version = tmp_path / f"..v{number}"
        version.mkdir()
        (version / "config.json").write_text(port(number))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "config.json").symlink_to("..data/config.json")
    async with watching(tmp_path / "config.json") as outcomes:
        for number in (2, 3):
            (tmp_path / "..fresh").symlink_to(f"..v{number}")
            os.replace(tmp_path / "..fresh", tmp_path / "..data")
            assert await outcomes.port() == number


async def test_a_link_into_another_folder_is_watched_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    real, link = tmp_path / "there" / "real.json", tmp_path / "here" / "config.json"
    write(real, port(1))
    link.symlink_to(real)
    async with watching(link) as outcomes:
        write(real, port(2))
        assert await outcomes.port() == 2


async def test_a_file_that_cannot_be_used_is_reported_and_watched_on(file: pathlib.Path) -> None:
    async with watching(file) as outcomes:
        write(file, port("x"))
        refused = await outcomes.next()
        assert isinstance(refused, ConfigError)
        assert "network.port: expected a whole number" in refused.message
        write(file, port(2))
        assert await outcomes.port() == 2


async def test_asking_reads_again_although_nothing_changed(file: pathlib.Path) -> None:
    async with watching(file) as outcomes:
        outcomes.watcher.reload()
        assert await outcomes.port() == 1


async def test_a_configuration_that_cannot_be_read_to_its_end_keeps_nobody_from_ending(
    file: pathlib.Path,
) -> None:
    loaded, reading, ended = load(str(file), {}), threading.Event(), threading.Event()

    def hang() -> Loaded:
        reading.set()
        ended.wait(20)
        return loaded

    async def nothing(outcome: Outcome) -> None:
        pass

    watcher = Watcher(loaded, hang)
    try:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watcher.run, nothing, nothing)
                watcher.reload()
                await anyio.to_thread.run_sync(reading.wait)
                tasks.cancel_scope.cancel()
    finally:
        ended.set()


async def test_the_same_content_and_other_files_are_no_change(file: pathlib.Path) -> None:
    async with watching(file) as outcomes:
        write(file, port(1))
        write(file.with_name("other.json"), port(9))
        os.utime(file)
        await outcomes.none_before_asking()


async def test_a_new_secret_in_a_file_is_a_change(file: pathlib.Path) -> None:
    secret = file.with_name("port")
    write(secret, "5\n")
    write(file, port(f"${{file:{secret}}}"))
    async with watching(file) as outcomes:
        write(secret, "6\n")
        assert await outcomes.port() == 6


async def test_the_file_of_a_secret_that_was_missing_may_come_later(
    file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "token"
    entry = {"command": "x", "env": {"T": f"${{file:{secret}}}"}}
    write(file, json.dumps({"mcp_servers": {"a": entry}}))
    async with watching(file) as outcomes:
        write(secret, "t")
        outcome = await outcomes.next()
    assert isinstance(outcome, Loaded)
    assert outcome.settings.mcp_servers["a"].problem is None


async def test_files_that_only_the_new_configuration_names_are_watched(
    file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "port"
    write(secret, "5")
    async with watching(file) as outcomes:
        write(file, port(f"${{file:{secret}}}"))
        assert await outcomes.port() == 5
        write(secret, "6")
        assert await outcomes.port() == 6


async def test_without_any_file_asking_still_works(tmp_path: pathlib.Path) -> None:
    send, receive = anyio.create_memory_object_stream[Outcome](10)
    environ = {"MCP_BRIDGE__CONFIG__JSON": port(4)}
    nowhere = str(tmp_path / "gone" / "config.json")
    watcher = Watcher(
        Loaded(load(environ=environ).settings, digests={pathlib.Path(nowhere): None}),
        lambda: load(environ=environ),
    )
    async with send, receive, anyio.create_task_group() as tasks:
        tasks.start_soon(watcher.run, send.send, send.send)
        watcher.reload()
        assert await Outcomes(watcher, receive).port() == 4
        tasks.cancel_scope.cancel()


def test_each_link_of_a_chain_may_lead_elsewhere(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "real").write_text(name)
    (tmp_path / "b" / "x").symlink_to("../c/real")
    (tmp_path / "a" / "x").symlink_to(tmp_path / "b" / "x")
    file = File(tmp_path / "a" / "x", digest(b"c"))
    assert not file.has_changed()
    (tmp_path / "b" / "x").unlink()
    (tmp_path / "b" / "x").symlink_to("real")
    assert file.has_changed()
    (tmp_path / "a" / "x").unlink()
    (tmp_path / "a" / "x").symlink_to("real")
    assert file.has_changed()
    assert not file.has_changed()


class Counted(type(pathlib.Path())):  # type: ignore[misc]  # the path of this system
    """A path that counts how often its file is read."""

    reads = 0

    def read_bytes(self) -> bytes:
        Counted.reads += 1
        return pathlib.Path(self).read_bytes()


def test_a_file_is_read_only_when_it_looks_different_or_is_fresh(file: pathlib.Path) -> None:
    watched = File(Counted(file), digest(file.read_bytes()))
    Counted.reads = 0

    def reads() -> int:
        assert not watched.has_changed()
        return Counted.reads

    assert [reads(), reads()] == [1, 2]  # it may be written again within the same tick
    os.utime(file, (1, 1))
    assert [reads(), reads()] == [3, 3]
    write(file.with_name("log"), "something happened\n")
    assert reads() == 3


def test_a_file_is_read_now_and_then_although_it_looks_the_same(file: pathlib.Path) -> None:
    """As it does on a mount that does not ask the server."""
    watched = File(file, digest(b"before"), stamp_of(file.stat()))
    assert not watched.has_changed()
    assert watched.has_changed(read=True)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "a\0b", "/dev/null", "."])
def test_what_is_no_file_has_not_changed(path: str) -> None:
    assert not File(pathlib.Path(path), "before").has_changed(read=True)
