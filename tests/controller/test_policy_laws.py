"""Laws that hold for every policy there is, on fleets that chance draws.

A new policy is held to them as soon as the catalogue has it. What it needs for being quick here goes into PARAMETERS.
"""

import dataclasses
import json
from collections import defaultdict
from math import floor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.catalogue import make_policy, policy_names
from controller.history import DemandHistory
from controller.records import decode_all, encode
from controller.types import Capacity, FleetLimits, Observation, PlacementState, Role, ScalingPlan

FORECAST = {"forecast": {"method": "seasonal-naive"}}
PARAMETERS: dict[str, list[dict]] = {
    "static": [{}, {"servers_per_pool": 2}],
    "reactive": [{}, {"preset": "code"}],
    "siloed": [{}, {"preset": "code"}],
    "hpa": [{}, {"metric": "utilisation"}, {"window_s": 900.0, "scale_down": {"stabilisation_s": 0}}],
    "lt-i": [FORECAST],
    "lt-u": [FORECAST],
    "lt-ua": [FORECAST],
}
EXCHANGES = {"static", "lt-i", "mpc", "oracle"}
"""Those that exchange GPU types in two plans, the new server first: a second look at once may go on."""

CASES = [(name, parameters) for name in policy_names() for parameters in PARAMETERS.get(name, [{}])]
every_policy = pytest.mark.parametrize(
    ("name", "parameters"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)]
)
quickly = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

GPU_TYPES = {"h100": 8.0, "a100": 3.0}
BIN_S = 60.0


# Fleets that chance draws.


@st.composite
def fleets(draw, roles: tuple[Role, ...]) -> FleetLimits:
    models = draw(st.sampled_from([("llama",), ("llama", "bloom")]))
    regions = draw(st.sampled_from([("west",), ("west", "east")]))
    gpu_types = draw(st.sampled_from([("h100",), ("h100", "a100")]))
    capacity = {
        (model, gpu_type): Capacity(
            theta_tokens_per_s=draw(st.sampled_from([400.0, 1000.0, 2700.0])),
            gpus=draw(st.sampled_from([0.5, 1.0, 2.0])),
            start_s=draw(st.sampled_from([0.0, 60.0, 300.0])),
            usd_per_gpu_h=GPU_TYPES[gpu_type],
            wake_s=draw(st.sampled_from([None, 5.0])),
        )
        for model in models
        for gpu_type in gpu_types
    }
    return FleetLimits(
        models=models,
        regions=regions,
        capacity=capacity,
        quota_gpus={(r, g): draw(st.sampled_from([0.0, 1.0, 4.0, 12.0])) for r in regions for g in gpu_types},
        min_servers=draw(st.integers(0, 2)),
        roles=roles,
    )


@st.composite
def observations(draw, roles: tuple[Role, ...]) -> Observation:
    """Servers in any state within the quotas, demand from none to far too much, histories of any length."""
    limits = draw(fleets(roles))
    at_s = draw(st.sampled_from([0.0, 3599.998, 3600.0, 3607.25, 86_400.0]))
    room = dict(limits.quota_gpus)
    states = {}
    for p in limits.placements():
        gpus = limits.capacity[p.model, p.gpu_type].gpus
        counts = [draw(st.integers(0, min(3, floor(room[p.region, p.gpu_type] / gpus / 3)))) for _ in range(3)]
        room[p.region, p.gpu_type] -= gpus * sum(counts)
        starting, ready, draining = counts
        states[p] = PlacementState(
            starting=starting,
            ready=ready,
            draining=draining,
            sleeping=draw(st.integers(0, 1)),
            utilisation=draw(st.sampled_from([0.0, 0.1, 0.29, 0.55, 0.71, 1.4])) if ready else 0.0,
            outstanding_tokens=draw(st.integers(0, 5000)) if ready else 0,
            ready_at_s=tuple(at_s + 30.0 * i for i in range(starting)),
        )
    bins = draw(st.sampled_from([0, 1, 60, 1500]))
    chance = np.random.default_rng(draw(st.integers(0, 5)))
    level = draw(st.sampled_from([0.0, 500.0, 50_000.0]))
    keys = [(m, r) for m in limits.models for r in limits.regions]
    ended = {key: chance.poisson(5.0, bins).astype(float) for key in keys}
    demand = DemandHistory(
        bin_s=BIN_S,
        until_s=at_s // BIN_S * BIN_S,
        interactive={key: level * chance.gamma(2.0, 0.5, bins) for key in keys},
        niw={key: 0.3 * level * chance.gamma(0.5, 2.0, bins) for key in keys},
        ended=ended,
        missed={key: np.floor(chance.uniform(0, 0.3) * series) for key, series in ended.items()},
    )
    queued = {model: draw(st.sampled_from([0, 700, 10**9])) for model in limits.models}
    return Observation(
        at_s=at_s,
        limits=limits,
        placements=states,
        demand=demand,
        niw_queued_tokens=queued,
        niw_due={model: ((at_s + 3600.0, float(tokens)),) for model, tokens in queued.items() if tokens},
    )


