"""How running tools are shown to those who asked for it (DESIGN 3.18, L12)."""

import json

import pytest

from mcp_bridge.agent.events import ToolFinished, ToolProgress, ToolStarted
from mcp_bridge.agent.progress import Display, ToolEvent
from mcp_bridge.agent.reply import Reply
from mcp_bridge.config.settings import Progress
from mcp_bridge.types import Json

STARTED = ToolStarted("c1", "search", {"q": "ü", "n": 2**70})
FINISHED = ToolFinished("c1", "search", {"q": "ü"}, "two\n  lines", False, 1.26)
FAILED = ToolFinished("c1", "search", {}, "Error: no", True, 0)


def progress(
    value: float = 1, total: float | None = None, message: str | None = None
) -> ToolProgress:
    return ToolProgress("c1", "search", value, total, message)


def shown(event: ToolEvent, mode: Progress) -> list[Json]:
    """What is shown of an event of the only tool that runs."""
    display = Display(mode)
    if not isinstance(event, ToolStarted):
        display.show(STARTED)
    return display.show(event)


def text(event: ToolEvent) -> str:
    (chunk,) = shown(event, "reasoning")
    return str(chunk["choices"][0]["delta"]["reasoning_content"])


def test_nothing_is_shown_unless_asked_for() -> None:
    for event in (STARTED, progress(), FINISHED):
        assert shown(event, "off") == []


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (STARTED, f'→ search({{"q":"ü","n":{2**70}}})\n'),
        (progress(), "  search: 1\n"),
        (progress(0.5, 2), "  search: 0.5 of 2\n"),
        (progress(3_000_000, 5_000_000, "rows"), "  search: 3000000 of 5000000 rows\n"),
        (progress(1, None, "two\nlines"), "  search: 1 two lines\n"),
        (FINISHED, "✓ search (1.3 s): two lines\n"),
        (FAILED, "✗ search (0.0 s): Error: no\n"),
    ],
)
def test_in_reasoning_each_event_is_one_line(event: ToolEvent, line: str) -> None:
    assert text(event) == line


@pytest.mark.parametrize("long", ["x" * 10_000_000, "word " * 1000, " " * 5000 + "x"])
def test_a_long_text_is_shown_in_part(long: str) -> None:
    for event in (
        ToolStarted("c1", "search", {"q": long}),
        progress(message=long),
        ToolFinished("c1", "search", {}, long, False, 1),
    ):
        assert len(text(event)) < 600
        assert "…" in text(event)


def test_open_webui_gets_a_status_and_then_the_call_with_its_output() -> None:
    (started,) = shown(STARTED, "openwebui")
    assert started["event"]["data"] == {"description": "Calling search …", "done": False}
    (half,) = shown(progress(1, 2), "openwebui")
    assert half["event"]["data"] == {"description": "search: 1 of 2", "done": False}
    call, output, done = shown(FINISHED, "openwebui")
    assert call["item"] == {
        "type": "function_call",
        "id": "fc_c1",
        "call_id": "c1",
        "name": "search",
        "arguments": '{"q":"ü"}',
        "status": "completed",
    }
    assert output["item"] == {
        "type": "function_call_output",
        "id": "fco_c1",
        "call_id": "c1",
        "status": "completed",
        "output": [{"type": "input_text", "text": "two\n  lines"}],
    }
    assert {call["type"], output["type"]} == {"response.output_item.added"}
    assert done["event"]["data"] == {
        "description": "search is done",
        "done": True,
        "hidden": True,
    }


def test_a_failed_call_is_red_on_both_sides() -> None:
    call, output, _ = shown(FAILED, "openwebui")
    assert call["item"]["status"] == output["item"]["status"] == "failed"


def test_the_status_line_names_a_tool_that_still_runs() -> None:
    display = Display("openwebui")
    display.show(ToolStarted("c1", "first", {}))
    display.show(ToolStarted("c2", "second", {}))
    *_, then = display.show(ToolFinished("c2", "second", {}, "found", False, 0))
    assert then["event"]["data"] == {"description": "Calling first …", "done": False}
    *_, last = display.show(ToolFinished("c1", "first", {}, "found", False, 0))
    assert last["event"]["data"]["hidden"]


def test_beside_calls_of_the_client_all_calls_come_before_all_outputs() -> None:
    display = Display("openwebui", mixed=True)
    for id in ("c1", "c2"):
        display.show(ToolStarted(id, "search", {}))
    for id in ("c2", "c1"):
        chunks = display.show(ToolFinished(id, "search", {}, "found", False, 0))
        assert ["event" in chunk for chunk in chunks] == [True]
    items = [(chunk["item"]["type"], chunk["item"]["call_id"]) for chunk in display.end()]
    assert items == [
        ("function_call", "c2"),
        ("function_call", "c1"),
        ("function_call_output", "c2"),
        ("function_call_output", "c1"),
    ]
    assert display.end() == []


def test_a_pause_without_a_running_tool_shows_nothing() -> None:
    display = Display("openwebui")
    assert display.pause() == display.go_on() == []


def test_every_chunk_is_one_that_other_clients_can_read() -> None:
    reply = Reply("m", frozenset())
    chunks: list[Json] = []
    for event in (STARTED, progress(), FINISHED, FAILED):
        chunks += [reply.dress(chunk) for chunk in shown(event, "openwebui")]
    for chunk in chunks:
        json.dumps(chunk)
        assert chunk["object"] == "chat.completion.chunk"
        (choice,) = chunk["choices"]
        assert (choice["index"], choice["finish_reason"]) == (0, None)
        assert choice["delta"].keys() <= {"role"}
    assert ["role" in c["choices"][0]["delta"] for c in chunks].count(True) == 1
