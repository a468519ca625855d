"""An event loop whose clock jumps to the next timer instead of waiting.

`asyncio.sleep`, timeouts and TaskGroups work as ever; only nothing waits. Executor calls run at once, so how fast the
machine computes never changes a result. There are no sockets and no subprocesses in virtual time.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualDeadlock(RuntimeError):
    """Every task waits and no timer is set: virtual time has nowhere to go."""


class _Timer(asyncio.TimerHandle):
    """A TimerHandle that is made, called and cancelled in few steps: a run sets several for every request.

    Without a context of its own the callback runs in the loop's.
    """

    __slots__ = ()

    _scheduled: bool  # while it is, the loop hears of its being cancelled
    _callback: Callable[..., object] | None
    _args: tuple[Any, ...]

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "VirtualTimeLoop",
        context: Context | None,
    ) -> None:
        self._loop = loop
        self._callback = callback if context is None else context.run
        self._args = args if context is None else (callback, *args)
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback, self._args = None, ()
            self._loop._timer_handle_cancelled(self)


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Virtual time starts at 0 and moves only when every task waits: `while not done: await sleep(0)` never waits and
    keeps every timer from its turn. Timers of one moment run in the order in which they were set; one that is set for a
    moment that has passed is one of now.

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
        due_s = when if when > self._now_s else self._now_s
        heappush(self._timers, (due_s, self._timers_set, timer))
        return timer

    def _run_once(self) -> None:
        """One turn of the loop, which BaseEventLoop takes until it is stopped: run what is ready, in order; when
        nothing is, go from one timer to the next until something is."""
        ready = self._ready
        if not ready and not self._stopping:
            self._jump()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _jump(self) -> None:
        """Go from the time of one timer to that of the next, and run all that are due, until something is ready."""
        ready, now_s, last = self._ready, self._now_s, -1
        while True:
            timers = self._timers  # a new list, if the cancelled ones were dropped
            if not timers:
                break
            when_s, number, timer = timers[0]
            if timer._callback is None:  # cancelled
                heappop(timers)
                self._cancelled_timers -= 1
                continue
            # One that is set meanwhile is for the next turn.
            if when_s > now_s or number > last:
                if ready or self._stopping:
                    return
                if when_s > now_s:
                    now_s = self._now_s = when_s
                last = self._timers_set
            heappop(timers)
            timer._scheduled = False
            try:
                timer._callback(*timer._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"in {timer!r}", "exception": error, "handle": timer})
        if not ready and not self._stopping:
            raise VirtualDeadlock(self._describe_deadlock())

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
