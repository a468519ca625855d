"""The run's clock: the running event loop's time, counted from the start of the run."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

from mypy_extensions import mypyc_attr


@mypyc_attr(allow_interpreted_subclasses=True)
class RunClock:
    """Seconds since the start of the run, in the event loop's clock, virtual or real.

    Must be made inside a running loop. `start` sets time 0; before it, time 0 is when the clock was made. In real time
    the loop's own time is the same in every process of the machine.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._origin_s = self._time()

    def start(self, at_loop_s: float | None = None) -> None:
        """Make this moment time 0, or `at_loop_s` of the loop's own time, which may lie ahead."""
        self._origin_s = self._loop.time() if at_loop_s is None else at_loop_s

    def now_s(self) -> float:
        return self._time() - self._origin_s

    def loop_time(self, at_s: float) -> float:
        """The loop's own time at `at_s` of the run, what `loop.call_at` wants: there `now_s()` is `at_s` or more."""
        when_s = self._origin_s + at_s
        while when_s - self._origin_s < at_s:  # the sum was rounded down
            when_s = math.nextafter(when_s, math.inf)
        return when_s

    def sleep_until(self, at_s: float) -> Coroutine[Any, Any, None]:
        """Return at `at_s`, or at once when it has passed."""
        return self.first_of(at_s, self._loop.create_future())

    async def first_of(self, at_s: float, woken: asyncio.Future[None]) -> None:
        """Return at `at_s`, which may be infinite, or once `woken` is done; at once when `at_s` has passed."""
        if at_s <= self.now_s():
            return
        if at_s == math.inf:
            await woken
            return
        # Not asyncio.sleep: a delay added to now would miss the time by a rounding error.
        timer = self._loop.call_at(self.loop_time(at_s), _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