def applied(seen: Observation, plan: ScalingPlan) -> Observation:
    """Right after the plan was applied: new servers start, others drain (starting ones first), nothing else changed."""
    states = {}
    for p, state in seen.placements.items():
        surplus = max(0, state.active - plan.counts[p])
        starting = max(0, state.starting - surplus) + max(0, plan.counts[p] - state.active)
        ready = plan.counts[p] - starting
        states[p] = dataclasses.replace(
            state,
            starting=starting,
            ready=ready,
            draining=state.draining + surplus,
            utilisation=state.utilisation if ready else 0.0,
            outstanding_tokens=state.outstanding_tokens if ready else 0,
            ready_at_s=(*state.ready_at_s, *[seen.at_s + 60.0] * starting)[:starting],
        )
    return dataclasses.replace(seen, placements=states, previous=plan)


def as_text(plan: ScalingPlan) -> str:
    """Every bit of a plan, without the only number in it that depends on the machine."""
    if plan.solve is not None:
        plan = dataclasses.replace(plan, solve=dataclasses.replace(plan.solve, solve_wall_s=0.0))
    return repr(plan)


def gpus_held(seen: Observation, plan: ScalingPlan) -> dict:
    """By region and GPU type while the plan comes true: what it removes drains first and still holds its GPUs."""
    held = defaultdict(float)
    for p, state in seen.placements.items():
        servers = max(plan.counts[p], state.active) + state.draining
        held[p.region, p.gpu_type] += seen.limits.capacity[p.model, p.gpu_type].gpus * servers
    return held


# One decision.


@every_policy
def test_a_plan_is_whole_and_every_change_has_its_reason(name, parameters):
    policy = make_policy(name, parameters)

    @quickly
    @given(observations(policy.roles))
    def law(seen):
        plan = policy.decide(seen)
        assert set(plan.counts) == set(seen.limits.placements())
        assert all(isinstance(count, int) and count >= 0 for count in plan.counts.values())
        assert all(count >= 0 for count in plan.sleeping.values())
        assert plan.next_decision_s > seen.at_s
        changes = {p: plan.counts[p] - state.active for p, state in seen.placements.items()}
        assert {s.placement: s.change for s in plan.steps} == {p: change for p, change in changes.items() if change}
        assert len(plan.steps) == len({s.placement for s in plan.steps})
        assert all(step.reason.strip() for step in plan.steps)

    law()


@every_policy
def test_no_plan_takes_gpus_that_are_not_free(name, parameters):
    policy = make_policy(name, parameters)

    @quickly
    @given(observations(policy.roles))
    def law(seen):
        for key, gpus in gpus_held(seen, policy.decide(seen)).items():
            assert gpus <= seen.limits.quota_gpus[key] + 1e-9

    law()


