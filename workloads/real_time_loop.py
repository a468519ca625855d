"""The real-time event loop: uvloop with a clock and timers of microseconds.

uvloop's own clock stands still during a turn of the loop, and its timers fire on whole milliseconds, up to 1.5 ms
from the time asked for: too coarse for a load generator that is to be within a millisecond of its schedule.
"""

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from time import clock_gettime
from typing import Any

import uvloop

_CLOCK_MONOTONIC = 1
_TIMER_ABSTIME = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


# PyDLL keeps the interpreter's lock: both calls return at once, and giving it up would cost more than they do.
_libc: Any = ctypes.PyDLL(None, use_errno=True)


def real_time_loop() -> asyncio.AbstractEventLoop:
    """The loop for runs in real time: RealTimeLoop on Linux; elsewhere uvloop's own, on time to 1.5 ms only."""
    return RealTimeLoop() if sys.platform == "linux" else uvloop.new_event_loop()


class RealTimeLoop(uvloop.Loop):
    """uvloop whose `time` is CLOCK_MONOTONIC at the moment of the call, and whose timers are one Linux timerfd.

    The clock is the same in every process of the machine. Raises OSError where the kernel gives no timerfd.
    """

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_made = 0
        self._timers_cancelled = 0
        self._armed_for_s = float("inf")
        self._setting = _Itimerspec()
        self._setting_pointer = ctypes.pointer(self._setting)
        self._timer_fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._timer_fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create: " + os.strerror(ctypes.get_errno()))
        self.add_reader(self._timer_fd, self._expire)

    def time(self) -> float:
        return clock_gettime(_CLOCK_MONOTONIC)

    def call_later(  # type: ignore[override]  # typeshed's has variadic types that say no more
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(clock_gettime(_CLOCK_MONOTONIC) + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # typeshed's has variadic types that say no more
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        handle._scheduled = True  # type: ignore[attr-defined]  # so that its cancellation is told below
        self._timers_made += 1
        heappush(self._timers, (when, self._timers_made, handle))
        if when < self._armed_for_s:
            self._arm(when)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes, or with all the others when they are the most."""
        if handle._scheduled:  # type: ignore[attr-defined]
            self._timers_cancelled += 1
        if self._timers_cancelled > 1000 and 2 * self._timers_cancelled > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapify(self._timers)
            self._timers_cancelled = 0

    def _expire(self) -> None:
        """Run what is due, then set the alarm for what comes next."""
        now_s = clock_gettime(_CLOCK_MONOTONIC)
        due = []
        while self._timers and self._timers[0][0] <= now_s:
            due.append(heappop(self._timers)[2])
        self._arm(self._timers[0][0] if self._timers else float("inf"))
        for handle in due:
            handle._scheduled = False  # type: ignore[attr-defined]
            if handle.cancelled():
                self._timers_cancelled = max(0, self._timers_cancelled - 1)
            else:
                handle._run()

    def _arm(self, when_s: float) -> None:
        """Make the alarm ring at `when_s`, at once if that has passed; infinity silences it."""
        self._armed_for_s = when_s
        value = self._setting.value
        if when_s == float("inf"):
            value.seconds = value.nanoseconds = 0
        else:
            nanoseconds = max(1, int(when_s * 1e9) + 1)  # rounded up: a timer is never early
            value.seconds, value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        _libc.timerfd_settime(self._timer_fd, _TIMER_ABSTIME, self._setting_pointer, None)

    def close(self) -> None:
        if not self.is_closed():
            self.remove_reader(self._timer_fd)
            os.close(self._timer_fd)
        super().close()
