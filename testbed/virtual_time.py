"""An event loop whose clock jumps to the next timer instead of waiting.

`asyncio.sleep`, timeouts and TaskGroups work as ever; only nothing waits. Executor calls run at once, so how fast the
machine computes never changes a result. There are no sockets and no subprocesses in virtual time.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualDeadlock(RuntimeError):
    """Every task waits and no timer is set: virtual time has nowhere to go."""


class _TimerClock:
    """Stands where a selector would: instead of waiting for sockets, moves the loop's clock to the next timer."""

    def __init__(self, loop: "VirtualTimeLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise VirtualDeadlock(self._loop.describe_deadlock())
        if timeout > 0:
            self._loop.jump_to_next_timer()
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Virtual time starts at 0 and moves only when every task waits.

    Raises VirtualDeadlock out of `run_until_complete` when every task waits and no timer is set.
    """

    # Filled by BaseEventLoop: the heap of pending timers, soonest first.
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = _TimerClock(self)

    def time(self) -> float:
        return self._now_s

    def jump_to_next_timer(self) -> None:
        # Set to the very value, not added up: a sum may miss it by a rounding error.
        self._now_s = max(self._now_s, self._scheduled[0].when())
        # BaseEventLoop fires timers before now + resolution: the smallest step that a float at `now` can make, so
        # that timers due now fire and no others. A fixed one would round away far from 0 and fire none.
        self._clock_resolution = math.ulp(self._now_s)

    def describe_deadlock(self) -> str:
        waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
        named = ", ".join(waiting[:8]) + (", ..." if len(waiting) > 8 else "")
        return f"nothing left to happen at {self._now_s:.3f} s of virtual time, while these tasks wait: {named}"

    def run_in_executor(  # type: ignore[override]
        self,
        executor: Any,  # noqa: ARG002 - nothing is to run elsewhere
        func: Callable[..., T],
        *args: Any,
    ) -> asyncio.Future[T]:
        """Run `func` now, in the loop's own thread: it takes no virtual time. `executor` is not used."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    # The rest is what BaseEventLoop asks of a subclass.

    def _process_events(self, event_list: list[Any]) -> None:
        """No sockets, no events."""

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""
