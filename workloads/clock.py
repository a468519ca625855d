"""The run's clock: the running event loop's time, counted from the start of the run."""

import asyncio


class RunClock:
    """Seconds since the start of the run, in the event loop's clock, virtual or real.

    Must be made inside a running loop. `start` sets time 0; before it, time 0 is when the clock was made.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._origin_s = self._loop.time()

    def start(self) -> None:
        """Make this moment time 0."""
        self._origin_s = self._loop.time()

    def now_s(self) -> float:
        return self._loop.time() - self._origin_s

    def loop_time(self, at_s: float) -> float:
        """The loop's own time at `at_s` of the run: what `loop.call_at` wants."""
        return self._origin_s + at_s

    async def sleep_until(self, at_s: float) -> None:
        """Return at `at_s`, or at once when it has passed."""
        if at_s <= self.now_s():
            return
        # Not asyncio.sleep: a delay added to now would miss the time by a rounding error.
        woken = self._loop.create_future()
        timer = self._loop.call_at(self._origin_s + at_s, _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
