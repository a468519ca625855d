"""What each policy does, and laws that hold for all of them."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.catalogue import make_policy, policy_names
from controller.types import Capacity, FleetLimits, Forecast, Memory, Placement, PlacementState, Pool, ScalingPlan

WEST = Placement("llama", "west", "h100")
QUICK = {"forecast": {"method": "seasonal-naive"}}


def policy(name, **parameters):
    return make_policy(name, {**(QUICK if name.startswith("lt") else {}), **parameters})


def after(seen, plan, **changes):
    """The observation of a fleet that has applied the plan."""
    states = {p: dataclasses.replace(s, starting=0, ready=plan.counts[p]) for p, s in seen.placements.items()}
    return dataclasses.replace(seen, placements=states, previous=plan, **changes)


def applied(seen, plan):
    """The observation right after the plan was applied: new servers start, others drain, nothing else has changed."""
    states = {}
    for p, s in seen.placements.items():
        ready = min(s.ready, plan.counts[p])
        states[p] = dataclasses.replace(
            s,
            starting=plan.counts[p] - ready,
            ready=ready,
            draining=s.draining + max(0, s.active - plan.counts[p]),
            utilisation=s.utilisation if ready else 0.0,
        )
    return dataclasses.replace(seen, placements=states, previous=plan)


# Laws.


@st.composite
def observations(draw, make_limits, make_seen):
    gpus = draw(st.sampled_from([0.5, 1.0, 2.0]))
    limits = make_limits(
        gpu_types=draw(st.sampled_from([("h100",), ("h100", "a100")])),
        gpus=gpus,
        quota=draw(st.sampled_from([4.0, 7.0, 12.0])),
        min_servers=draw(st.integers(0, 1)),
        usd={"h100": 4.0, "a100": 3.0},
    )
    room = {key: quota / gpus for key, quota in limits.quota_gpus.items()}
    states = {}
    for p in limits.placements():
        counts = []
        for _ in range(3):
            count = draw(st.integers(0, int(min(3, room[p.region, p.gpu_type]))))
            room[p.region, p.gpu_type] -= count
            counts.append(count)
        states[p] = PlacementState(
            starting=counts[0],
            ready=counts[1],
            draining=counts[2],
            utilisation=draw(st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.71, 1.4])) if counts[1] else 0.0,
        )
    level = draw(st.sampled_from([0.0, 500.0, 3000.0, 50_000.0]))
    return make_seen(limits, states, at_s=3600.0, bins=60, level=level, niw=draw(st.sampled_from([0.0, 1000.0])))


@pytest.mark.parametrize("name", policy_names())
def test_no_plan_exceeds_a_quota_goes_below_a_minimum_or_changes_when_repeated(name, make_limits, make_seen):
    chosen = policy(name)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(observations(make_limits, make_seen))
    def law(seen):
        plan = chosen.decide(seen)
        assert plan == _without_wall_time(chosen.decide(seen), plan)
        assert set(plan.counts) == set(seen.limits.placements())
        assert plan.next_decision_s > seen.at_s
        assert {s.placement: s.change for s in plan.steps} == {
            p: plan.counts[p] - state.active for p, state in seen.placements.items() if plan.counts[p] != state.active
        }
        assert all(step.reason for step in plan.steps)
        for (region, gpu_type), quota in seen.limits.quota_gpus.items():
            held = sum(
                seen.limits.capacity[p.model, gpu_type].gpus * (max(plan.counts[p], state.active) + state.draining)
                for p, state in seen.placements.items()
                if (p.region, p.gpu_type) == (region, gpu_type)
            )
            assert held <= quota + 1e-9
        for pool in {p.pool for p in seen.placements}:
            before = sum(state.active for p, state in seen.placements.items() if p.pool == pool)
            planned = sum(count for p, count in plan.counts.items() if p.pool == pool)
            assert planned >= min(before, seen.limits.min_servers)
        second = chosen.decide(applied(seen, plan))
        third = chosen.decide(applied(applied(seen, plan), second))
        assert third.counts == second.counts
        # These exchange GPU types in two plans: the new server first, then the old one goes.
        if name not in ("lt-i", "mpc", "oracle"):
            assert second.counts == plan.counts

    law()


def _without_wall_time(plan, like):
    if plan.solve is None:
        return plan
    same = dataclasses.replace(plan.solve, solve_wall_s=like.solve.solve_wall_s)
    return dataclasses.replace(plan, solve=same)


@pytest.mark.parametrize("name", policy_names())
def test_a_constant_load_comes_to_rest(name, make_limits, make_seen):
    """Utilisation follows from the servers: 2.6 servers' worth of work in each pool."""
    limits = make_limits(min_servers=1, theta=1000.0, quota=20.0)
    chosen = policy(name)
    seen = make_seen(limits, 6, at_s=7200.0, bins=120, level=2600.0, utilisation=2.6 / 6)
    counts = []
    for step in range(70):
        plan = chosen.decide(seen)
        counts.append(tuple(plan.counts.values()))
        at_s = plan.next_decision_s
        seen = after(seen, plan, at_s=at_s, demand=make_seen(limits, at_s=at_s, bins=120 + step, level=2600.0).demand)
        seen = dataclasses.replace(
            seen,
            placements={p: dataclasses.replace(s, utilisation=2.6 / s.ready) for p, s in seen.placements.items()},
        )
    assert len(set(counts[-40:])) == 1
    assert all(2 <= count <= 9 for count in counts[-1])


