"""The benchmark measures what it says: its servers answer rightly, and its load sees when not."""

import json
import math
import os
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httptools
import pytest

from benchmarks.client import COUNT as CALLS
from benchmarks.client import SOCKET, STDIO, WARM
from benchmarks.client import carry_out as carry_out_calls
from benchmarks.doors import served
from benchmarks.inference import Answers, serve
from benchmarks.instructions import CASES, figures, table_of, totals
from benchmarks.load import Measured, Plan, Spread, carry_out, problem_of
from benchmarks.measure import Cell, best, plan_for
from benchmarks.processes import cpu_of, rss_of
from benchmarks.profiling import read
from benchmarks.report import Table, ratio, shown
from benchmarks.scenarios import BY_NAME, ECHOED, IDLE, TABLE, TOKEN, Scenario
from benchmarks.servers.least import BareApp
from benchmarks.soak import soak_tables
from benchmarks.targets import Target
from benchmarks.verdict import Held, Note, Weight, left_behind, verdict
from tests.servers.web import serving

CALLING = [scenario for scenario in TABLE if scenario.calls]


@asynccontextmanager
async def inference() -> AsyncGenerator[Target]:
    server = await serve(0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Target("direct", f"http://127.0.0.1:{port}/v1")


async def load(target: Target, scenario: Scenario, **more: Any) -> Measured:
    plan = replace(plan_for(target, scenario, users=2, count=4), patience=10, **more)
    return await carry_out(plan)


async def test_every_scenario_is_answered_through_the_least_that_bridges_tools() -> None:
    async with inference() as direct, serving(BareApp(direct.url, count=2)) as site:
        bare = Target("bare", f"http://127.0.0.1:{site.port}/v1")
        for scenario in TABLE:
            measured = await load(bare, scenario)
            assert measured.problems == []
            assert measured.answers == 4


async def test_latency_and_the_first_chunk_are_measured() -> None:
    async with inference() as direct:
        measured = await load(direct, BY_NAME["streamed"])
    assert 0 < measured.first.p50 <= measured.latency.p50 <= measured.latency.longest
    assert measured.per_second > 0


@pytest.mark.parametrize("scenario", CALLING, ids=lambda scenario: scenario.name)
async def test_tools_that_are_not_offered_are_an_error(scenario: Scenario) -> None:
    async with inference() as direct:
        measured = await load(direct, scenario)
    assert measured.errors == 4
    assert "was not offered" in measured.problems[0]


async def test_an_answer_with_another_text_is_an_error() -> None:
    async with inference() as direct:
        measured = await load(direct, BY_NAME["streamed"], tokens=21)
    assert measured.errors == 4
    assert measured.problems[0] == "20 words instead of 21"


async def test_a_server_that_is_not_there_is_an_error() -> None:
    measured = await load(Target("nobody", "http://127.0.0.1:9/v1"), BY_NAME["whole"])
    assert measured.answers == 0
    assert measured.errors == 2


async def test_streams_are_held_until_they_are_let_go() -> None:
    seen: list[Measured] = []

    async def hold(measured: Measured) -> None:
        seen.append(measured)

    async with inference() as direct:
        with anyio.fail_after(5):
            plan = plan_for(direct, IDLE, users=3, count=3)
            await carry_out(plan, hold)
    assert len(seen) == 1
    assert seen[0].problems == []


PLAN = Plan("", 0, "", {}, "", users=1, count=1, stream=True, tokens=2)
CHUNK = b'data: {"choices": [{"delta": {"content": "%b"}, "finish_reason": null}]}\n\n'
WORD = CHUNK % TOKEN.encode()
LAST = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (WORD + WORD + LAST + DONE, None),
        (WORD + WORD + LAST, "the stream has no [DONE] at its end"),
        (WORD + LAST + DONE, "1 words instead of 2"),
        (WORD + WORD + DONE, "its finish reasons are []"),
        (WORD + WORD + LAST + LAST + DONE, "its finish reasons are ['stop', 'stop']"),
        (WORD + CHUNK % b"a word " + LAST + DONE, "its text is another"),
        (WORD + b'data: {"error": {}}\n\n' + DONE, "an error"),
    ],
)
def test_a_stream_is_checked(body: bytes, problem: str | None) -> None:
    assert problem_of(body, PLAN, closely=True) == problem


