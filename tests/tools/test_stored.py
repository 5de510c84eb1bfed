"""Cut results and how the rest of them is read (L20)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_bridge.tools.arguments import read
from mcp_bridge.tools.source import CallContext
from mcp_bridge.tools.stored import READ, ResultCopy, StoredResults, boundary
from mcp_bridge.types import Caller, Json

ANNA, BERT = Caller("anna"), Caller("bert")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def call(stored: StoredResults, caller: Caller, **arguments: object) -> Json:
    return await stored.call(READ, arguments, CallContext(caller))


def text_of(result: Json) -> str:
    return str(result["content"][0]["text"])


async def test_a_kept_text_is_read_page_by_page_to_its_end() -> None:
    stored = StoredResults(page=4, ttl=60)
    id = stored.keep(ANNA, "0123456789", cap=10)
    assert text_of(await call(stored, ANNA, id=id)) == (
        "0123\n\n[characters 0 to 4 of 10; go on with offset 4]"
    )
    assert text_of(await call(stored, ANNA, id=id, offset=8)) == (
        "89\n\n[characters 8 to 10 of 10; this is the end]"
    )


@pytest.mark.parametrize(("page", "cap", "shown"), [(0, 3, 3), (100, 3, 3), (3, 100, 3)])
async def test_a_page_is_as_long_as_the_smaller_of_both_caps(
    page: int, cap: int, shown: int
) -> None:
    stored = StoredResults(page=page, ttl=60)
    id = stored.keep(ANNA, "x" * 1000, cap=cap)
    assert text_of(await call(stored, ANNA, id=id)).startswith("x" * shown + "\n\n[")


@pytest.mark.parametrize("offset", [10, 11, 10**30])
async def test_an_offset_beyond_the_end_says_how_long_the_text_is(offset: int) -> None:
    stored = StoredResults(page=4, ttl=60)
    result = await call(stored, ANNA, id=stored.keep(ANNA, "0123456789", cap=4), offset=offset)
    assert result["isError"] is True
    assert "has 10 characters" in text_of(result)


@pytest.mark.parametrize("offset", [None, -3, 2.0, "x", True])
async def test_any_offset_that_a_model_writes_is_answered(offset: object) -> None:
    stored = StoredResults(page=4, ttl=60)
    result = await call(stored, ANNA, id=stored.keep(ANNA, "0123456789", cap=4), offset=offset)
    assert "isError" not in result


async def test_only_the_caller_it_was_cut_for_can_read_a_result() -> None:
    stored = StoredResults(page=4, ttl=60)
    id = stored.keep(ANNA, "secret", cap=4)
    refused = await call(stored, BERT, id=id)
    assert refused["isError"] is True
    assert "secret" not in text_of(refused)
    assert refused == await call(stored, BERT, id="no-such-id")


def test_ids_cannot_be_guessed() -> None:
    stored = StoredResults(page=4, ttl=60)
    ids = {stored.keep(ANNA, "x", cap=1) for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[0-9a-f]{16}", id) for id in ids)


async def test_a_result_is_gone_when_its_time_is_over() -> None:
    clock = Clock()
    stored = StoredResults(page=4, ttl=60, clock=clock)
    id = stored.keep(ANNA, "text", cap=2)
    clock.now = 59
    assert "isError" not in await call(stored, ANNA, id=id)
    clock.now = 60
    assert (await call(stored, ANNA, id=id))["isError"] is True


async def test_the_oldest_results_make_room_and_the_newest_always_stays() -> None:
    stored = StoredResults(page=4, ttl=60, most_bytes=10_000)
    first = stored.keep(ANNA, "a" * 6_000, cap=4)
    second = stored.keep(ANNA, "b" * 6_000, cap=4)
    assert (await call(stored, ANNA, id=first))["isError"] is True
    assert text_of(await call(stored, ANNA, id=second)).startswith("bbbb")
    huge = stored.keep(ANNA, "ü" * 20_000, cap=4)
    assert text_of(await call(stored, ANNA, id=huge)).startswith("üüüü")
    assert (await call(stored, ANNA, id=second))["isError"] is True


def test_the_tool_takes_what_its_definition_says() -> None:
    (tool,) = StoredResults(page=4, ttl=60).tools
    assert read('{"id": "a", "offset": "12"}', tool) == {"id": "a", "offset": 12}


@pytest.mark.parametrize(
    ("text", "at", "place"),
    [
        ("abcdef", 3, 3),
        ("abc", 10, 3),
        ("abc", 0, 0),
        ("ab\r\ncd", 3, 2),
        ("a\n\nb", 2, 2),
        ("xe\u0301y", 2, 1),
        ("x👍🏽y", 2, 1),
        ("x👩\u200d💻y", 2, 1),
        ("x👩\u200d💻y", 3, 1),
        ("a" + "\u0301" * 100, 50, 50),
    ],
)
def test_a_text_is_not_cut_inside_what_is_read_as_one_character(
    text: str, at: int, place: int
) -> None:
    assert boundary(text, at) == place


@given(st.text(alphabet="a\r\n\u0301\u200d👍🏽", min_size=1, max_size=60), st.integers(1, 20))
async def test_pages_put_together_are_the_whole_text(text: str, page: int) -> None:
    stored = StoredResults(page=page, ttl=60)
    id = stored.keep(ANNA, text, cap=page)
    read, offset = "", 0
    while offset < len(text):
        said = text_of(await call(stored, ANNA, id=id, offset=offset))
        body, _, notice = said.rpartition("\n\n[")
        read += body
        numbers = re.findall(r"\d+", notice)
        assert int(numbers[0]) == offset
        assert int(numbers[1]) > offset
        offset = int(numbers[1])
    assert read == text


async def test_a_text_is_read_in_another_process_that_was_given_a_copy() -> None:
    told: list[ResultCopy] = []
    here, there = StoredResults(4, 60, tell=told.append), StoredResults(100, 60)
    id = here.keep(ANNA, "0123456789", cap=10)
    for copy in told:
        there.put(copy)
    assert await call(there, ANNA, id=id) == await call(here, ANNA, id=id)
    assert (await call(there, BERT, id=id))["isError"] is True


async def test_copies_live_as_long_as_they_say_and_count_once() -> None:
    clock = Clock()
    here, there = StoredResults(4, 60, clock), StoredResults(4, 60, clock, most_bytes=200)
    id = here.keep(ANNA, "0" * 100, cap=10)
    clock.now = 40
    for copy in [*here.copies()] * 3:
        there.put(copy)
    assert "isError" not in await call(there, ANNA, id=id)
    clock.now = 61
    assert (await call(there, ANNA, id=id))["isError"] is True
