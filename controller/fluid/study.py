"""A policy's run against demand in tokens/s: observation, decision, servers, service, bin by bin."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from controller.fluid.load import FluidLoad
from controller.fluid.outcome import FluidOutcome
from controller.fluid.servers import FluidServers
from controller.fluid.service import Backlog, ready_capacity, utilisations
from controller.history import DemandHistory, Key, Series
from controller.rules.roles import deal_to_roles
from controller.types import FleetLimits, Observation, Placement, PlacementState, Policy, Pool, ScalingPlan

_EARLY_S = 1e-6


def run_fluid(
    policy: Policy,
    load: FluidLoad,
    limits: FleetLimits,
    initial: Mapping[Placement, int],
    *,
    drain_s: float = 0.0,
) -> FluidOutcome:
    """Run `policy` on `load` from `initial` servers, READY at time 0, and account for it.

    `initial` counts shared servers; they are dealt to the policy's roles as in a run. The policy sees whole past bins
    alone; utilisation is that of the last one on the servers READY now. `ended` and `missed` of the history are
    tokens/s in place of requests: all demand of a bin ends in it, and in a violated bin all of it has missed (a queue
    that forms spares nobody). GPU-hours count a server from its start's command until it has drained for `drain_s`.
    """
    study = _Study(policy, load, replace(limits, roles=policy.roles), initial, drain_s)
    for index in range(load.bins):
        study.run_bin(index)
    return study.outcome()


class _Study:
    def __init__(
        self,
        policy: Policy,
        load: FluidLoad,
        limits: FleetLimits,
        initial: Mapping[Placement, int],
        drain_s: float,
    ) -> None:
        self._policy, self._load, self._limits = policy, load, _served_as_it_comes(limits)
        self._servers = FluidServers(limits, _dealt(initial, limits), drain_s)
        self._theta = {p: limits.capacity[p.model, p.gpu_type].theta_tokens_per_s for p in limits.placements()}
        pools = tuple(Pool(model, region) for model in limits.models for region in limits.regions)
        self._interactive = {pool: load.whole(pool, interactive=True) for pool in pools}
        self._niw = {pool: load.whole(pool, interactive=False) for pool in pools}
        length = load.bins_before + load.bins
        self._ended: dict[Key, Series] = {pool: np.zeros(length) for pool in pools}
        self._missed: dict[Key, Series] = {pool: np.zeros(length) for pool in pools}
        self._pools_of = {m: [pool for pool in pools if pool.model == m] for m in limits.models}
        self._capacity = {pool: np.zeros(load.bins) for pool in pools}
        self._backlogs = {model: Backlog() for model in limits.models}
        self._niw_rate = dict.fromkeys(limits.models, 0.0)
        self._batch_use = dict.fromkeys(limits.models, 0.0)
        self._violated = dict.fromkeys(limits.models, 0)
        self._asked = dict.fromkeys(limits.models, 0)
        self._demand = self._in_violated = self._unserved = 0.0
        self._gpu_s = {"starting": 0.0, "ready": 0.0, "draining": 0.0, "sleeping": 0.0}
        self._previous: ScalingPlan | None = None
        self._decide_at_s, self._decisions = 0.0, 0

    def run_bin(self, index: int) -> None:
        """Everything from the bin's beginning to its end; capacity is its mean over the bin."""
        bin_s = self._load.bin_s
        now_s, end_s = index * bin_s, (index + 1) * bin_s
        past = self._load.bins_before + index
        history = self._history(past, now_s)
        sustained = dict.fromkeys(self._theta, 0.0)
        while now_s < end_s - _EARLY_S:
            self._servers.advance(now_s)
            if self._decide_at_s <= now_s + _EARLY_S:
                self._decide(history, past, now_s)
            then_s = min(end_s, max(now_s + _EARLY_S, min(self._decide_at_s, self._servers.next_event_s())))
            self._account(then_s - now_s, sustained)
            now_s = then_s
        self._serve(index, past, end_s, {p: s / bin_s for p, s in sustained.items()})

    def _decide(self, history: DemandHistory, past: int, now_s: float) -> None:
        seen = Observation(
            at_s=now_s,
            limits=self._limits,
            placements=self._states(past),
            demand=history,
            niw_queued_tokens={model: round(backlog.tokens) for model, backlog in self._backlogs.items()},
            niw_due={model: backlog.due() for model, backlog in self._backlogs.items() if backlog.tokens > 0},
            previous=self._previous,
        )
        plan = self._policy.decide(seen)
        self._servers.apply(plan, now_s)
        self._previous, self._decide_at_s = plan, plan.next_decision_s
        self._decisions += 1

    def _history(self, past: int, now_s: float) -> DemandHistory:
        def cut(series: Mapping[Pool, Series] | Mapping[Key, Series]) -> dict[Key, Series]:
            return {key: values[:past] for key, values in series.items()}

        return DemandHistory(
            bin_s=self._load.bin_s,
            until_s=now_s,
            interactive=cut(self._interactive),
            niw=cut(self._niw),
            ended=cut(self._ended),
            missed=cut(self._missed),
        )

    def _states(self, past: int) -> dict[Placement, PlacementState]:
        standing = self._servers.standing
        capacity = ready_capacity({p: s.ready for p, s in standing.items()}, self._theta)
        used: dict[Pool, float] = {}
        for pools in self._pools_of.values():
            demand = {pool: float(self._interactive[pool][past - 1]) if past else 0.0 for pool in pools}
            used.update(utilisations(demand, {p: capacity.get(p, 0.0) for p in pools}, self._niw_rate))
        return {
            p: PlacementState(
                starting=len(s.starting),
                ready=s.ready,
                draining=s.draining,
                sleeping=s.sleeping,
                utilisation=self._used(p, used) if s.ready else 0.0,
                outstanding_tokens=0 if p.role.takes_interactive else self._batch_tokens(p, s.ready),
                ready_at_s=tuple(sorted(s.starting)),
            )
            for p, s in standing.items()
        }

    def _used(self, placement: Placement, interactive: Mapping[Pool, float]) -> float:
        return interactive[placement.pool] if placement.role.takes_interactive else self._batch_use[placement.model]

    def _batch_tokens(self, placement: Placement, ready: int) -> int:
        """Tokens in flight on servers of the batch role: what they serve while a request stays with them."""
        capacity = self._limits.capacity[placement.model, placement.gpu_type]
        served = self._batch_use[placement.model] * ready * self._theta[placement]
        return round(served * (capacity.stay_s or self._load.bin_s))

    def _account(self, seconds: float, sustained: dict[Placement, float]) -> None:
        for p, s in self._servers.standing.items():
            gpus = s.capacity.gpus
            self._gpu_s["starting"] += seconds * gpus * len(s.starting)
            self._gpu_s["ready"] += seconds * gpus * s.ready
            self._gpu_s["draining"] += seconds * gpus * s.draining
            self._gpu_s["sleeping"] += seconds * s.sleeping
            sustained[p] += seconds * s.ready * self._theta[p]

    def _serve(self, index: int, past: int, end_s: float, sustained: Mapping[Placement, float]) -> None:
        bin_s = self._load.bin_s
        for p, tokens_per_s in sustained.items():
            if p.role.takes_interactive:
                self._capacity[p.pool][index] += tokens_per_s
        for model, pools in self._pools_of.items():
            demand = sum(float(self._interactive[pool][past]) for pool in pools)
            room = sum(float(self._capacity[pool][index]) for pool in pools)
            violated = demand > room + 1e-6 * max(demand, 1.0)
            self._asked[model] += demand > 0
            self._violated[model] += violated
            self._demand += demand
            self._in_violated += demand if violated else 0.0
            self._unserved += max(0.0, demand - room)
            for pool in pools:
                self._ended[pool][past] = self._interactive[pool][past]
                self._missed[pool][past] = self._interactive[pool][past] if violated else 0.0
            backlog = self._backlogs[model]
            arrived = sum(float(self._niw[pool][past]) for pool in pools)
            backlog.add(arrived * bin_s, end_s + self._load.niw_deadline_s)
            batch = sum(t for p, t in sustained.items() if p.model == model and not p.role.takes_interactive)
            closed = sum(t for p, t in sustained.items() if p.model == model and not p.role.takes_niw)
            spare = batch + max(0.0, room - max(demand, closed))
            rate = self._niw_rate[model] = backlog.serve(spare * bin_s, end_s) / bin_s
            # Servers that take nothing else take NIW first.
            self._batch_use[model] = min(1.0, rate / batch) if batch > 0 else 0.0

    def outcome(self) -> FluidOutcome:
        for backlog in self._backlogs.values():
            backlog.expire(self._load.horizon_s)
        shares = {m: self._violated[m] / asked for m, asked in self._asked.items() if asked}
        hours = {state: seconds / 3600.0 for state, seconds in self._gpu_s.items()}
        changes = self._servers.changes
        return FluidOutcome(
            gpu_h=hours["starting"] + hours["ready"] + hours["draining"],
            starting_gpu_h=hours["starting"],
            draining_gpu_h=hours["draining"],
            sleeping_server_h=hours["sleeping"],
            violated_share=float(np.mean(list(shares.values()))) if shares else 0.0,
            violated_by_model=MappingProxyType(shares),
            missed_share=self._in_violated / self._demand if self._demand else 0.0,
            unserved_share=self._unserved / self._demand if self._demand else 0.0,
            starts=changes.starts,
            wakes=changes.wakes,
            stops=changes.stops,
            decisions=self._decisions,
            niw_served_tokens=sum(backlog.served_tokens for backlog in self._backlogs.values()),
            niw_late_tokens=sum(backlog.late_tokens for backlog in self._backlogs.values()),
            capacity_tokens_per_s=MappingProxyType(self._capacity),
        )


def _served_as_it_comes(limits: FleetLimits) -> FleetLimits:
    """In this model what arrives in a bin is served in it, or missed."""
    return replace(
        limits,
        capacity={
            key: replace(c, stay_s=0.0, saturated_tokens_per_s=None, patience_s=0.0)
            for key, c in limits.capacity.items()
        },
    )


def _dealt(initial: Mapping[Placement, int], limits: FleetLimits) -> dict[Placement, int]:
    """The initial servers of every placement, whatever their roles, in the roles of the limits."""
    counts: dict[Placement, int] = {}
    for p, servers in initial.items():
        for role, dealt in deal_to_roles(servers, limits.roles).items():
            place = p._replace(role=role)
            counts[place] = counts.get(place, 0) + dealt
    return counts