@pytest.mark.parametrize("stream", [True, False])
def test_a_bridge_may_give_the_tools_names_of_its_own(stream: bool) -> None:
    body = {"model": "one-call", "stream": stream, "tools": [{"name": "mine-a_echo"}]}
    answer = Answers().find(b"one-call", json.dumps(body).encode())
    assert b'"mine-a_echo"' in b"".join(answer.writes)
    assert whole_http(b"".join(answer.writes)).endswith((b"[DONE]\n\n", b"}"))


def whole_http(raw: bytes) -> bytes:
    """The body of an HTTP answer, whose lengths must be right."""
    ended: list[bool] = []
    body: list[bytes] = []

    class Reader:
        def on_body(self, data: bytes) -> None:
            body.append(data)

        def on_message_complete(self) -> None:
            ended.append(True)

    httptools.HttpResponseParser(Reader()).feed_data(raw)
    assert ended == [True]
    return b"".join(body)


def test_results_that_are_missing_are_an_error() -> None:
    answers = Answers()
    right = b'{"tool_call_id": "call_0", "content": "%b hello"}' % ECHOED.encode()
    wrong = b'{"tool_call_id": "call_0", "content": "hello"}'
    assert TOKEN.encode() in answers.find(b"one-call", right).writes[0]
    assert b"400 Bad Request" in answers.find(b"one-call", wrong).writes[0]


def test_the_best_of_all_slices_counts_and_every_error() -> None:
    quick, slow = Spread(1, 5, 9), Spread(2, 4, 10)
    slices = [Cell(2, 10, quick), Cell(1, 9, slow, errors=1, problems=("a",))]
    found = best(slices)
    assert (found.cpu_ms, found.per_second) == (1, 10)
    assert found.latency == Spread(1, 4, 9)
    assert (found.errors, found.problems) == (1, ("a",))


def test_the_cpu_of_a_process_is_known() -> None:
    before, ours = cpu_of(os.getpid()), time.process_time()
    sum(number for number in range(200_000))
    expected = time.process_time() - ours
    assert 0 < expected <= cpu_of(os.getpid()) - before
    assert rss_of(os.getpid()) > 1


def test_samples_are_charged_to_the_innermost_function_of_the_bridge() -> None:
    main = "_run_module_as_main (<frozen runpy>:198)"
    loop = "Runner.run (/usr/lib/python3.11/asyncio/runners.py:118)"
    ours = "answer (/x/site-packages/mcp_bridge/api/chat.py:10)"
    theirs = "send (/x/site-packages/aiohttp/client.py:20)"
    lines = [
        f"{main};{loop};{ours};{theirs} 3",
        f"{main};{loop};{theirs} 1",
        f"{main};{loop} 100",
        f"Thread._bootstrap (/usr/lib/python3.11/threading.py:1);{theirs} 100",
    ]
    found = read(lines)
    assert found.total == 4
    assert found.charged == {"answer (mcp_bridge/api/chat.py)": 3, "send (aiohttp/client.py)": 1}
    assert found.packages == {"aiohttp": 4}


def test_instructions_are_read_from_what_callgrind_leaves(tmp_path: Path) -> None:
    text = "desc: Timerange: 1\ndesc: Trigger: dump burst\nsummary: 0\ntotals: 1234\n"
    (tmp_path / "callgrind.out.7.1").write_text(text)
    (tmp_path / "callgrind.out.7").write_text("desc: Trigger: Program termination\ntotals: 5\n")
    assert totals(tmp_path) == {"burst": 1234}


def test_instructions_are_told_for_one_answer_and_one_chunk() -> None:
    direct = {"direct-whole": 10_000, "direct-streamed": 20_000, "direct-burst": 30_000}
    found = {**dict.fromkeys(CASES, 20_000), "streamed": 40_000, "burst": 1_850_000, **direct}
    assert math.isnan(figures(found)[-1])  # the yardstick has no such door
    found["door"] = 50_000
    row = dict(zip(CASES, figures(found), strict=False))
    assert (row["whole"], row["streamed"], row["burst"]) == (1, 2, 182)
    assert figures(found)[-2:] == [1, 4]
    table = table_of({"fastapi": found, "mcp_bridge": found})
    assert table.rows[-1][1][0] == "1.00 x"