@pytest.mark.parametrize("name", policy_names())
def test_a_pool_below_its_minimum_is_brought_back(name, make_limits, make_seen):
    limits = make_limits(min_servers=2)
    states = {p: PlacementState(ready=2, utilisation=0.5) for p in limits.placements()}
    states[WEST] = PlacementState()
    plan = policy(name).decide(make_seen(limits, states, at_s=600.0))
    assert plan.counts[WEST] == 2
    assert any("below the minimum of 2" in s.reason for s in plan.steps)


# Static and reactive.


def test_static_keeps_what_stood_first_and_replaces_what_failed(make_limits, make_seen):
    limits = make_limits()
    static = policy("static")
    plan = static.decide(make_seen(limits, 3))
    failed = after(make_seen(limits, 3), plan, at_s=60.0)
    states = {**failed.placements, WEST: PlacementState(ready=1, utilisation=2.0)}
    again = static.decide(dataclasses.replace(failed, placements=states))
    assert again.counts[WEST] == 3
    assert again.steps[0].reason == "3 servers to keep"


def test_static_goes_to_the_counts_given_and_refuses_an_unknown_placement(make_limits, make_seen):
    seen = make_seen(make_limits(), 3)
    plan = policy("static", counts={"llama@west/h100": 5}, servers_per_pool=1).decide(seen)
    assert plan.counts[WEST] == 5
    assert plan.counts[Placement("bloom", "east", "h100")] == 1
    with pytest.raises(ValueError, match=r"llama@north/h100.*llama@west/h100"):
        policy("static", counts={"llama@north/h100": 5}).decide(seen)


@pytest.mark.parametrize(
    ("preset", "utilisation", "change"),
    [
        ("paper", 0.71, 1),
        ("paper", 0.70, 0),
        ("paper", 0.30, 0),
        ("paper", 0.29, -1),
        ("code", 0.51, 1),
        ("code", 0.29, 0),
        ("code", 0.24, -1),
    ],
)
def test_reactive_steps_by_one_at_its_thresholds(preset, utilisation, change, make_limits, make_seen):
    plan = policy("reactive", preset=preset).decide(make_seen(make_limits(), 4, utilisation=utilisation))
    assert plan.counts[WEST] == 4 + change


def test_reactive_waits_for_its_cooldown_in_each_pool(make_limits, make_seen):
    reactive = policy("reactive", cooldown_out_s=65.0, interval_s=5.0)
    seen = make_seen(make_limits(), 2, utilisation=0.9)
    plan = reactive.decide(seen)
    assert plan.steps[0].reason == "utilisation 0.90 > 0.70"
    assert plan.next_decision_s == 5.0
    assert reactive.decide(after(seen, plan, at_s=60.0)).counts[WEST] == 3
    assert reactive.decide(after(seen, plan, at_s=65.0)).counts[WEST] == 4


