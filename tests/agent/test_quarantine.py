"""One bad tool schema does not break every request (P1)."""

from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.agent.quarantine import (
    MOST_QUESTIONS,
    Quarantine,
    may_be_a_tool,
    probe,
    takes_no_tools,
)
from mcp_bridge.errors import InferenceError
from mcp_bridge.types import Json


def tool(name: str, **schema: object) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def tools(count: int) -> list[Json]:
    return [tool(f"t{n}") for n in range(count)]


class Server:
    """An inference server that refuses every request with one of the `bad` tools."""

    def __init__(self, *bad: str, refuses_all: bool = False, most: int = 10**6) -> None:
        self.bad = set(bad)
        self.refuses_all = refuses_all
        self.most = most
        self.asked: list[list[str]] = []

    async def accepts(self, some: Sequence[Json]) -> bool:
        names = [each["function"]["name"] for each in some]
        self.asked.append(names)
        await anyio.lowlevel.checkpoint()
        return not self.refuses_all and not self.bad & set(names) and len(names) <= self.most


async def test_the_culprits_are_found_and_left_out_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    quarantine, server, offered = Quarantine(), Server("t3", "t77"), tools(100)
    assert quarantine.names("m", offered) == frozenset()
    assert await quarantine.find("m", offered, server.accepts)
    assert quarantine.names("m", offered) == {"t3", "t77"}
    assert "tool t3 is left out for model m" in caplog.text
    assert "t4" not in caplog.text


@given(st.sets(st.integers(0, 39), min_size=1, max_size=5), st.integers(1, 40))
async def test_whichever_tools_are_bad_exactly_those_are_found(bad: set[int], count: int) -> None:
    quarantine, offered = Quarantine(), tools(count)
    there = {f"t{n}" for n in bad if n < count}
    server = Server(*(f"t{n}" for n in bad))
    assert await quarantine.find("m", offered, server.accepts) == bool(there)
    assert quarantine.names("m", offered) == there


async def test_the_number_of_questions_is_bounded_and_the_request_is_answered_anyway() -> None:
    offered = tools(1000)
    server = Server(*(f"t{n}" for n in range(0, 1000, 3)))
    quarantine = Quarantine()
    assert await quarantine.find("m", offered, server.accepts)
    assert len(server.asked) <= MOST_QUESTIONS + 10
    left = [
        each for each in offered if each["function"]["name"] not in quarantine.names("m", offered)
    ]
    assert await server.accepts(left)


async def test_among_a_thousand_tools_half_a_dozen_culprits_are_found_exactly() -> None:
    bad = [f"t{n}" for n in (0, 170, 333, 510, 667, 999)]
    quarantine = Quarantine()
    assert await quarantine.find("m", tools(1000), Server(*bad).accepts)
    assert quarantine.names("m", tools(1000)) == set(bad)


async def test_tools_that_are_fine_cost_one_question_once() -> None:
    quarantine, server = Quarantine(), Server()
    for _ in range(3):
        assert not await quarantine.find("m", tools(10), server.accepts)
    assert len(server.asked) == 1
    assert not await quarantine.find("m", tools(11), server.accepts)
    assert len(server.asked) == 2


@pytest.mark.parametrize("server", [Server(refuses_all=True), Server("ping", "t1"), Server(most=6)])
async def test_a_server_that_refuses_something_else_leaves_every_tool_in(server: Server) -> None:
    quarantine = Quarantine()
    assert not await quarantine.find("m", tools(10), server.accepts)
    assert quarantine.names("m", tools(10)) == frozenset()


async def test_a_tool_is_refused_for_one_model_only() -> None:
    quarantine = Quarantine()
    await quarantine.find("m", tools(3), Server("t1").accepts)
    assert quarantine.names("other", tools(3)) == frozenset()


async def test_a_tool_whose_definition_changes_gets_a_new_chance() -> None:
    quarantine = Quarantine()
    await quarantine.find("m", tools(3), Server("t1").accepts)
    changed = [tool("t0"), tool("t1", type="object"), tool("t2")]
    assert quarantine.names("m", changed) == frozenset()
    await quarantine.find("m", changed, Server("t1").accepts)
    assert quarantine.names("m", changed) == {"t1"}
    assert quarantine.names("m", tools(3)) == {"t1"}


async def test_requests_that_fail_together_look_only_once() -> None:
    quarantine, server = Quarantine(), Server("t3")
    found: list[bool] = []

    async def look() -> None:
        found.append(await quarantine.find("m", tools(20), server.accepts))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(look)
    assert found == [True] * 10
    assert server.asked.count([f"t{n}" for n in range(20)]) == 1


async def test_who_leaves_while_looking_blocks_nobody() -> None:
    quarantine = Quarantine()

    async def never(some: Sequence[Json]) -> bool:
        await anyio.sleep_forever()
        return True

    with anyio.move_on_after(0.01):
        await quarantine.find("m", tools(3), never)
    with anyio.fail_after(5):
        assert await quarantine.find("m", tools(3), Server("t1").accepts)


def test_a_model_without_tools_is_asked_without_all_of_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    quarantine = Quarantine()
    quarantine.no_tools("m")
    quarantine.no_tools("m")
    assert quarantine.names("m", tools(2)) == {"t0", "t1"}
    assert quarantine.names("other", tools(2)) == frozenset()
    assert caplog.text.count("model m takes no tools") == 1


async def test_schemas_with_anything_in_them_can_be_told_apart() -> None:
    odd = [tool("a", maximum=2**80), tool("b", maximum=2**81)]
    quarantine = Quarantine()
    await quarantine.find("m", odd, Server("a").accepts)
    assert quarantine.names("m", odd) == {"a"}


@pytest.mark.parametrize(
    ("status", "message", "upstream", "may"),
    [
        (400, "JSON schema error at #: unrecognized type", None, True),
        (400, "Invalid schema for function 'f'", None, True),
        (422, "bad", {"error": {"param": "tools[0].function"}}, True),
        (500, "failed to parse grammar", None, True),
        (400, "the prompt is too long", {"error": {"message": "the prompt is too long"}}, False),
        (429, "too many tools at once", None, False),
        (401, "no tools for you", None, False),
        (404, "no such function", None, False),
        (503, "loading tools", None, False),
    ],
)
def test_only_some_errors_can_be_about_a_tool(
    status: int, message: str, upstream: Json | None, may: bool
) -> None:
    assert may_be_a_tool(InferenceError(message, status=status, upstream=upstream)) is may


def test_ollamas_words_for_a_model_without_tools_are_known() -> None:
    said = "registry.example/library/tiny does not support tools"
    assert takes_no_tools(InferenceError(said, status=400))
    assert not takes_no_tools(InferenceError("tools are fine", status=400))
    assert not takes_no_tools(InferenceError(said, status=404))


def test_a_probe_makes_the_server_compile_the_tools_and_write_one_token() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "long"}], "stream": True}
    assert probe(body, tools(1)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 1,
        "stream": False,
        "tools": tools(1),
    }
    assert "tools" not in probe(body, ())
    newer = probe({**body, "max_completion_tokens": 900}, ())
    assert newer["max_completion_tokens"] == 1
    assert "max_tokens" not in newer
