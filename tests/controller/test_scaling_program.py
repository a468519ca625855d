"""The integer program against enumeration, each family of constraints binding alone, and demand nobody can serve."""

import dataclasses
import itertools

import numpy as np
import pytest

from controller.program.demand import Demand
from controller.program.ilp import ScalingProblem, SolverSettings, check_limits, solve
from controller.types import Capacity, FleetLimits, Placement, Pool

EXACT = SolverSettings(gap=0.0)


def problem(limits, rho, *, standing=None, anywhere=None, epsilon=0.8, period_s=3600.0):
    return ScalingProblem(
        limits=limits,
        standing=standing or {},
        demand=Demand(local={Pool(*key): value for key, value in rho.items()}, anywhere=anywhere or {}),
        epsilon=epsilon,
        period_s=period_s,
    )


def in_pool(solution, model, region):
    return sum(count for p, count in solution.counts.items() if p.pool == Pool(model, region))


def test_the_local_share_binds_in_each_region(make_limits):
    limits = make_limits(models=("llama",), theta=1000.0, min_servers=0)
    rho = {("llama", "west"): 5000.0, ("llama", "east"): 1000.0}
    answer = solve(problem(limits, rho, epsilon=1.0), EXACT)
    assert (in_pool(answer, "llama", "west"), in_pool(answer, "llama", "east")) == (5, 1)
    assert answer.report.termination.startswith("Optimal Solution Found: ")
    assert answer.report.shortfall_tokens_per_s == 0


def test_all_demand_is_served_somewhere_when_the_local_share_is_small(make_limits):
    limits = make_limits(models=("llama",), theta=1000.0, min_servers=0)
    rho = {("llama", "west"): 2500.0, ("llama", "east"): 2500.0}
    answer = solve(problem(limits, rho, epsilon=0.0), EXACT)
    assert sum(answer.counts.values()) == 5
    apart = solve(problem(limits, rho, epsilon=1.0), EXACT)
    assert sum(apart.counts.values()) == 6


def test_demand_without_a_region_enters_the_global_row_alone(make_limits):
    limits = make_limits(models=("llama",), theta=1000.0, min_servers=0)
    answer = solve(problem(limits, {("llama", "west"): 1000.0}, anywhere={"llama": 1500.0}, epsilon=1.0), EXACT)
    assert sum(answer.counts.values()) == 3
    assert in_pool(answer, "llama", "west") >= 1


def test_the_quota_of_a_region_sends_the_rest_elsewhere(make_limits):
    limits = dataclasses.replace(
        make_limits(models=("llama",), theta=1000.0, gpus=2.0, min_servers=0),
        quota_gpus={("west", "h100"): 6.0, ("east", "h100"): 100.0},
    )
    answer = solve(problem(limits, {("llama", "west"): 5000.0}, epsilon=0.5), EXACT)
    assert in_pool(answer, "llama", "west") == 3
    assert in_pool(answer, "llama", "east") == 2


def test_zero_demand_leaves_the_minimum(make_limits):
    limits = make_limits(min_servers=2)
    standing = dict.fromkeys(limits.placements(), 4)
    answer = solve(problem(limits, {}, standing=standing), EXACT)
    assert set(answer.counts.values()) == {2}


def test_a_start_up_dearer_than_the_period_keeps_the_dear_servers_that_run():
    """Cheap and dear GPU type, same theta: switching pays over an hour, and not within three minutes."""
    limits = FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity={
            ("llama", "cheap"): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=600.0, usd_per_gpu_h=3.0),
            ("llama", "dear"): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=600.0, usd_per_gpu_h=4.0),
        },
        quota_gpus={("west", "cheap"): 5.0, ("west", "dear"): 5.0},
        min_servers=0,
    )
    cheap, dear = Placement("llama", "west", "cheap"), Placement("llama", "west", "dear")
    rho = {("llama", "west"): 2000.0}
    short = solve(problem(limits, rho, standing={dear: 2}, period_s=180.0), EXACT)
    assert short.counts == {cheap: 0, dear: 2}
    long = solve(problem(limits, rho, standing={dear: 2}, period_s=3600.0), EXACT)
    assert long.counts == {cheap: 2, dear: 0}
    assert long.report.objective == pytest.approx(2 * 3.0 + 2 * 3.0 / 6)


def test_servers_without_prices_cost_their_gpus():
    limits = FleetLimits(
        models=("llama",),
        regions=("west",),
        capacity={
            ("llama", "big"): Capacity(theta_tokens_per_s=3000.0, gpus=4.0, start_s=0.0),
            ("llama", "small"): Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=0.0),
        },
        quota_gpus={("west", "big"): 16.0, ("west", "small"): 16.0},
        min_servers=0,
    )
    answer = solve(problem(limits, {("llama", "west"): 3000.0}), EXACT)
    assert answer.counts == {Placement("llama", "west", "big"): 0, Placement("llama", "west", "small"): 3}
    assert answer.report.objective == pytest.approx(3.0)


def test_demand_beyond_every_gpu_is_shared_out_and_reported(make_limits):
    limits = make_limits(models=("llama", "bloom"), regions=("west",), theta=1000.0, quota=10.0, min_servers=1)
    rho = {("llama", "west"): 10_000.0, ("bloom", "west"): 10_000.0}
    answer = solve(problem(limits, rho))
    assert in_pool(answer, "llama", "west") == in_pool(answer, "bloom", "west") == 5
    assert answer.report.shortfall_tokens_per_s == pytest.approx(10_000.0)
    assert answer.report.termination.endswith("with a shortfall")


