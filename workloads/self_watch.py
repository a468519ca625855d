"""The load generator watches itself: was what it reports the servers' doing, or its own slowness?"""

import resource
from dataclasses import dataclass

from workloads.clock import RunClock
from workloads.samples import Quantiles, Samples

BEAT_S = 0.02
WINDOW_S = 5.0

# Beyond any of these, latencies say as much of the client as of the servers.
LATENESS_P99_LIMIT_S = 0.010
LAG_P99_LIMIT_S = 0.010
CPU_SHARE_LIMIT = 0.90


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHealth:
    """How the client itself fared.

    `lateness_s`: from a request's time to its hand-over. `lag_s`: how late the event loop came to a heartbeat of
    BEAT_S. `cpu_share`: of one core, by the client's thread; `cpu_share_max`: in its busiest WINDOW_S.
    """

    lateness_s: Quantiles
    lag_s: Quantiles
    cpu_s: float
    cpu_share: float
    cpu_share_max: float

    @property
    def bottleneck(self) -> str:
        """Why the client is to be distrusted, "" when it is not."""
        return "; ".join(
            f"{what} {found:{form}}, over {limit:{form}}"
            for what, found, limit, form in (
                ("p99 lateness in s", self.lateness_s.p99, LATENESS_P99_LIMIT_S, ".3f"),
                ("p99 lag of the event loop in s", self.lag_s.p99, LAG_P99_LIMIT_S, ".3f"),
                (f"CPU of the client in its busiest {WINDOW_S:g} s", self.cpu_share_max, CPU_SHARE_LIMIT, ".0%"),
            )
            if found > limit
        )


class SelfWatch:
    """Measures lag and CPU while `beat` runs, in the event loop that it is to measure; of no use in virtual time."""

    def __init__(self, clock: RunClock) -> None:
        self._clock = clock
        self._share_max = 0.0
        self.lag_s = Samples()
        self.restart()

    def restart(self) -> None:
        """Count from now."""
        self._began_s = self._window_s = self._clock.now_s()
        self._began_cpu_s = self._window_cpu_s = _thread_cpu_s()

    async def beat(self) -> None:
        """Never returns. A beat that is missed counts too, with all of its lag."""
        clock = self._clock
        due_s = clock.now_s()
        while True:
            due_s += BEAT_S
            await clock.sleep_until(due_s)
            now_s = clock.now_s()
            self.lag_s.add(max(0.0, now_s - due_s))
            if now_s - self._window_s >= WINDOW_S:
                self._close_window(now_s)

    def health(self, lateness_s: Quantiles) -> ClientHealth:
        """As of now."""
        now_s = self._clock.now_s()
        if self._share_max == 0.0:  # shorter than one window
            self._close_window(now_s)
        cpu_s = _thread_cpu_s() - self._began_cpu_s
        elapsed_s = now_s - self._began_s
        return ClientHealth(
            lateness_s=lateness_s,
            lag_s=self.lag_s.quantiles(),
            cpu_s=cpu_s,
            cpu_share=cpu_s / elapsed_s if elapsed_s > 0 else 0.0,
            cpu_share_max=self._share_max,
        )

    def _close_window(self, now_s: float) -> None:
        cpu_s = _thread_cpu_s()
        if now_s > self._window_s:
            self._share_max = max(self._share_max, (cpu_s - self._window_cpu_s) / (now_s - self._window_s))
        self._window_s, self._window_cpu_s = now_s, cpu_s


def _thread_cpu_s() -> float:
    # Solvers and writers may have threads of their own: what counts is the one that sends and reads.
    used = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF))
    return used.ru_utime + used.ru_stime