@every_policy
def test_every_silo_has_its_minimum_unless_no_gpu_is_free(name, parameters):
    policy = make_policy(name, parameters)

    @quickly
    @given(observations(policy.roles))
    def law(seen):
        plan = policy.decide(seen)
        held = gpus_held(seen, plan)
        for silo in {p.silo for p in seen.placements}:
            places = [p for p in seen.placements if p.silo == silo]
            planned = sum(plan.counts[p] for p in places)
            before = sum(seen.placements[p].active for p in places)
            assert planned >= min(before, seen.limits.min_servers)
            if planned < seen.limits.min_servers:
                for p in places:
                    free = seen.limits.quota_gpus[p.region, p.gpu_type] - held[p.region, p.gpu_type]
                    assert free < seen.limits.capacity[p.model, p.gpu_type].gpus

    law()


@every_policy
def test_the_same_observation_gives_the_same_bytes(name, parameters):
    policy = make_policy(name, parameters)

    @quickly
    @given(observations(policy.roles))
    def law(seen):
        first, second = policy.decide(seen), make_policy(name, parameters).decide(seen)
        assert as_text(first) == as_text(second)
        ((seen_again, plan_again),) = decode_all([json.loads(json.dumps(encode(seen, first, None)))])
        assert plan_again == first
        assert as_text(policy.decide(seen_again)) == as_text(first)

    law()


@every_policy
def test_a_plan_applied_and_looked_at_again_changes_nothing_more(name, parameters):
    policy = make_policy(name, parameters)

    @quickly
    @given(observations(policy.roles))
    def law(seen):
        plan = policy.decide(seen)
        after = applied(seen, plan)
        second = policy.decide(after)
        if name not in EXCHANGES:
            assert second.counts == plan.counts
        assert policy.decide(applied(after, second)).counts == second.counts

    law()


# Many decisions.


