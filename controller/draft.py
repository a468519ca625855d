"""A plan in the making: every change a policy asks for passes here, where quotas and minimums are kept."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from controller.program.prices import price_per_token
from controller.types import (
    Memory,
    Observation,
    Placement,
    PlacementState,
    ScalingPlan,
    Silo,
    SolveReport,
    Step,
)

_TOLERANCE = 1e-9
_NOTHING = PlacementState()


class PlanDraft:
    """Starts from the servers that are starting or ready now; `add` and `remove` grant what the limits allow.

    A server to add needs GPUs that are free now: those of starting, ready and draining servers are taken, also those
    of servers that this same plan removes, until they have drained. A server is removed only while its silo
    keeps the minimum. So a plan made here never exceeds a quota that was kept before.
    """

    def __init__(self, seen: Observation) -> None:
        self.seen = seen
        self.limits = seen.limits
        self.silos: dict[Silo, tuple[Placement, ...]] = {}
        for placement in seen.limits.placements():
            self.silos[placement.silo] = (*self.silos.get(placement.silo, ()), placement)
        for silo, placements in self.silos.items():
            self.silos[silo] = tuple(sorted(placements, key=lambda p: price_per_token(seen.limits, p)))
        self.counts = {p: self.state(p).active for placements in self.silos.values() for p in placements}
        self._free = dict(seen.limits.quota_gpus)
        for placement in self.counts:
            state = self.state(placement)
            self._free[placement.region, placement.gpu_type] -= self._gpus(placement) * (state.active + state.draining)
        self._steps: dict[Placement, Step] = {}

    def state(self, placement: Placement) -> PlacementState:
        return self.seen.placements.get(placement, _NOTHING)

    def has_room(self, placement: Placement) -> bool:
        """Whether one more server of the placement finds free GPUs."""
        return self._free[placement.region, placement.gpu_type] + _TOLERANCE >= self._gpus(placement)

    def in_silo(self, silo: Silo) -> int:
        """Servers of the silo in the plan so far."""
        return sum(self.counts[p] for p in self.silos[silo])

    def add(self, placement: Placement, servers: int, reason: str) -> int:
        """Add up to `servers` as far as free GPUs go; the number added."""
        granted = 0
        while granted < servers and self.has_room(placement):
            self._free[placement.region, placement.gpu_type] -= self._gpus(placement)
            granted += 1
        short = f"; GPUs free for {granted} of {servers}" if 0 < granted < servers else ""
        self._change(placement, granted, reason + short)
        return granted

    def remove(self, placement: Placement, servers: int, reason: str) -> int:
        """Remove up to `servers` as far as the silo's minimum goes; the number removed."""
        spare = self.in_silo(placement.silo) - self.limits.min_servers
        granted = max(0, min(servers, spare, self.counts[placement]))
        short = f"; {granted} of {servers} above the minimum of {self.limits.min_servers}"
        self._change(placement, -granted, reason + (short if 0 < granted < servers else ""))
        return granted

    def restore_minimums(self) -> None:
        """Bring every silo to the minimum, cheapest GPU type first."""
        least = self.limits.min_servers
        for silo, placements in self.silos.items():
            for placement in placements:
                have = self.in_silo(silo)
                if have < least:
                    self.add(placement, least - have, f"{have} servers, below the minimum of {least}")

    def move_to(self, wanted: Mapping[Placement, int], reason: Callable[[int], str]) -> None:
        """Go to these counts as far as the limits allow: removals of GPU types dear for their work first.

        `reason` words the count wanted.
        """
        dearest = sorted(wanted, key=lambda p: -price_per_token(self.limits, p))
        for placement in dearest:
            if self.counts[placement] > wanted[placement]:
                self.remove(placement, self.counts[placement] - wanted[placement], reason(wanted[placement]))
        for placement, count in wanted.items():
            if self.counts[placement] < count:
                self.add(placement, count - self.counts[placement], reason(count))

    def plan(
        self,
        *,
        next_decision_s: float,
        memory: Memory,
        solve: SolveReport | None = None,
        sleeping: Mapping[Placement, int] = MappingProxyType({}),
    ) -> ScalingPlan:
        """The plan; the placements changed enter `memory.last_change_s` with the time of this observation."""
        changed = dict(memory.last_change_s)
        changed.update(dict.fromkeys(self._steps, self.seen.at_s))
        return ScalingPlan(
            counts=MappingProxyType(dict(self.counts)),
            next_decision_s=next_decision_s,
            steps=tuple(self._steps.values()),
            solve=solve,
            sleeping=sleeping,
            memory=replace(memory, last_change_s=MappingProxyType(changed)),
        )

    def _gpus(self, placement: Placement) -> float:
        return self.limits.capacity[placement.model, placement.gpu_type].gpus

    def _change(self, placement: Placement, change: int, reason: str) -> None:
        if change == 0:
            return
        self.counts[placement] += change
        earlier = self._steps.pop(placement, None)
        if earlier is not None:
            change, reason = change + earlier.change, f"{earlier.reason}; {reason}"
        if change != 0:
            self._steps[placement] = Step(placement=placement, change=change, reason=reason)


def previous_memory(seen: Observation) -> Memory:
    """What the last plan remembered; empty before the first."""
    return seen.previous.memory if seen.previous is not None else Memory()


def next_multiple(at_s: float, interval_s: float) -> float:
    """The first multiple of `interval_s` after `at_s`; one that is less than 1 % of an interval away counts as now.

    A real event loop may wake a little early: without this slack it would decide twice.
    """
    return (int((at_s + 0.01 * interval_s) // interval_s) + 1) * interval_s
