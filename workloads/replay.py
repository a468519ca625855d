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
        self._requests = requests
        self._submit = submit
        self._clock = clock
        self._following = dict(following or {})
        self._soon = soon
        self._due: list[tuple[float, int, Request]] = []
        self._woken: asyncio.Future[None] | None = None
        self.lateness_s = Samples()
        self.handed_over = 0

    async def run(self) -> None:
        """Returns when the last request has been handed over."""
        for request in self._requests:
            if self._soon is not None and request.arrival_s > self._clock.now_s():
                await asyncio.sleep(0)  # whoever was handed over goes first
                self._soon(request)
            if self._following or self._due:
                await self._hand_over_turns(until_s=request.arrival_s)
            else:
                await self._clock.sleep_until(request.arrival_s)
            self._hand_over(request)
        await self._hand_over_turns(until_s=math.inf)

    async def _hand_over_turns(self, until_s: float) -> None:
        """Those due before `until_s`. Returns at `until_s`; if that is infinite, when there are none left."""
        clock, due = self._clock, self._due
        while True:
            next_s = due[0][0] if due and due[0][0] < until_s else until_s
            if next_s > clock.now_s():
                if next_s == math.inf and not self._following:
                    return
                self._woken = asyncio.get_running_loop().create_future()
                await clock.first_of(next_s, self._woken)
            elif next_s < until_s:
                self._hand_over(heappop(due)[2])
            else:
                return

    def ended(self, request_id: int) -> None:
        """The answer to a request has ended, well or not: its session goes on."""
        turn = self._following.pop(request_id, None)
        if turn is None:
            return
        request = turn.due(self._clock.now_s())
        heappush(self._due, (request.arrival_s, request.request_id, request))
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def unsent_turns(self) -> list[Request]:
        """Turns that have not been handed over."""
        return [turn.request for turn in self._following.values()] + [request for _, _, request in sorted(self._due)]

    def report(self) -> ReplayReport:
        """As of now; zeros before the first request."""
        return ReplayReport(handed_over=self.handed_over, lateness_s=self.lateness_s.quantiles())

    def _hand_over(self, request: Request) -> None:
        now_s = self._clock.now_s()
        self._submit(request)
        self.handed_over += 1
        # A timer may fire a hair early; early is on time.
        late_s = now_s - request.arrival_s
        self.lateness_s.add(late_s if late_s > 0.0 else 0.0)