def test_reactive_never_takes_starting_servers_for_idle_ones(make_limits, make_seen):
    limits = make_limits()
    states = {p: PlacementState(starting=2) for p in limits.placements()}
    assert policy("reactive").decide(make_seen(limits, states)).steps == ()


def test_reactive_starts_a_server_for_an_empty_pool_that_is_asked_for(make_limits, make_seen):
    limits = make_limits(min_servers=0)
    asked = make_seen(limits, 0, at_s=60.0, series={("llama", "west"): np.array([5.0])})
    plan = policy("reactive").decide(asked)
    assert {p: c for p, c in plan.counts.items() if c} == {WEST: 1}
    assert plan.steps[0].reason == "requests and no server"


def test_a_pool_of_two_gpu_types_grows_on_the_cheap_one_and_shrinks_on_the_dear_one(make_seen):
    cheap, dear = Placement("llama", "west", "a100"), Placement("llama", "west", "h100")
    limits = FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity={
            ("llama", "h100"): Capacity(theta_tokens_per_s=2000.0, gpus=1.0, start_s=60.0, usd_per_gpu_h=9.0),
            ("llama", "a100"): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=60.0, usd_per_gpu_h=3.0),
        },
        quota_gpus={("west", "h100"): 5.0, ("west", "a100"): 3.0},
    )
    reactive = policy("reactive")
    grown = reactive.decide(make_seen(limits, 2, utilisation=0.9))
    assert (grown.counts[cheap], grown.counts[dear]) == (3, 2)
    full = {cheap: PlacementState(ready=3, utilisation=0.9), dear: PlacementState(ready=2, utilisation=0.9)}
    assert reactive.decide(make_seen(limits, full)).counts[dear] == 3
    shrunk = reactive.decide(make_seen(limits, 2, utilisation=0.1))
    assert (shrunk.counts[cheap], shrunk.counts[dear]) == (2, 1)


def test_gpus_still_draining_are_not_given_away(make_limits, make_seen):
    limits = make_limits(models=("llama",), regions=("west",), quota=4.0)
    states = {WEST: PlacementState(ready=2, draining=2, utilisation=0.9)}
    assert policy("reactive").decide(make_seen(limits, states)).steps == ()


# Long-term policies.


def test_lt_i_goes_to_the_program_s_count_at_once_and_holds_it_for_the_period(make_limits, make_seen):
    limits = make_limits(theta=1000.0, quota=20.0)
    seen = make_seen(limits, 2, at_s=3600.0, bins=60, level=5500.0, utilisation=0.5)
    plan = policy("lt-i").decide(seen)
    assert all(plan.counts[p] >= 5 for p in limits.placements())
    assert plan.solve is not None and plan.memory.budget_until_s == 7200.0
    assert plan.next_decision_s == 3660.0
    assert "budget" in plan.steps[0].reason and "3600 s to 7200 s" in plan.steps[0].reason
    held = policy("lt-i").decide(after(seen, plan, at_s=3660.0))
    assert held.counts == plan.counts and held.solve is None and held.steps == ()
    renewed = policy("lt-i").decide(after(seen, plan, at_s=7199.5))
    assert renewed.solve is not None and renewed.memory.budget_until_s == 10_800.0


def test_lt_i_finishes_an_exchange_once_the_gpus_have_drained(make_limits, make_seen):
    """All GPUs are llama's and the demand is bloom's: first llama leaves, then bloom comes."""
    limits = make_limits(regions=("west",), theta=1000.0, quota=6.0)
    bloom = Placement("bloom", "west", "h100")
    states = {WEST: PlacementState(ready=5, utilisation=0.1), bloom: PlacementState(ready=1, utilisation=1.5)}
    seen = make_seen(limits, states, at_s=3600.0, series={("bloom", "west"): np.full(60, 4000.0)})
    lt_i = policy("lt-i")
    plan = lt_i.decide(seen)
    assert plan.counts == {WEST: 1, bloom: 1}
    assert plan.memory.budget[bloom] >= 4
    drained = after(seen, plan, at_s=3660.0)
    assert lt_i.decide(drained).counts[bloom] == plan.memory.budget[bloom]