def test_a_model_that_no_gpu_serves_is_a_shortfall_and_no_failure(make_limits):
    limits = make_limits(models=("llama",))
    limits = dataclasses.replace(limits, models=("llama", "ghost"))
    answer = solve(problem(limits, {("ghost", "west"): 700.0, ("llama", "west"): 500.0}), EXACT)
    assert answer.report.shortfall_tokens_per_s == pytest.approx(700.0)
    assert in_pool(answer, "llama", "west") == 1


def test_a_minimum_beyond_the_quota_is_refused_before_a_run_and_survived_in_one(make_limits):
    limits = make_limits(min_servers=3, quota=4.0)
    with pytest.raises(ValueError, match=r"min_servers=3 .* does not fit the GPU quotas"):
        check_limits(limits)
    answer = solve(problem(limits, {("llama", "west"): 1000.0}))
    by_region = {r: sum(c for p, c in answer.counts.items() if p.region == r) for r in limits.regions}
    assert by_region == {"west": 4, "east": 4}
    check_limits(make_limits(min_servers=2, quota=4.0))


def test_an_empty_fleet_is_refused_before_a_run_and_survived_in_one(make_limits):
    limits = dataclasses.replace(make_limits(), quota_gpus={})
    with pytest.raises(ValueError, match="no model can be served anywhere"):
        check_limits(limits)
    assert solve(problem(limits, {("llama", "west"): 10.0})).counts == {}


def random_problem(seed):
    rng = np.random.default_rng(seed)
    models, regions, types = ("a", "b")[: rng.integers(1, 3)], ("w", "e"), ("k", "l")[: rng.integers(1, 3)]
    limits = FleetLimits(
        models=models,
        regions=regions,
        capacity={
            (m, g): Capacity(
                theta_tokens_per_s=float(rng.integers(3, 12)),
                gpus=float(rng.choice([0.5, 1, 2])),
                start_s=float(rng.integers(0, 3600)),
                usd_per_gpu_h=float(rng.integers(1, 6)),
            )
            for m in models
            for g in types
        },
        quota_gpus={(r, g): float(rng.integers(1, 3)) for r in regions for g in types},
        min_servers=int(rng.integers(0, 2)),
    )
    rho = {(m, r): float(rng.integers(0, 9)) for m in models for r in regions}
    standing = {p: int(rng.integers(0, 3)) for p in limits.placements()}
    return problem(limits, rho, standing=standing, epsilon=float(rng.choice([0.0, 0.5, 1.0])))


def cheapest_by_enumeration(given):
    """The least cost over every count vector that keeps all four families; None when none does."""
    limits, placements = given.limits, given.limits.placements()
    capacity = {p: limits.capacity[p.model, p.gpu_type] for p in placements}
    most = [int(limits.quota_gpus[p.region, p.gpu_type] / capacity[p].gpus) for p in placements]
    best = None
    for vector in itertools.product(*(range(m + 1) for m in most)):
        count = dict(zip(placements, vector, strict=True))

        def total(keep, value, count=count):
            return sum(value(p) * n for p, n in count.items() if keep(p))

        fits = all(
            total(lambda p, r=r, g=g: (p.region, p.gpu_type) == (r, g), lambda p: capacity[p].gpus) <= quota
            for (r, g), quota in limits.quota_gpus.items()
        )
        served = all(
            total(lambda p, m=m: p.model == m, lambda p: capacity[p].theta_tokens_per_s)
            >= sum(rho for pool, rho in given.demand.local.items() if pool.model == m)
            for m in limits.models
        )
        local = all(
            total(lambda p, pool=pool: p.pool == pool, lambda p: capacity[p].theta_tokens_per_s) >= given.epsilon * rho
            and total(lambda p, pool=pool: p.pool == pool, lambda p: 1) >= limits.min_servers
            for pool, rho in given.demand.local.items()
        )
        if fits and served and local:
            cost = sum(
                capacity[p].gpus * capacity[p].usd_per_gpu_h * n
                + capacity[p].gpus
                * capacity[p].usd_per_gpu_h
                * capacity[p].start_s
                / 3600
                * max(0, n - given.standing[p])
                for p, n in count.items()
            )
            best = cost if best is None else min(best, cost)
    return best


def test_the_solver_finds_the_cost_that_enumeration_finds():
    feasible = 0
    for seed in range(20):
        given = random_problem(seed)
        best, answer = cheapest_by_enumeration(given), solve(given, EXACT)
        if best is None:
            assert answer.report.termination.endswith("with a shortfall"), seed
        else:
            feasible += 1
            assert answer.report.objective == pytest.approx(best, abs=1e-6), seed
            assert answer.report.gap == pytest.approx(0.0, abs=1e-9)
            assert answer.report.shortfall_tokens_per_s == 0
    assert 3 < feasible < 20


def test_the_same_problem_has_the_same_answer():
    given = random_problem(3)
    assert solve(given).counts == solve(given).counts


def test_the_solver_says_nothing(capfd, make_limits):
    solve(problem(make_limits(), {("llama", "west"): 1e6}))
    assert capfd.readouterr() == ("", "")
