"""The real-time loop: a clock that never stands still, timers on time and never early."""

import asyncio
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from workloads.clock import RunClock
from workloads.real_time_loop import RealTimeLoop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=RealTimeLoop) as runner:
        return runner.run(coroutine)


def test_a_timer_is_never_early_and_mostly_within_a_fraction_of_a_millisecond() -> None:
    async def lateness() -> list[float]:
        clock = RunClock()
        late_s = []
        for due_s in np.cumsum(np.random.default_rng(1).uniform(0.0005, 0.006, 100)).tolist():
            await clock.sleep_until(due_s)
            late_s.append(clock.now_s() - due_s)
        return late_s

    late_s = run(lateness())
    assert min(late_s) >= 0.0
    assert np.median(late_s) < 0.001


def test_timers_fire_in_order_of_time_then_of_making_and_cancelled_ones_never() -> None:
    async def fired() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        at_s = loop.time() + 0.02
        loop.call_at(at_s + 0.01, order.append, "third")
        loop.call_at(at_s, order.append, "first")
        loop.call_at(at_s, order.append, "second")
        loop.call_at(at_s, order.append, "cancelled").cancel()
        loop.call_later(-1.0, order.append, "overdue")
        await asyncio.sleep(0.05)
        return order

    assert run(fired()) == ["overdue", "first", "second", "third"]


def cancel(timers: list[asyncio.TimerHandle]) -> None:
    for timer in timers:
        timer.cancel()


def test_a_timer_may_cancel_another_that_is_due_at_the_same_moment() -> None:
    async def fired() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        at_s = loop.time() + 0.01
        victims: list[asyncio.TimerHandle] = []
        loop.call_at(at_s, cancel, victims)
        victims.append(loop.call_at(at_s, order.append, "victim"))
        await asyncio.sleep(0.03)
        return order

    assert run(fired()) == []


def test_time_goes_on_within_one_turn_of_the_loop() -> None:
    async def two_readings() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        np.sort(np.random.default_rng(1).random(100_000))
        return before_s, loop.time()

    before_s, after_s = run(two_readings())
    assert after_s > before_s


def test_the_clock_is_that_of_another_process_too() -> None:
    program = "from workloads.real_time_loop import RealTimeLoop; print(repr(RealTimeLoop().time()))"

    async def now_s() -> float:
        return asyncio.get_running_loop().time()

    before_s = run(now_s())
    theirs_s = float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert before_s < theirs_s < run(now_s())


def test_thirty_thousand_timeouts_that_never_expire_leave_nothing_behind() -> None:
    async def timers_left() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, RealTimeLoop)
        for _ in range(30_000):
            loop.call_later(600.0, print).cancel()
        return len(loop._timers)

    assert run(timers_left()) < 5_000


def test_a_timeout_ends_what_it_bounds() -> None:
    async def waited_s() -> float:
        clock = RunClock()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await asyncio.sleep(5.0)
        return clock.now_s()

    assert 0.02 <= run(waited_s()) < 1.0
