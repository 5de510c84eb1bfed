"""A time limit that costs next to nothing goes together with the scopes around it."""

import math
import time

import anyio
import anyio.lowlevel
import pytest

from mcp_bridge.clock import Clock, Clocks


async def test_what_takes_too_long_is_ended_and_the_code_behind_runs() -> None:
    clock = Clock()
    with anyio.fail_after(5):
        with clock:
            clock.deadline = time.monotonic() + 0.01
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()  # nothing of it is left


async def test_a_deadline_that_is_set_before_counts_from_when_it_is_entered() -> None:
    clock = Clock()
    clock.deadline = time.monotonic()
    with anyio.fail_after(5):
        with clock:
            await anyio.sleep_forever()


async def test_what_ends_in_time_is_left_alone() -> None:
    clock = Clock()
    with clock:
        clock.deadline = time.monotonic() + 0.01
        clock.deadline = math.inf
    await anyio.sleep(0.02)
    with pytest.raises(ValueError, match="mine"), Clock():
        raise ValueError("mine")


async def test_it_can_be_ended_from_inside_and_from_another_task() -> None:
    clock = Clock()
    with anyio.fail_after(5):
        with clock:
            clock.cancel()
            await anyio.sleep_forever()
        other = Clock()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancelling, other)
            with other:
                await anyio.sleep_forever()


async def cancelling(clock: Clock) -> None:
    clock.cancel()


async def test_one_that_has_been_left_ends_nothing_any_more() -> None:
    clock = Clock()
    with clock:
        clock.cancel()
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()


async def test_a_cancellation_from_outside_passes_through() -> None:
    reached = False
    with anyio.move_on_after(0.01) as scope:
        with Clock():
            await anyio.sleep_forever()
        reached = True
    assert scope.cancelled_caught
    assert not reached


async def test_when_both_end_it_the_outer_one_wins() -> None:
    reached = False
    with anyio.CancelScope() as scope:
        clock = Clock()
        with clock:
            clock.cancel()
            scope.cancel()
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        reached = True
    assert scope.cancelled_caught
    assert not reached
    await anyio.lowlevel.checkpoint()


async def test_a_scope_inside_of_it_is_ended_with_it() -> None:
    clock = Clock()
    with anyio.fail_after(5):
        with clock:
            clock.deadline = time.monotonic() + 0.01
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                await anyio.sleep_forever()


async def test_clocks_that_share_a_timer_end_in_the_order_of_their_deadlines() -> None:
    clocks, now, ended = Clocks(), time.monotonic(), list[str]()

    async def wait(name: str, deadline: float) -> None:
        with Clock(clocks, deadline):
            await anyio.sleep_forever()
        ended.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "last", now + 0.03)
            tasks.start_soon(wait, "first", now + 0.01)
            tasks.start_soon(wait, "second", now + 0.02)
    assert ended == ["first", "second", "last"]


async def test_one_that_is_left_in_time_keeps_no_other_from_its_end() -> None:
    clocks, now = Clocks(), time.monotonic()
    with anyio.fail_after(5):
        with Clock(clocks, now + 0.01):
            pass
        with Clock(clocks, now + 0.02):
            await anyio.sleep_forever()


async def test_a_deadline_can_be_put_off_and_brought_forward() -> None:
    clock, was_put_off = Clock(Clocks(), time.monotonic() + 0.01), False
    with anyio.fail_after(5):
        with clock:
            clock.deadline = time.monotonic() + 60
            await anyio.sleep(0.02)
            was_put_off = True
            clock.deadline = time.monotonic()
            await anyio.sleep_forever()
    assert was_put_off
