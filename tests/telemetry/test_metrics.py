"""Metrics: what is counted, and that nobody outside can make the counters grow without end."""

import os

import pytest

from mcp_bridge.telemetry.metrics import MOST_MODELS, MOST_TOOLS, Metrics, Processes
from tests.telemetry.pages import read, value

# Conversations and tools


def test_a_conversation_is_counted_with_its_end_its_rounds_and_its_tokens() -> None:
    metrics = Metrics()
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    metrics.conversation("ann", "m", "stop", rounds=3, usage=usage)
    metrics.conversation("ann", "m", "length", stopped="max_rounds", rounds=20)

    counted = read(metrics, "mcp_bridge_conversations_total")
    assert ({"caller": "ann", "model": "m", "finish_reason": "stop", "stopped": ""}, 1) in counted
    assert value(metrics, "mcp_bridge_conversations_total", stopped="max_rounds") == 1
    assert value(metrics, "mcp_bridge_conversation_rounds_sum") == 23
    kinds = {found["kind"]: n for found, n in read(metrics, "mcp_bridge_tokens_total")}
    assert kinds == {"prompt": 100, "completion": 20, "cached": 64, "reasoning": 7}


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"prompt_tokens": None, "completion_tokens": "5"},
        {"prompt_tokens": -4, "prompt_tokens_details": None, "completion_tokens_details": [1]},
        {"prompt_tokens_details": {"cached_tokens": {}}},
    ],
)
def test_usage_that_makes_no_sense_counts_nothing(usage: dict[str, object] | None) -> None:
    metrics = Metrics()
    metrics.conversation("ann", "m", "stop", rounds=1, usage=usage)
    assert read(metrics, "mcp_bridge_tokens_total") == []


def test_a_tool_call_is_counted_by_server_tool_and_outcome() -> None:
    metrics = Metrics()
    metrics.tool_call("files", "read", "ok", 0.2)
    metrics.tool_call("files", "read", "source_timeout", 60)
    assert value(metrics, "mcp_bridge_tool_calls_total", server="files", tool="read") == 2
    assert value(metrics, "mcp_bridge_tool_calls_total", outcome="source_timeout") == 1
    assert value(metrics, "mcp_bridge_tool_call_seconds_sum", tool="read") == pytest.approx(60.2)


def test_what_is_counted_between_two_pages_is_added_to_what_was_counted() -> None:
    metrics = Metrics()
    for seconds in (0.01, 0.011, 0.2, 900, 901):  # a bound is part of its bucket
        metrics.tool_call("files", "read", "ok", seconds)
    first = read(metrics, "mcp_bridge_tool_call_seconds_bucket")
    metrics.tool_call("files", "read", "ok", 1000)
    second = read(metrics, "mcp_bridge_tool_call_seconds_bucket")

    assert {labels["le"]: n for labels, n in first} == {
        "0.01": 1, "0.05": 2, "0.2": 3, "1.0": 3, "5.0": 3, "15.0": 3, "60.0": 3, "300.0": 3,
        "900.0": 4, "+Inf": 5,
    }  # fmt: skip
    assert [after - before for (_, before), (_, after) in zip(first, second, strict=True)] == (
        [0] * 9 + [1]
    )
    assert value(metrics, "mcp_bridge_tool_call_seconds_count") == 6
    assert value(metrics, "mcp_bridge_tool_call_seconds_sum") == pytest.approx(2801.221)
    assert value(metrics, "mcp_bridge_tool_calls_total") == 6


def test_names_beyond_the_bound_are_counted_together() -> None:
    metrics = Metrics()
    for number in range(MOST_MODELS + 50):
        metrics.conversation("ann", f"m{number}", "stop", rounds=1)
    for number in range(MOST_TOOLS + 50):
        metrics.tool_call("rotating", f"t{number}", "ok", 0)
    metrics.tool_call("rotating", "t0", "ok", 0)  # a known one keeps its name

    assert len(read(metrics, "mcp_bridge_conversations_total")) == MOST_MODELS + 1
    assert value(metrics, "mcp_bridge_conversations_total", model="other") == 50
    assert len(read(metrics, "mcp_bridge_tool_calls_total")) == MOST_TOOLS + 1
    assert value(metrics, "mcp_bridge_tool_calls_total", server="other", tool="other") == 50
    assert value(metrics, "mcp_bridge_tool_calls_total", tool="t0") == 2


def test_names_with_quotes_and_line_breaks_do_not_break_the_page() -> None:
    metrics = Metrics()
    strange = 'a"b\\c\nd{}'
    metrics.tool_call(strange, strange, "ok", 0)
    ((labels, _),) = read(metrics, "mcp_bridge_tool_calls_total")
    assert labels["tool"] == strange


# MCP servers


def test_servers_are_shown_as_they_are_now() -> None:
    metrics = Metrics()
    metrics.page({"gone": "connected"})
    states = {"files": "connected", "web": "failed"}
    assert read(metrics, "mcp_bridge_mcp_server_connected", states) == [
        ({"server": "files"}, 1),
        ({"server": "web"}, 0),
    ]
    assert read(metrics, "mcp_bridge_mcp_server_state", states) == [
        ({"server": "files", "state": "connected"}, 1),
        ({"server": "web", "state": "failed"}, 1),
    ]


def test_two_applications_do_not_count_together() -> None:
    one, other = Metrics(), Metrics()
    one.tool_call("files", "read", "ok", 0)
    assert read(other, "mcp_bridge_tool_calls_total") == []


# Processes


def test_processes_are_shown_as_one() -> None:
    def shown(pids: list[int]) -> dict[str, float]:
        return {
            metric.name: metric.samples[0].value for metric in Processes(lambda: pids).collect()
        }

    one, two = shown([os.getpid()]), shown([os.getpid(), os.getpid()])
    assert two["process_start_time_seconds"] == one["process_start_time_seconds"]
    assert two["process_open_fds"] >= 2 * one["process_open_fds"] - 2
    assert shown([2**22 + 1]) == {}, "a process that has just ended"
