"""Laws of the long-term program: optimal where enumeration can tell, feasible and bounded wherever it stops."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.solver import big_m_cost, random_problem
from controller.program.demand import Demand
from controller.program.ilp import ScalingProblem, SolverSettings, solve
from controller.program.table import tabulate
from controller.types import Capacity, FleetLimits, Placement, Pool

EXACT = SolverSettings(gap=0.0)
ROUNDED_ONLY = SolverSettings(gap=1.0)
NO_TIME = SolverSettings(gap=0.0, time_limit_s=0.0)


@st.composite
def problems(draw: st.DrawFn, *, servers: float = 3.0) -> ScalingProblem:
    """Up to two models, two regions, two GPU types, whole prices, thetas and quotas; often infeasible."""
    models = ("a", "b")[: draw(st.integers(1, 2))]
    regions = ("w", "e")[: draw(st.integers(1, 2))]
    gpu_types = ("k", "l")[: draw(st.integers(1, 2))]
    capacity = {
        (m, g): Capacity(
            theta_tokens_per_s=float(draw(st.integers(1, 12))),
            gpus=draw(st.sampled_from([0.5, 1.0, 2.0])),
            start_s=float(draw(st.sampled_from([0, 300, 1800, 7200]))),
            usd_per_gpu_h=float(draw(st.integers(1, 6))),
        )
        for m in models
        for g in gpu_types
    }
    limits = FleetLimits(
        models=models,
        regions=regions,
        capacity=capacity,
        quota_gpus={(r, g): float(draw(st.integers(0, 2))) for r in regions for g in gpu_types},
        min_servers=draw(st.integers(0, 1)),
    )
    return ScalingProblem(
        limits=limits,
        standing={p: draw(st.integers(0, 3)) for p in limits.placements()},
        demand=Demand(
            local={Pool(m, r): float(draw(st.integers(0, 12))) for m in models for r in regions},
            anywhere={m: float(draw(st.integers(0, 5))) for m in models},
        ),
        epsilon=draw(st.sampled_from([0.0, 0.5, 0.8, 1.0])),
        period_s=draw(st.sampled_from([300.0, 3600.0])),
    )


def allowed(problem: ScalingProblem, counts: dict[Placement, int], *, demand: bool = True) -> bool:
    """The four families of rows, one after the other."""
    limits, capacity = problem.limits, problem.limits.capacity
    for (region, gpu_type), quota in limits.quota_gpus.items():
        here = [p for p in counts if (p.region, p.gpu_type) == (region, gpu_type)]
        if sum(capacity[p.model, gpu_type].gpus * counts[p] for p in here) > quota + 1e-6:
            return False
    if not demand:
        return True
    for model in limits.models:
        tokens = dict.fromkeys(limits.regions, 0.0)
        servers = dict.fromkeys(limits.regions, 0)
        for p, count in counts.items():
            if p.model == model:
                tokens[p.region] += capacity[model, p.gpu_type].theta_tokens_per_s * count
                servers[p.region] += count
        local = {r: problem.demand.local.get(Pool(model, r), 0.0) for r in limits.regions}
        if any(tokens[r] < problem.epsilon * local[r] - 1e-4 for r in limits.regions):
            return False
        if any(servers[r] < limits.min_servers for r in limits.regions):
            return False
        if sum(tokens.values()) < sum(local.values()) + problem.demand.anywhere.get(model, 0.0) - 1e-4:
            return False
    return True


def cost(problem: ScalingProblem, counts: dict[Placement, int]) -> float:
    total = 0.0
    for p, count in counts.items():
        c = problem.limits.capacity[p.model, p.gpu_type]
        usd_per_h = c.gpus * c.usd_per_gpu_h
        total += usd_per_h * count * problem.period_s / 3600
        total += usd_per_h * max(0, count - problem.standing.get(p, 0)) * c.start_s / 3600
    return total


def least_cost(problem: ScalingProblem) -> float | None:
    """By trying every vector of counts; None where none is allowed."""
    placements = problem.limits.placements()
    most = [
        int(problem.limits.quota_gpus[p.region, p.gpu_type] / problem.limits.capacity[p.model, p.gpu_type].gpus)
        for p in placements
    ]
    if math.prod(m + 1 for m in most) > 20_000:
        return math.nan
    plans = (dict(zip(placements, v, strict=True)) for v in itertools.product(*(range(m + 1) for m in most)))
    return min((cost(problem, plan) for plan in plans if allowed(problem, plan)), default=None)


def standing_within_quotas(problem: ScalingProblem) -> bool:
    return allowed(problem, dict(problem.standing), demand=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_no_plan_that_enumeration_finds_is_cheaper(problem: ScalingProblem) -> None:
    best = least_cost(problem)
    if best is not None and math.isnan(best):
        return
    answer = solve(problem, EXACT)
    if best is None:
        assert answer.report.termination.endswith("with a shortfall")
    else:
        assert answer.report.objective == pytest.approx(best, abs=1e-6)
        assert answer.report.gap == pytest.approx(0, abs=1e-6)
        assert allowed(problem, dict(answer.counts))
        assert answer.report.shortfall_tokens_per_s == 0


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([EXACT, ROUNDED_ONLY, NO_TIME]))
def test_wherever_it_stops_the_plan_is_within_quotas_and_its_numbers_hold(
    problem: ScalingProblem, how: SolverSettings
) -> None:
    answer = solve(problem, how)
    counts, report = dict(answer.counts), answer.report
    assert set(counts) == set(problem.limits.placements())
    assert allowed(problem, counts, demand=False)
    # What stands may exceed a quota; what is kept of it within the quota costs no start.
    if standing_within_quotas(problem):
        assert report.objective == pytest.approx(cost(problem, counts), abs=1e-6)
    assert report.best_bound is not None and report.gap is not None
    assert report.best_bound <= report.objective + 1e-9
    assert report.gap == pytest.approx(1 - report.best_bound / report.objective if report.objective else 0.0, abs=1e-9)
    if not report.termination.endswith("with a shortfall"):
        assert allowed(problem, counts)
        best = least_cost(problem)
        if best is not None and not math.isnan(best):
            assert report.best_bound <= best + 1e-6


@pytest.mark.parametrize("size", [(4, 3, 1), (6, 4, 3), (20, 10, 3)])
def test_a_rounded_plan_serves_everything_within_its_stated_gap(size: tuple[int, int, int]) -> None:
    problem = random_problem(*size, seed=1)
    rough, fine = solve(problem, ROUNDED_ONLY), solve(problem, SolverSettings(gap=0.005, time_limit_s=20.0))
    assert rough.report.termination.endswith(": rounded") or "stood" in rough.report.termination
    for answer in (rough, fine):
        assert allowed(problem, dict(answer.counts))
        assert answer.report.objective == pytest.approx(cost(problem, dict(answer.counts)))
    assert fine.report.objective <= rough.report.objective * (1 + 1e-9)
    assert rough.report.best_bound is not None and rough.report.gap is not None
    assert rough.report.best_bound <= fine.report.objective * (1 + 1e-9)
    assert rough.report.gap < 0.05


def test_without_any_time_there_is_a_plan_with_a_bound() -> None:
    problem = random_problem(8, 4, 2, seed=3)
    report = solve(problem, NO_TIME).report
    assert report.best_bound is not None and report.gap is not None and 0 < report.gap < 0.1
    assert report.termination.startswith("Solution Found: ")


@pytest.mark.slow
def test_the_largest_fleet_is_planned_within_one_per_cent_by_rounding_alone() -> None:
    problem = random_problem(100, 30, 4, seed=0)
    report = solve(problem, ROUNDED_ONLY).report
    assert report.gap is not None and report.gap < 0.01
    assert report.shortfall_tokens_per_s == 0


def test_a_large_fleet_beyond_its_gpus_gets_a_plan_that_shares_them_out() -> None:
    problem = random_problem(30, 10, 3, seed=2)
    tripled = Demand(local={pool: 3 * rho for pool, rho in problem.demand.local.items()}, anywhere={})
    problem = dataclasses.replace(problem, demand=tripled)
    answer = solve(problem, SolverSettings(gap=0.02, time_limit_s=5.0))
    assert allowed(problem, dict(answer.counts), demand=False)
    assert answer.report.termination.endswith("with a shortfall")
    assert answer.report.gap is not None and answer.report.gap < 0.05
    asked = sum(tripled.local.values())
    assert 0.3 * asked < answer.report.shortfall_tokens_per_s < 0.8 * asked
    for model in problem.limits.models:
        served = sum(
            problem.limits.capacity[model, p.gpu_type].theta_tokens_per_s * count
            for p, count in answer.counts.items()
            if p.model == model
        )
        assert served > 0.15 * tripled.of_model(model)


def test_the_same_large_problem_has_the_same_answer() -> None:
    settings = SolverSettings(gap=0.004, time_limit_s=60.0)
    first, second = (solve(random_problem(12, 6, 3, seed=5), settings) for _ in range(2))
    assert first.counts == second.counts
    assert dataclasses.replace(first.report, solve_wall_s=0) == dataclasses.replace(second.report, solve_wall_s=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_form_with_a_big_m_has_the_same_optimum(seed: int) -> None:
    problem = random_problem(3, 2, 2, seed)
    clean = solve(problem, EXACT).report
    assert clean.gap == pytest.approx(0, abs=1e-9)
    assert big_m_cost(tabulate(problem), gap=0.0, time_limit_s=60.0) == pytest.approx(clean.objective, rel=1e-6)


# What binds, and what it is worth.


def fleet(make_limits: Any, **changes: Any) -> FleetLimits:
    limits: FleetLimits = make_limits(models=("llama",), theta=1000.0, start_s=0.0, min_servers=0, **changes)
    return limits


def asked(limits: FleetLimits, west: float, east: float, *, epsilon: float) -> ScalingProblem:
    local = {Pool("llama", "west"): west, Pool("llama", "east"): east}
    demand = Demand(local=local, anywhere={})
    return ScalingProblem(limits=limits, standing={}, demand=demand, epsilon=epsilon, period_s=1800.0)


def prices(problem: ScalingProblem) -> dict[tuple[str, str], float]:
    return {(b.family, b.subject): b.shadow_price for b in solve(problem, EXACT).report.binding}


def test_shadow_prices_are_dollars_per_hour_whatever_the_period(make_limits: Any) -> None:
    """A server costs 4 USD/h and serves 1,000 tokens/s."""
    worth = prices(asked(fleet(make_limits), 5000.0, 1000.0, epsilon=0.5))
    assert worth == {("global", "llama"): pytest.approx(0.004)}


def test_a_local_share_that_binds_costs_what_the_dearer_region_costs_more(make_limits: Any) -> None:
    limits = fleet(make_limits, gpu_types=("cheap", "dear"), usd={"cheap": 3.0, "dear": 5.0})
    limits = dataclasses.replace(limits, quota_gpus={("east", "cheap"): 50.0, ("west", "dear"): 50.0})
    worth = prices(asked(limits, 4000.0, 4000.0, epsilon=0.5))
    assert worth[("global", "llama")] == pytest.approx(0.003)
    assert worth[("local", "llama@west")] == pytest.approx(0.002)
    assert ("local", "llama@east") not in worth


def test_a_quota_that_binds_is_worth_what_one_gpu_more_would_save(make_limits: Any) -> None:
    limits = fleet(make_limits, gpu_types=("cheap", "dear"), usd={"cheap": 3.0, "dear": 5.0}, gpus=2.0)
    limits = dataclasses.replace(limits, quota_gpus={("west", "cheap"): 4.0, ("west", "dear"): 50.0})
    worth = prices(asked(limits, 4000.0, 0.0, epsilon=0.0))
    assert worth[("quota", "west/cheap")] == pytest.approx(-2.0)
    assert worth[("global", "llama")] == pytest.approx(0.010)


def test_a_minimum_that_binds_costs_its_servers(make_limits: Any) -> None:
    limits = dataclasses.replace(fleet(make_limits), min_servers=2)
    assert prices(asked(limits, 100.0, 0.0, epsilon=1.0)) == {
        ("minimum", "llama@west"): pytest.approx(4.0),
        ("minimum", "llama@east"): pytest.approx(4.0),
    }


def test_at_most_twenty_rows_are_named_those_that_weigh_most_first() -> None:
    problem = random_problem(20, 10, 3, seed=0)
    binding = solve(problem, ROUNDED_ONLY).report.binding
    assert len(binding) == 20
    assert all(b.shadow_price < 0 if b.family == "quota" else b.shadow_price > 0 for b in binding)


# Numbers that make no sense, or leave nothing to do.


@pytest.mark.parametrize("tokens", [math.nan, math.inf])
def test_demand_that_is_no_number_is_refused_when_the_problem_is_made(make_limits: Any, tokens: float) -> None:
    with pytest.raises(ValueError, match="demand of llama@west is"):
        asked(fleet(make_limits), tokens, 0.0, epsilon=0.5)


def test_demand_below_zero_counts_as_none(make_limits: Any) -> None:
    answer = solve(asked(fleet(make_limits), 3000.0, -5000.0, epsilon=0.5), EXACT)
    assert sum(answer.counts.values()) == 3


def test_a_theta_of_zero_serves_nothing_and_fails_nothing(make_limits: Any) -> None:
    limits = make_limits(models=("llama",), theta=0.0, min_servers=1)
    answer = solve(asked(limits, 3000.0, 0.0, epsilon=0.5), EXACT)
    assert sum(answer.counts.values()) == 2
    assert answer.report.shortfall_tokens_per_s == pytest.approx(3000.0)


@pytest.mark.parametrize("quota", [0.0, 0.5])
def test_no_room_for_a_single_server_is_a_shortfall(make_limits: Any, quota: float) -> None:
    answer = solve(asked(fleet(make_limits, quota=quota), 3000.0, 0.0, epsilon=0.5), EXACT)
    assert set(answer.counts.values()) == {0}
    assert answer.report.shortfall_tokens_per_s == pytest.approx(3000.0)
    assert answer.report.termination.endswith("with a shortfall")


@pytest.mark.parametrize("tokens", [1e-9, 1e9, 1e15, 1e300])
def test_demand_of_any_size_gets_a_plan(make_limits: Any, tokens: float) -> None:
    answer = solve(asked(fleet(make_limits), tokens, 10.0, epsilon=0.8))
    assert all(0 <= count <= 10 for count in answer.counts.values())
    assert math.isfinite(answer.report.objective)


def test_more_servers_than_the_quota_allows_are_given_up(make_limits: Any) -> None:
    limits = fleet(make_limits, quota=2.0)
    standing = dict.fromkeys(limits.placements(), 7)
    problem = dataclasses.replace(asked(limits, 4000.0, 0.0, epsilon=0.0), standing=standing)
    assert set(solve(problem, EXACT).counts.values()) == {2}


def test_costs_of_zero_are_a_plan_like_any_other() -> None:
    capacity = {("m", "free"): Capacity(theta_tokens_per_s=5.0, gpus=1.0, start_s=0.0, usd_per_gpu_h=0.0)}
    limits = FleetLimits(
        models=("m",), regions=("w",), capacity=capacity, quota_gpus={("w", "free"): 3.0}, min_servers=0
    )
    demand = Demand(local={Pool("m", "w"): 9.0}, anywhere={})
    problem = ScalingProblem(limits=limits, standing={}, demand=demand, epsilon=1.0, period_s=60.0)
    assert sum(solve(problem, EXACT).counts.values()) == 2


def test_random_problems_of_the_benchmark_are_the_same_for_the_same_seed() -> None:
    assert random_problem(3, 2, 2, 7) == random_problem(3, 2, 2, 7)
    assert np.any(tabulate(random_problem(3, 2, 2, 7)).standing > 0)
