"""Open-loop replay: every request is handed over at its arrival time, whatever became of the earlier ones."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from workloads.clock import RunClock
from workloads.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """How well the schedule was kept: requests handed over, and how late, in seconds (p50, p99, max)."""

    handed_over: int
    lateness_p50_s: float
    lateness_p99_s: float
    lateness_max_s: float


class Replay:
    """Hands requests (sorted by arrival) to `submit` at their `arrival_s` of the run's clock.

    `submit` must not wait. Lateness is kept per request in flat memory: 4 bytes each.
    """

    def __init__(self, requests: Iterable[Request], submit: Callable[[Request], None], clock: RunClock) -> None:
        self._requests = requests
        self._submit = submit
        self._clock = clock
        self._lateness_s: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
        self._block: list[float] = []
        self.handed_over = 0

    async def run(self) -> None:
        """Returns when the last request has been handed over."""
        clock = self._clock
        for request in self._requests:
            now_s = clock.now_s()
            if request.arrival_s > now_s:
                await clock.sleep_until(request.arrival_s)
                now_s = clock.now_s()
            self._submit(request)
            self.handed_over += 1
            # A timer may fire a hair early; early is on time.
            self._block.append(max(0.0, now_s - request.arrival_s))
            if len(self._block) >= 65536:
                self._pack()

    def report(self) -> ReplayReport:
        """As of now; zeros before the first request."""
        self._pack()
        lateness = np.concatenate(self._lateness_s) if self._lateness_s else np.zeros(1, dtype=np.float32)
        p50, p99 = np.percentile(lateness, [50, 99])
        return ReplayReport(
            handed_over=self.handed_over,
            lateness_p50_s=float(p50),
            lateness_p99_s=float(p99),
            lateness_max_s=float(lateness.max()),
        )

    def _pack(self) -> None:
        if self._block:
            self._lateness_s.append(np.asarray(self._block, dtype=np.float32))
            self._block = []