@pytest.mark.parametrize("name", ["lt-u", "lt-ua"])
@pytest.mark.parametrize(
    ("standing", "budget", "utilisation", "planned", "reason"),
    [
        (2, 5, 0.74, 3, "utilisation 0.74 > 0.70, below budget 5"),
        (5, 5, 0.95, 5, None),
        (2, 5, 0.60, 2, None),
        (7, 5, 0.20, 6, "utilisation 0.20 < 0.30, above budget 5"),
        (5, 5, 0.10, 5, None),
        (7, 5, 0.50, 7, None),
    ],
)
def test_lt_u_spends_its_budget_one_server_at_a_time_by_utilisation(
    name, standing, budget, utilisation, planned, reason, make_limits, make_seen
):
    limits = make_limits(quota=40.0)
    memory = Memory(budget=dict.fromkeys(limits.placements(), budget), budget_until_s=7200.0)
    previous = ScalingPlan(counts={}, next_decision_s=4000.0, memory=memory)
    plan = policy(name).decide(
        make_seen(limits, standing, at_s=4020.0, utilisation=utilisation, previous=previous, bins=60, level=1000.0)
    )
    assert plan.counts[WEST] == planned
    assert [s.reason for s in plan.steps[:1]] == ([reason] if reason else [])
    assert plan.next_decision_s == 4080.0


@pytest.mark.parametrize(
    ("at_s", "observed", "utilisation", "planned"),
    [
        (6060.0, 5000.0, 0.9, 6),  # 20 minutes left, five times the forecast: beyond the budget
        (5940.0, 5000.0, 0.9, 5),  # too early
        (6060.0, 4990.0, 0.9, 5),  # not five times
        (6060.0, 5000.0, 0.6, 5),  # the thresholds still decide
        (6060.0, 500.0, 0.1, 4),  # half the forecast
        (6060.0, 510.0, 0.1, 5),
        (5940.0, 500.0, 0.1, 5),
        (6060.0, 500.0, 0.5, 5),
    ],
)
def test_lt_ua_leaves_its_budget_late_in_the_hour_when_its_own_forecast_was_wrong(
    at_s, observed, utilisation, planned, make_limits, make_seen
):
    limits = make_limits(quota=40.0)
    forecasts = {
        Pool(m, r): Forecast(
            from_s=3600.0,
            step_s=900.0,
            mean_tokens_per_s=(90_000.0, 90_000.0, 1000.0, 1000.0),
            upper_tokens_per_s=(90_000.0,) * 4,
            upper_quantile=0.9,
            method="arima",
        )
        for m in limits.models
        for r in limits.regions
    }
    memory = Memory(budget=dict.fromkeys(limits.placements(), 5), budget_until_s=7200.0, forecasts=forecasts)
    previous = ScalingPlan(counts={}, next_decision_s=at_s, memory=memory)
    other = np.full(60, 1000.0)  # every other pool has the load it was forecast
    series = {(m, r): other for m in limits.models for r in limits.regions}
    series["llama", "west"] = np.full(60, observed)
    states = {p: PlacementState(ready=5, utilisation=0.5) for p in limits.placements()}
    states[WEST] = PlacementState(ready=5, utilisation=utilisation)
    seen = make_seen(limits, states, at_s=at_s, previous=previous, series=series)
    plan = policy("lt-ua").decide(seen)
    assert plan.counts[WEST] == planned
    assert {p: c for p, c in plan.counts.items() if p != WEST} == dict.fromkeys(set(states) - {WEST}, 5)
    if planned != 5:
        assert "beyond the budget" in plan.steps[0].reason and "x 1000 forecast" in plan.steps[0].reason
    assert policy("lt-u").decide(seen).counts[WEST] == 5


