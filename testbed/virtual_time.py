"""An event loop whose clock jumps to the next timer instead of waiting.

`asyncio.sleep`, timeouts and TaskGroups work as ever; only nothing waits. Executor calls run at once, so how fast the
machine computes never changes a result. There are no sockets and no subprocesses in virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualDeadlock(RuntimeError):
    """Every task waits and no timer is set: virtual time has nowhere to go."""


class _Timer(asyncio.TimerHandle):
    """A TimerHandle that is made in one go: a run sets several for every request."""

    __slots__ = ()

    _scheduled: bool  # while it is, the loop hears of its being cancelled

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Virtual time starts at 0 and moves only when every task waits. Timers of one moment run in the order in which
    they were set.

    Raises VirtualDeadlock out of `run_until_complete` when every task waits and no timer is set.
    """

    # Filled by BaseEventLoop: what is to run now.
    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        # Soonest first. Tuples, numbered in the order set: compared without a call of Python.
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timers_set = 0
        self._cancelled_timers = 0

    def time(self) -> float:
        return self._now_s

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        self._timers_set += 1
        heappush(self._timers, (when, self._timers_set, timer))
        return timer

    def _run_once(self) -> None:
        """One turn of the loop, which BaseEventLoop takes until it is stopped: run what is ready, in order; when
        nothing is, go to the time of the next timer and run all that are due then."""
        ready = self._ready
        if not ready and not self._stopping:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
        if not timers:
            raise VirtualDeadlock(self._describe_deadlock())
        # A timer set for a moment that has passed is due now; one that is set meanwhile, in the next turn.
        now_s = self._now_s = max(self._now_s, timers[0][0])
        last = self._timers_set
        while timers and timers[0][0] <= now_s and timers[0][1] <= last:
            timer = heappop(timers)[2]
            if not timer._cancelled:
                timer._scheduled = False
                timer._run()
            timers = self._timers  # a new list, if the cancelled ones were dropped

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

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes, or with all the others when they are the most."""
        if not handle._scheduled:  # type: ignore[attr-defined]
            return
        self._cancelled_timers += 1
        if self._cancelled_timers > 1000 and 2 * self._cancelled_timers > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled()]
            heapify(self._timers)
            self._cancelled_timers = 0

    def _write_to_self(self) -> None:
        """Nothing sleeps that would have to be woken."""
