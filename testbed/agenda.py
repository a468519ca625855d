"""What is to happen in virtual time, and when: the timers of `testbed.virtual_time`, where they can be compiled."""

from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, Final

_FEW_CANCELLED: Final = 1000


class Timer:
    """What asyncio wants of a timer handle, made, called and cancelled in few steps: a run sets several for every
    request. `callback` is None once it is cancelled."""

    __slots__ = ("_agenda", "_source_traceback", "_when", "args", "callback", "scheduled")

    def __init__(self, agenda: "Agenda", when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._agenda = agenda
        self._when = when
        self._source_traceback: Any = None  # asyncio looks for it
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.scheduled = True

    def when(self) -> float:
        return self._when

    def cancelled(self) -> bool:
        return self.callback is None

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self.args = ()
            if self.scheduled:
                self._agenda.note_cancelled()

    def __repr__(self) -> str:
        return f"<Timer at {self._when:.3f} s{' cancelled' if self.cancelled() else f': {self.callback}'}>"


class Agenda:
    """Timers by time, those of one moment in the order in which they were set; `now_s` is that of the last that ran.

    `on_error` is told what a callback raises, and of which timer.
    """

    def __init__(self, on_error: Callable[[Timer, BaseException], None]) -> None:
        self.now_s = 0.0
        self.stopping = False
        self.cancelled = 0  # of those that are still kept
        self._on_error = on_error
        # Tuples: compared without a call of Python.
        self._timers: list[tuple[float, int, Timer]] = []
        self._set = 0

    def __len__(self) -> int:
        """Timers kept, of which some may have been cancelled."""
        return len(self._timers)

    def time(self) -> float:
        return self.now_s

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        """What an event loop offers. Without a context of its own the callback runs in the loop's; a moment that has
        passed is now."""
        timer = (
            Timer(self, when, callback, args) if context is None else Timer(self, when, context.run, (callback, *args))
        )
        self._set += 1
        heappush(self._timers, (when if when > self.now_s else self.now_s, self._set, timer))
        return timer

    def run(self, ready: "deque[Any]") -> None:
        """Go from the time of one timer to that of the next, and run all that are due, until something is `ready` (or
        a callback has set `stopping`), or no timer is left."""
        now_s, last = self.now_s, -1
        while True:
            timers = self._timers  # a new list, if the cancelled ones were dropped
            if not timers:
                return
            when_s, number, timer = timers[0]
            callback = timer.callback
            if callback is None:
                heappop(timers)
                self.cancelled -= 1
                continue
            # One that is set meanwhile is for the next turn.
            if when_s > now_s or number > last:
                if ready or self.stopping:
                    return
                if when_s > now_s:
                    now_s = self.now_s = when_s
                last = self._set
            heappop(timers)
            timer.scheduled = False
            try:
                callback(*timer.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._on_error(timer, error)

    def note_cancelled(self) -> None:
        """A cancelled timer is dropped when its time comes, or with all the others when they are the most."""
        self.cancelled += 1
        if self.cancelled > _FEW_CANCELLED and 2 * self.cancelled > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapify(self._timers)
            self.cancelled = 0