class SteadyFleet:
    """A fleet under a load that is what it is: servers start in their time and drain in a minute, and a silo's
    utilisation is its load over what its READY servers sustain.

    Interactive tokens/s go to interactive (or shared) servers, the part above 0.7 of their capacity to mixed ones; NIW
    goes to batch servers, or to the shared ones.
    """

    def __init__(self, limits: FleetLimits, interactive: dict, niw: dict) -> None:
        self.limits, self.interactive, self.niw = limits, interactive, niw
        self.ready_s = {p: [-1.0] * (1 if i == 0 else 0) for i, p in enumerate(limits.placements())}
        self.drained_s = {p: [] for p in limits.placements()}
        self.previous = None
        bins = round(30 * 3600 / BIN_S)
        self.before = round(26 * 3600 / BIN_S)
        self.history = {key: np.full(bins, load) for key, load in interactive.items()}
        self.niw_history = {key: np.full(bins, load) for key, load in niw.items()}

    def observe(self, at_s: float) -> Observation:
        count = self.before + int(at_s // BIN_S)
        return Observation(
            at_s=at_s,
            limits=self.limits,
            placements=self.states(at_s),
            demand=DemandHistory(
                bin_s=BIN_S,
                until_s=at_s // BIN_S * BIN_S,
                interactive={key: series[:count] for key, series in self.history.items()},
                niw={key: series[:count] for key, series in self.niw_history.items()},
                ended={key: np.ones(count) for key in self.history},
                missed={key: np.zeros(count) for key in self.history},
            ),
            niw_queued_tokens=dict.fromkeys(self.limits.models, 0),
            previous=self.previous,
        )

    def states(self, at_s: float) -> dict:
        ready = {p: sum(t <= at_s for t in times) for p, times in self.ready_s.items()}
        sustained = defaultdict(float)
        for p, count in ready.items():
            sustained[p.silo] += count * self.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s
        loads = {silo: self.load(silo, sustained) for silo in sustained}
        return {
            p: PlacementState(
                starting=len(self.ready_s[p]) - ready[p],
                ready=ready[p],
                draining=sum(t > at_s for t in self.drained_s[p]),
                utilisation=loads[p.silo] / sustained[p.silo] if ready[p] else 0.0,
                outstanding_tokens=round(loads[p.silo]) if ready[p] else 0,
                ready_at_s=tuple(sorted(t for t in self.ready_s[p] if t > at_s)),
            )
            for p in self.ready_s
        }

    def load(self, silo, sustained) -> float:
        asked, batch = self.interactive[silo.pool], self.niw[silo.pool]
        if silo.role is Role.SHARED:
            return asked + batch
        if silo.role is Role.BATCH:
            return batch
        spilt = max(0.0, asked - 0.7 * sustained[silo._replace(role=Role.INTERACTIVE)])
        has_mixed = Role.MIXED in self.limits.roles
        return spilt if silo.role is Role.MIXED else asked - spilt if has_mixed else asked

    def apply(self, at_s: float, plan: ScalingPlan) -> None:
        self.previous = plan
        for p, wanted in plan.counts.items():
            times = sorted(self.ready_s[p])
            self.drained_s[p] = [t for t in self.drained_s[p] if t > at_s] + [at_s + 60.0] * (len(times) - wanted)
            new = [at_s + self.limits.capacity[p.model, p.gpu_type].start_s] * (wanted - len(times))
            self.ready_s[p] = times[:wanted] + new


@st.composite
def steady_fleets(draw, roles: tuple[Role, ...]) -> SteadyFleet:
    limits = draw(fleets(roles))
    limits = dataclasses.replace(limits, quota_gpus={key: max(4.0, gpus) for key, gpus in limits.quota_gpus.items()})
    keys = [(m, r) for m in limits.models for r in limits.regions]
    loads = st.sampled_from([0.0, 90.0, 1000.0, 1001.0, 4567.0, 40_000.0])
    return SteadyFleet(
        limits, {key: draw(loads) for key in keys}, {key: draw(st.sampled_from([0.0, 700.0])) for key in keys}
    )


def comes_to_rest(policy, examples: int) -> None:
    """After one and three quarter hours, one and a half more without a step: over the end of a period of LT."""

    @settings(quickly, max_examples=examples)
    @given(steady_fleets(policy.roles))
    def law(fleet):
        at_s = 0.0
        while at_s < 3.25 * 3600.0:
            plan = policy.decide(fleet.observe(at_s))
            assert at_s < 1.75 * 3600.0 or plan.steps == ()
            fleet.apply(at_s, plan)
            at_s = plan.next_decision_s

    law()


@every_policy
def test_a_constant_load_comes_to_rest(name, parameters):
    comes_to_rest(make_policy(name, parameters), examples=2)


@pytest.mark.slow
@every_policy
def test_a_constant_load_comes_to_rest_on_many_fleets(name, parameters):
    comes_to_rest(make_policy(name, parameters), examples=15)


@every_policy
def test_a_recorded_run_decides_again_to_the_same_bytes(name, parameters):
    """Under a load that wanders, from the lines of a record alone."""
    policy = make_policy(name, parameters)

    @settings(quickly, max_examples=2)
    @given(steady_fleets(policy.roles), st.integers(0, 99))
    def law(fleet, seed):
        chance = np.random.default_rng(seed)
        at_s, before, lines, plans = 0.0, None, [], []
        for _ in range(15):
            for key in fleet.interactive:
                fleet.interactive[key] *= float(np.exp(chance.normal(0, 0.4)))
            seen = fleet.observe(at_s)
            plan = policy.decide(seen)
            lines.append(json.dumps(encode(seen, plan, before), allow_nan=False))
            plans.append(as_text(plan))
            fleet.apply(at_s, plan)
            before, at_s = seen, plan.next_decision_s + 0.004
        replayed = make_policy(name, parameters)
        decoded = decode_all(json.loads(line) for line in lines)
        assert [as_text(replayed.decide(seen)) for seen, _ in decoded] == plans

    law()
