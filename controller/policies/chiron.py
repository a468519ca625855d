"""Chiron: interactive, mixed and batch servers, scaled by backpressure."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.policies.chiron_parameters import ChironParameters
from controller.thresholds import in_demand
from controller.types import Memory, Observation, Placement, Pool, Role, ScalingPlan, Silo

_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Chiron:
    """Chiron (arXiv 2501.08090) as SageServe (arXiv 2502.14617) has it for a baseline, with two changes.

    Interactive and mixed servers of a pool: +1 while the share of them that is busy with interactive requests
    (Chiron's interactive backpressure) is above 0.6. It counts servers, and the mean load of a silo is what is
    known: busy are as many as the load would fill up to the utilisation at which interactive requests spill over.
    Mixed servers work for interactive requests only while these spill; what else they do is not pressure.

    Changed: SageServe's baseline takes one server away whenever the share is not above 0.6, and so never comes to
    rest; here one goes only where the share stays at or below 0.6 without it. And a step goes to the role that
    keeps mixed servers nearest to a third of both.

    Batch servers of a model: +1, in the region with the fewest, while they would need longer for the NIW queue than
    it has: longer than `batch_deadline_s` for all of it, or than is left for what is due first (Chiron's batch
    backpressure); -1 in every region where they are idle and nothing is queued.
    """

    parameters: ChironParameters
    name: str = "chiron"
    roles: tuple[Role, ...] = (Role.INTERACTIVE, Role.MIXED, Role.BATCH)

    def decide(self, seen: Observation) -> ScalingPlan:
        memory = previous_memory(seen)
        draft = PlanDraft(seen)
        draft.restore_minimums()
        for pool in dict.fromkeys(silo.pool for silo in draft.silos):
            self._step_interactive(draft, pool, memory)
        for model in seen.limits.models:
            self._step_batch(draft, model, memory)
        return draft.plan(next_decision_s=next_multiple(seen.at_s, self.parameters.interval_s), memory=memory)

    def _step_interactive(self, draft: PlanDraft, pool: Pool, memory: Memory) -> None:
        """At most one server more or less among the pool's interactive and mixed ones."""
        given = self.parameters
        silos = [silo for silo in draft.silos if silo.pool == pool and silo.role.takes_interactive]
        servers = sum(draft.in_silo(silo) for silo in silos)
        quiet_s = _quiet_s(draft, silos, memory)
        asked = any(in_demand(draft, silo) for silo in silos)
        busy = self._busy(draft, silos)
        if (servers == 0 and asked) or busy > given.busy_share * servers:
            if quiet_s >= given.cooldown_out_s:
                because = f"{busy:.1f} of {servers} interactive and mixed servers busy > {given.busy_share:.2f}"
                because = because if servers else "requests and no server"
                _add_one(draft, sorted(silos, key=lambda s: self._imbalance(draft, s, servers, 1)), because)
            return
        # With all that mixed servers do: taking one away may make interactive requests spill.
        load = sum(self._load(draft, silo) for silo in silos)
        fewer = max(servers - 1, 1 if asked else 0)
        if quiet_s >= given.cooldown_in_s and fewer < servers and load <= given.busy_share * fewer:
            because = f"{load:.1f} of {servers} interactive and mixed servers busy <= {given.busy_share:.2f} of {fewer}"
            _remove_one(draft, sorted(silos, key=lambda s: self._imbalance(draft, s, servers, -1)), because)

    def _busy(self, draft: PlanDraft, silos: list[Silo]) -> float:
        """Servers busy with interactive requests; never more than are READY."""
        own = [silo for silo in silos if silo.role is not Role.MIXED]
        spills = any(
            _utilisation(draft, silo) >= self.parameters.spill_above or not _ready(draft, silo) for silo in own
        )
        working = silos if spills or not own else own
        return sum(min(self._load(draft, silo), _ready(draft, silo)) for silo in working)

    def _load(self, draft: PlanDraft, silo: Silo) -> float:
        """The silo's load in full servers; more than there are where requests wait."""
        return _utilisation(draft, silo) * _ready(draft, silo) / self.parameters.spill_above

    def _imbalance(self, draft: PlanDraft, silo: Silo, servers: int, change: int) -> float:
        """How far the silo would be from its part of the pool's interactive and mixed servers after a change."""
        mixed = self.parameters.mixed_share
        part = mixed if silo.role is Role.MIXED else 1 - mixed
        return abs(draft.in_silo(silo) + change - part * (servers + change))

    def _step_batch(self, draft: PlanDraft, model: str, memory: Memory) -> None:
        """At most one batch server more for the model, or one less in each region."""
        given, queued = self.parameters, draft.seen.niw_queued_tokens.get(model, 0)
        silos = [silo for silo in draft.silos if silo.model == model and silo.role is Role.BATCH]
        late = _why_late(draft, silos, model, given.batch_deadline_s)
        if silos and late:
            if _quiet_s(draft, silos, memory) >= given.cooldown_out_s:
                _add_one(draft, sorted(silos, key=draft.in_silo), late)
            return
        for silo in silos:
            idle = _ready(draft, silo) > 0 and all(draft.state(p).outstanding_tokens == 0 for p in draft.silos[silo])
            if idle and not queued and _quiet_s(draft, [silo], memory) >= given.cooldown_in_s:
                _remove_one(draft, [silo], "idle, and no NIW request queued")


def _why_late(draft: PlanDraft, silos: Iterable[Silo], model: str, deadline_s: float) -> str:
    """Why the batch servers, at theta, do not get through the model's queue in time; "" where they do."""
    seen = draft.seen
    per_s = sum(
        draft.counts[p] * seen.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s
        for silo in silos
        for p in draft.silos[silo]
    )
    tokens = 0.0
    has = [(each, max(0.0, due_s - seen.at_s)) for due_s, each in seen.niw_due.get(model, ())]
    for due, left_s in (*has, (seen.niw_queued_tokens.get(model, 0) - sum(each for each, _ in has), deadline_s)):
        tokens += due
        needs_s = tokens / per_s if per_s > 0 else inf
        if tokens > 0 and needs_s > left_s:
            return f"{tokens:.0f} NIW tokens queued need {needs_s / 3600:.1f} h, have {left_s / 3600:.1f} h"
    return ""


def _add_one(draft: PlanDraft, silos: Iterable[Silo], because: str) -> None:
    """One server more in the first silo that has room, on the GPU type cheapest for the work."""
    for silo in silos:
        for placement in draft.silos[silo]:
            if draft.add(placement, 1, because):
                return


def _remove_one(draft: PlanDraft, silos: Iterable[Silo], because: str) -> None:
    """One server less in the first silo above its minimum, on the GPU type dearest for the work."""
    for silo in silos:
        for placement in reversed(draft.silos[silo]):
            if draft.remove(placement, 1, because):
                return


def _ready(draft: PlanDraft, silo: Silo) -> int:
    return sum(draft.state(p).ready for p in draft.silos[silo])


def _utilisation(draft: PlanDraft, silo: Silo) -> float:
    """Mean over the silo's READY servers; 0 with none."""
    ready = _ready(draft, silo)
    states = [draft.state(p) for p in draft.silos[silo]]
    return sum(state.utilisation * state.ready for state in states) / ready if ready else 0.0


def _quiet_s(draft: PlanDraft, silos: Iterable[Silo], memory: Memory) -> float:
    """Seconds since any of these silos was last changed."""
    placements: list[Placement] = [p for silo in silos for p in draft.silos[silo]]
    latest_s = max((memory.last_change_s.get(p, -inf) for p in placements), default=-inf)
    return draft.seen.at_s - latest_s + _SLACK_S
