"""Servers as counts: what a plan does to them, and when they are READY, drained or asleep.

The rules are those of the testbed's fleet: a surplus drains, STARTING servers first; what is missing wakes up, then
starts as far as GPUs are free; what finds none waits until GPUs come free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.types import Capacity, FleetLimits, Placement, ScalingPlan

_TOLERANCE = 1e-9


@dataclass(slots=True, kw_only=True)
class _Standing:
    """Servers of one placement; the lists hold when each gets there. `dozing` ones drain to sleep, `gone` to stop."""

    capacity: Capacity
    ready: int = 0
    sleeping: int = 0
    starting: list[float] = field(default_factory=list)
    dozing: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)

    @property
    def active(self) -> int:
        return self.ready + len(self.starting)

    @property
    def draining(self) -> int:
        return len(self.dozing) + len(self.gone)

    @property
    def holding_gpus(self) -> float:
        return self.capacity.gpus * (self.active + self.draining)


@dataclass(slots=True, kw_only=True)
class Changes:
    """How often a server was started, woken and taken out of service."""

    starts: int = 0
    wakes: int = 0
    stops: int = 0


class FluidServers:
    """All servers of a fluid study. `advance` and `apply` take times that never fall."""

    def __init__(self, limits: FleetLimits, initial: Mapping[Placement, int], drain_s: float) -> None:
        self._limits = limits
        self._drain_s = drain_s
        self._wanted: Mapping[Placement, int] = dict(initial)
        self._asleep: Mapping[Placement, int] = {}
        self.changes = Changes()
        self.standing = {
            p: _Standing(capacity=limits.capacity[p.model, p.gpu_type], ready=initial.get(p, 0))
            for p in limits.placements()
        }

    def next_event_s(self) -> float:
        """When the next server gets READY, asleep or free of its GPUs; infinity where none is on its way."""
        times = [min(s.starting + s.dozing + s.gone, default=float("inf")) for s in self.standing.values()]
        return min(times, default=float("inf"))

    def advance(self, now_s: float) -> None:
        """Let happen what is due, then start what waited for GPUs."""
        for s in self.standing.values():
            s.ready += _take_due(s.starting, now_s)
            s.sleeping += _take_due(s.dozing, now_s)
            _take_due(s.gone, now_s)
        self._bring_up(now_s)

    def apply(self, plan: ScalingPlan, now_s: float) -> None:
        """Take servers out of service that the plan does not want, then bring up those that it misses."""
        self._wanted, self._asleep = dict(plan.counts), dict(plan.sleeping)
        for p, s in self.standing.items():
            self._retire(p, s, s.active - self._wanted.get(p, 0), now_s)
        self._bring_up(now_s)
        for p, s in self.standing.items():
            missing = max(0, self._wanted.get(p, 0) - s.active)
            s.sleeping = min(s.sleeping, self._asleep.get(p, 0) + missing)

    def _retire(self, p: Placement, s: _Standing, surplus: int, now_s: float) -> None:
        for _ in range(surplus):
            self.changes.stops += 1
            if s.starting:
                s.starting.remove(max(s.starting))
                continue
            s.ready -= 1
            sleeps = s.capacity.can_sleep and s.sleeping + len(s.dozing) < self._asleep.get(p, 0)
            if sleeps:
                s.dozing.append(now_s + self._drain_s + (s.capacity.sleep_s or 0.0))
            else:
                s.gone.append(now_s + self._drain_s)
        if surplus > 0:
            s.sleeping += _take_due(s.dozing, now_s)
            _take_due(s.gone, now_s)

    def _bring_up(self, now_s: float) -> None:
        free = dict(self._limits.quota_gpus)
        for p, s in self.standing.items():
            free[p.region, p.gpu_type] -= s.holding_gpus
        for waking in (True, False):
            for p, s in self.standing.items():
                key, gpus = (p.region, p.gpu_type), s.capacity.gpus
                while s.active < self._wanted.get(p, 0) and free[key] + _TOLERANCE >= gpus:
                    if waking and s.sleeping == 0:
                        break
                    free[key] -= gpus
                    if waking:
                        s.sleeping -= 1
                        self.changes.wakes += 1
                        s.starting.append(now_s + (s.capacity.wake_s or 0.0))
                    else:
                        self.changes.starts += 1
                        s.starting.append(now_s + s.capacity.start_s)
        for s in self.standing.values():
            s.ready += _take_due(s.starting, now_s)


def _take_due(times: list[float], now_s: float) -> int:
    """Remove the times that have come; their number."""
    if not times:
        return 0
    left = [t for t in times if t > now_s + _TOLERANCE]
    due = len(times) - len(left)
    times[:] = left
    return due
