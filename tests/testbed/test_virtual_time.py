"""The event loop whose clock jumps."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from testbed.virtual_time import VirtualDeadlock, VirtualTimeLoop


def in_virtual_time(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


def test_a_year_of_sleep_takes_no_time_and_lands_on_the_second() -> None:
    async def sleep() -> float:
        await asyncio.sleep(365 * 86400.0)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(sleep()) == 365 * 86400.0


def test_timers_fire_in_the_order_of_their_times() -> None:
    order: list[int] = []

    async def at(delay_s: float, mark: int) -> None:
        await asyncio.sleep(delay_s)
        order.append(mark)

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            for mark in (3, 1, 2):
                tasks.create_task(at(float(mark), mark))

    in_virtual_time(run())
    assert order == [1, 2, 3]


def test_a_timeout_and_a_sleep_share_the_clock() -> None:
    async def run() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(run()) == 5.0


def test_waiting_for_nothing_is_said_instead_of_hanging() -> None:
    async def run() -> None:
        await asyncio.Event().wait()

    with pytest.raises(VirtualDeadlock, match=r"nothing left to happen at 0\.000 s"):
        in_virtual_time(run())


def test_an_executor_call_runs_at_once_and_takes_no_virtual_time() -> None:
    async def run() -> tuple[int, float]:
        total = await asyncio.to_thread(sum, range(100_000))
        return total, asyncio.get_running_loop().time()

    assert in_virtual_time(run()) == (4999950000, 0.0)


def test_an_error_in_an_executor_call_is_raised_where_it_is_awaited() -> None:
    async def run() -> None:
        await asyncio.get_running_loop().run_in_executor(None, int, "seven")

    with pytest.raises(ValueError, match="seven"):
        in_virtual_time(run())


def test_timers_of_one_moment_run_in_the_order_in_which_they_were_set_and_what_they_set_comes_after() -> None:
    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        def first() -> None:
            order.append("first")
            loop.call_soon(order.append, "soon")
            loop.call_at(5.0, order.append, "set meanwhile")
            cancelled.cancel()

        loop.call_at(5.0, first)
        loop.call_at(5.0, order.append, "second")
        cancelled = loop.call_at(5.0, order.append, "cancelled")
        loop.call_at(5.0, order.append, "third")
        await asyncio.sleep(6.0)
        return order

    assert in_virtual_time(run()) == ["first", "second", "third", "soon", "set meanwhile"]


def test_timers_that_are_cancelled_are_forgotten_and_the_others_are_not() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        fired: list[int] = []
        for number in range(10_000):
            timer = loop.call_at(1.0 + number, fired.append, number)
            if number % 10:
                timer.cancel()
        assert len(loop._agenda) < 3_000
        await asyncio.sleep(20_000.0)
        assert fired == list(range(0, 10_000, 10))
        return len(loop._agenda)

    assert in_virtual_time(run()) <= 1


def test_a_timer_of_a_moment_that_has_passed_waits_for_those_that_were_due_before_it() -> None:
    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        loop.call_at(5.0, loop.call_at, 1.0, order.append, "set late")
        loop.call_at(5.0, order.append, "due")
        await asyncio.sleep(6.0)
        return order

    assert in_virtual_time(run()) == ["due", "set late"]


def test_cancelled_timers_whose_time_has_come_count_no_more() -> None:
    async def run() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        for number in range(100):
            loop.call_at(1.0 + number, print).cancel()
        await asyncio.sleep(200.0)
        return loop._agenda.cancelled

    assert in_virtual_time(run()) == 0
