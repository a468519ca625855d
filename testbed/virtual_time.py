"""An event loop whose clock jumps to the next timer instead of waiting.

`asyncio.sleep`, timeouts and TaskGroups work as ever; only nothing waits. Executor calls run at once, so how fast the
machine computes never changes a result. There are no sockets and no subprocesses in virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from heapq import heapify, heappop
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualDeadlock(RuntimeError):
    """Every task waits and no timer is set: virtual time has nowhere to go."""


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Virtual time starts at 0 and moves only when every task waits.

    Raises VirtualDeadlock out of `run_until_complete` when every task waits and no timer is set.
    """

    # Filled by BaseEventLoop: what is to run now, and the heap of pending timers, soonest first.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._cancelled_timers = 0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        """One turn of the loop, which BaseEventLoop takes until it is stopped: run what is ready, in order; when
        nothing is, go to the time of the next timer and make ready all that are due then."""
        ready = self._ready
        if not ready and not self._stopping:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _jump(self) -> None:
        timers = self._scheduled
        while timers and timers[0].cancelled():
            heappop(timers)._scheduled = False  # type: ignore[attr-defined]
        if not timers:
            raise VirtualDeadlock(self._describe_deadlock())
        self._now_s = max(self._now_s, timers[0].when())
        while timers and timers[0].when() <= self._now_s:
            timer = heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)

    def _describe_deadlock(self) -> str:
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

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:  # noqa: ARG002 - the hook's signature
        """A cancelled timer is dropped when its time comes, or with all the others when they are the most."""
        self._cancelled_timers += 1
        if self._cancelled_timers > 1000 and 2 * self._cancelled_timers > len(self._scheduled):
            self._scheduled[:] = [timer for timer in self._scheduled if not timer.cancelled()]
            heapify(self._scheduled)
            self._cancelled_timers = 0

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""