def test_without_history_the_standing_fleet_is_kept_until_there_is_some(make_limits, make_seen):
    limits = make_limits()
    for name in ("lt-i", "lt-u", "lt-ua"):
        plan = policy(name).decide(make_seen(limits, 4))
        assert set(plan.counts.values()) == {4} and plan.solve is None
        assert plan.memory.budget_until_s == 900.0
        later = after(make_seen(limits, 4, utilisation=0.5), plan, at_s=900.0)
        later = dataclasses.replace(later, demand=make_seen(limits, at_s=900.0, bins=15, level=100.0).demand)
        assert policy(name).decide(later).solve is not None


def test_a_compressed_run_decides_on_its_own_times(make_limits, make_seen):
    lt_u = policy(
        "lt-u",
        period_s=60.0,
        interval_s=5.0,
        niw_window_s=60.0,
        forecast={"method": "seasonal-naive", "step_s": 5.0, "season_s": 180.0},
    )
    seen = make_seen(make_limits(), 2, at_s=120.0, bins=120, bin_s=1.0, level=1500.0, utilisation=0.9)
    plan = lt_u.decide(seen)
    assert plan.memory.budget_until_s == 180.0 and plan.next_decision_s == 125.0
    forecast = plan.memory.forecasts[Pool("llama", "west")]
    assert (forecast.from_s, len(forecast.mean_tokens_per_s)) == (120.0, 12)
    assert "too little history" in forecast.fell_back_because


def test_the_paper_s_rule_plans_for_the_peak_of_the_mean(make_limits, make_seen):
    limits = make_limits(models=("llama",), regions=("west",), theta=1000.0, quota=50.0)
    spiky = np.tile(np.repeat([2000.0, 2000.0, 2000.0, 6000.0], 15), 24)
    seen = make_seen(limits, 3, at_s=24 * 3600.0, series={("llama", "west"): spiky})
    with_quantile = make_policy("lt-i", {"forecast": {"method": "last-level"}}).decide(seen)
    mean_only = make_policy("lt-i", {"forecast": {"method": "last-level", "peak_quantile": None}}).decide(seen)
    assert mean_only.counts[WEST] == 3
    assert with_quantile.counts[WEST] == 6


def test_a_tenth_of_the_last_hour_s_niw_load_is_planned_for(make_limits, make_seen):
    limits = make_limits(models=("llama",), regions=("west",), theta=1000.0, quota=50.0)
    quiet = make_seen(limits, 3, at_s=7200.0, bins=120, level=2500.0)
    busy = make_seen(limits, 3, at_s=7200.0, bins=120, level=2500.0, niw=20_000.0)
    assert policy("lt-i").decide(quiet).counts[WEST] == 3
    assert policy("lt-i").decide(busy).counts[WEST] == 5


@pytest.mark.parametrize("name", ["lt-i", "lt-u", "lt-ua"])
def test_no_budget_leaves_a_pool_that_is_asked_for_without_a_server(name, make_limits, make_seen):
    limits = make_limits(min_servers=0)
    memory = Memory(budget=dict.fromkeys(limits.placements(), 0), budget_until_s=7200.0)
    previous = ScalingPlan(counts={}, next_decision_s=4000.0, memory=memory)
    seen = make_seen(limits, 0, at_s=4020.0, previous=previous, bins=60, level=1000.0)
    plan = policy(name).decide(seen)
    assert set(plan.counts.values()) == {1}


@pytest.mark.parametrize("name", ["reactive", "hpa", "chiron"])
def test_the_first_server_of_a_pool_is_not_given_up_while_it_starts(name, make_limits, make_seen):
    limits = dataclasses.replace(make_limits(min_servers=0), roles=make_policy(name, {}).roles)
    states = {p: PlacementState(starting=1, ready_at_s=(9000.0,)) for p in limits.placements()}
    seen = make_seen(limits, states, at_s=8000.0, bins=60, level=0.0)
    plan = make_policy(name, {}).decide(seen)
    for pool in {p.pool for p in limits.placements()}:
        assert sum(count for p, count in plan.counts.items() if p.pool == pool and p.role.takes_interactive) >= 1