def test_a_table_is_markdown_or_text() -> None:
    table = Table("Figures", ["one", "two"], notes="Notes.")
    table.add("row", (0.1234, None))
    assert table.markdown().splitlines()[-3:] == [
        "|  | one | two |",
        "| --- | --- | --- |",
        "| row | 0.123 | - |",
    ]
    assert table.text().splitlines() == ["Figures", "Notes.", "       one  two", "row  0.123    -"]


def test_figures_have_the_digits_that_mean_something() -> None:
    assert [shown(value) for value in (0.5, 1.234, 12.345, 1234.5, 7, "x")] == [
        "0.500",
        "1.23",
        "12.3",
        "1,234",
        "7",
        "x",
    ]
    assert ratio(3, 2) == "1.50 x"
    assert ratio(3, 0) is None


# The soak


def test_every_answer_of_a_soak_is_right_while_servers_die(tmp_path: Path) -> None:
    problems: list[str] = []
    minutes, happened, judged = soak_tables(tmp_path, 2 / 60, problems)
    assert dict(judged.rows)["wrong answers"][0] == 0, problems
    assert dict(happened.rows)["an MCP server is killed in mid-call"] == [1]
    assert len(minutes.rows) == 10
    in_use = [float(str(figures[1])) for _, figures in minutes.rows]
    assert all(20 < mib < 200 for mib in in_use)


def notes(rss: Sequence[float], p50: Sequence[float]) -> list[Note]:
    """A soak whose memory and latency went like this, and all else stayed."""
    held = [Held(60.0 * (n + 1), mib, 30, 6, 4) for n, mib in enumerate(rss)]
    spreads = [Spread(ms, ms, ms) for ms in p50]
    return [
        Note(h, 60, 100, 0, 1.0, s, Spread(1, 1, 1)) for h, s in zip(held, spreads, strict=True)
    ]


def weights(left: float, noise: float = 0) -> list[Weight]:
    """What is in use while each answer leaves so many bytes; `noise` is what is under way."""
    dice = random.Random(1)
    answers = range(0, 300_000, 2_500)
    return [Weight(n, int(60e6 + left * n + dice.gauss(0, noise)), 20) for n in answers]


FLAT = [90, 100, 100.2, 100.1, 100, 100.2, 100.1, 100, 100.2, 100.1]
BUSY = 400_000
"""Bytes by which what is under way differs from moment to moment."""


@pytest.mark.parametrize(
    ("rss", "p50", "weighed", "missed"),
    [
        (FLAT, [2.0] * 10, weights(0, BUSY), []),
        (FLAT, [2.0] * 10, weights(10.24, BUSY), ["bytes in use"]),
        ([90, *range(100, 109)], [2.0] * 10, weights(0), ["memory, last"]),
        ([90, 95, 100, *[105.1] * 7], [2.0] * 10, weights(0), ["memory, last"]),
        (FLAT, [1, 2, 2, 2, 2, 2, 2, 3, 3, 3], weights(0), ["p50"]),
    ],
    ids=["flat", "leaks into holes", "grows", "jumps", "slows"],
)
def test_a_soak_is_judged_by_what_grows(
    rss: list[float], p50: list[float], weighed: list[Weight], missed: list[str]
) -> None:
    judged = verdict(notes(rss, p50), weighed, wrong=0)
    found = [each.what for each in judged if not each.met]
    assert len(found) == len(missed)
    assert all(what.startswith(words) for what, words in zip(found, missed, strict=True))


def test_busy_moments_are_no_leak() -> None:
    weighed = weights(0)
    calm, busy = weighed[:90], [Weight(w.answers, w.in_use + 2**23, 200) for w in weighed[90:]]
    assert left_behind([*calm, *busy]).met
    assert not left_behind([*calm, *[replace(each, under_way=20) for each in busy]]).met


def test_a_soak_with_a_wrong_answer_has_failed() -> None:
    judged = verdict(notes(FLAT, [2.0] * 10), weights(0), wrong=1)
    assert [each.what for each in judged if not each.met] == ["wrong answers"]


# Doors


@pytest.mark.parametrize("transport", [SOCKET, STDIO])
async def test_a_tool_is_called_over_what_the_sdk_has_and_has_not(transport: str) -> None:
    with ExitStack() as stack:
        way, _, _ = await anyio.to_thread.run_sync(served, stack, transport)
        took = await carry_out_calls(way)
    assert took.calls == CALLS + WARM
    assert took.per_second > 0
    assert (took.child_cpu > 0) == (transport == STDIO)
