"""Open-loop replay: every request is handed over at its arrival time, whatever became of the earlier ones.

The one exception is the trace's own: a later turn of a session waits for the answer before it, as its client did.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from workloads.clock import RunClock
from workloads.request import Request
from workloads.samples import Quantiles, Samples
from workloads.sessions import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """How well the schedule was kept: requests handed over, and how late, in seconds."""

    handed_over: int
    lateness_s: Quantiles


class Replay:
    """Hands requests (sorted by arrival) to `submit` at their `arrival_s` of the run's clock.

    `submit` must not wait. `following` are turns that wait for the end of a request, by its id: with any, `ended` must
    be called at the end of every request. `soon` is told the next request while there is time before it.
    Lateness is kept per request: 4 bytes each.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        submit: Callable[[Request], None],
        clock: RunClock,
        following: Mapping[int, Turn] | None = None,
        soon: Callable[[Request], None] | None = None,
    ) -> None:
        self._requests = iter(requests)
        self._submit = submit
        self._clock = clock
        self._following = dict(following or {})
        self._soon = soon
        self._due: list[tuple[float, int, Request]] = []
        self._next: Request | None = None
        self._told_soon = False
        self._handing_over = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._over: asyncio.Future[None] | None = None
        self.lateness_s = Samples()
        self.handed_over = 0

    async def run(self) -> None:
        """Returns when the last request has been handed over. Raises what `submit` or `soon` raises."""
        self._over = self._loop.create_future()
        self._take_next()
        self._go_on()
        try:
            await self._over
        finally:
            if self._timer is not None:
                self._timer.cancel()

    # A callback per request, not a turn of a task: in virtual time that is a good part of what a request costs.

    def _go_on(self) -> None:
        over = self._over
        assert over is not None
        self._timer = None
        try:
            self._handing_over = True
            next_s = self._hand_over_due()
            self._handing_over = False
            if next_s == math.inf:
                if not self._following and not over.done():
                    over.set_result(None)
            elif self._soon is not None and self._next is not None and not self._told_soon:
                self._timer = self._loop.call_soon(self._tell_soon)  # whoever was handed over goes first
            else:
                self._timer = self._loop.call_at(self._clock.loop_time(next_s), self._go_on)
        except Exception as error:
            if not over.done():
                over.set_exception(error)

    def _hand_over_due(self) -> float:
        """Hand over what is due by now; returns when the next request or turn is, infinite when none is known."""
        clock, due = self._clock, self._due
        while True:
            request, now_s = self._next, clock.now_s()
            arrival_s = math.inf if request is None else request.arrival_s
            if due and due[0][0] < arrival_s:
                if due[0][0] > now_s:
                    return due[0][0]
                request = heappop(due)[2]
            elif request is None or arrival_s > now_s:
                return arrival_s
            else:
                self._take_next()
            self._submit(request)
            self.handed_over += 1
            # A timer may fire a hair early; early is on time.
            late_s = now_s - request.arrival_s
            self.lateness_s.add(late_s if late_s > 0.0 else 0.0)

    def _take_next(self) -> None:
        self._next = next(self._requests, None)
        self._told_soon = False

    def _tell_soon(self) -> None:
        assert self._soon is not None and self._next is not None
        self._told_soon = True
        try:
            self._soon(self._next)
        except Exception as error:
            if self._over is not None and not self._over.done():
                self._over.set_exception(error)
        else:
            self._go_on()

    def ended(self, request_id: int) -> None:
        """The answer to a request has ended, well or not: its session goes on."""
        turn = self._following.pop(request_id, None)
        if turn is None:
            return
        request = turn.due(self._clock.now_s())
        heappush(self._due, (request.arrival_s, request.request_id, request))
        if self._over is not None and not self._over.done() and not self._handing_over:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_soon(self._go_on)

    def unsent_turns(self) -> list[Request]:
        """Turns that have not been handed over."""
        return [turn.request for turn in self._following.values()] + [request for _, _, request in sorted(self._due)]

    def report(self) -> ReplayReport:
        """As of now; zeros before the first request."""
        return ReplayReport(handed_over=self.handed_over, lateness_s=self.lateness_s.quantiles())
