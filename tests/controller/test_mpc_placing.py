"""Where mpc's integer program puts servers: what can be served is, and only then is anything saved."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product
from math import inf

import numpy as np
import pytest

from controller.mpc.needs import Needs
from controller.mpc.program import PlacingSolution, place
from controller.mpc.statement import PlacingProblem
from controller.types import Capacity, FleetLimits, Placement, Pool

CHEAP, DEAR = Placement("llama", "west", "a"), Placement("llama", "west", "b")


def placed(
    capacity: Mapping[tuple[str, str], Capacity],
    quota_gpus: Mapping[tuple[str, str], float],
    needs: Mapping[str, float],
    standing: Mapping[Placement, int],
    *,
    min_servers: int = 0,
    horizon_s: float = 900.0,
) -> PlacingSolution:
    """All demand comes from the west."""
    limits = FleetLimits(
        models=tuple(needs),
        regions=tuple(dict.fromkeys(region for region, _ in quota_gpus)),
        capacity=capacity,
        quota_gpus=quota_gpus,
        min_servers=min_servers,
    )
    return place(
        PlacingProblem(
            limits=limits,
            needs=Needs(tokens_per_s=needs, shares={Pool(model, "west"): 1.0 for model in needs}),
            standing=standing,
            asleep={},
            horizon_s=horizon_s,
            distance_price=1.0,
            time_limit_s=5.0,
        )
    )


def server(usd_per_gpu_h: float, start_s: float = 300.0) -> Capacity:
    return Capacity(theta_tokens_per_s=1000.0, gpus=1.0, start_s=start_s, usd_per_gpu_h=usd_per_gpu_h)


TWO_TYPES = {("llama", "a"): server(1.0), ("llama", "b"): server(1.5)}
ROOM = {("west", "a"): 30.0, ("west", "b"): 30.0}


@pytest.mark.parametrize("need", [1.0, 8.0, 999.0])
def test_a_model_that_is_asked_for_however_little_gets_a_server(need: float) -> None:
    assert sum(placed(TWO_TYPES, ROOM, {"llama": need}, {}).counts.values()) == 1


@pytest.mark.parametrize(("horizon_s", "start_s"), [(900.0, 60.0), (900.0, 900.0), (60.0, 300.0)])
def test_no_part_of_a_need_is_left_out_to_save_a_server(horizon_s: float, start_s: float) -> None:
    capacity = {("llama", "a"): server(1.0, start_s), ("llama", "b"): server(1.5, start_s)}
    solution = placed(capacity, ROOM, {"llama": 5005.0}, {CHEAP: 5}, horizon_s=horizon_s)
    assert (sum(solution.counts.values()), solution.report.shortfall_tokens_per_s) == (6, 0.0)


@pytest.mark.parametrize("standing", [5, 10, 40])
def test_a_model_keeps_no_surplus_because_another_is_short_of_gpus(standing: int) -> None:
    """`big` runs on b alone, and has four of the 104 servers that it needs; `small` needs one, on a."""
    big, small = Placement("big", "west", "b"), Placement("small", "west", "a")
    solution = placed(
        {("big", "b"): server(5.0), ("small", "a"): server(1.0)},
        {("west", "a"): 100.0, ("west", "b"): 4.0},
        {"big": 104_000.0, "small": 1000.0},
        {big: 4, small: standing},
    )
    assert (solution.counts[big], solution.counts[small]) == (4, 1)
    assert solution.report.shortfall_tokens_per_s == pytest.approx(100_000.0)


def test_a_region_that_lost_its_gpus_misses_its_minimum_and_nothing_else_changes() -> None:
    quota = {**ROOM, ("east", "a"): 0.0, ("east", "b"): 0.0}
    solution = placed(TWO_TYPES, quota, {"llama": 1000.0}, {CHEAP: 14}, min_servers=2)
    assert {p: n for p, n in solution.counts.items() if n} == {CHEAP: 2}


def test_what_stands_stays_where_a_change_gains_nothing() -> None:
    """Two servers of either type cost the same to hold as long as they are there already."""
    capacity = {("llama", "a"): server(1.0), ("llama", "b"): server(1.0)}
    assert placed(capacity, ROOM, {"llama": 2000.0}, {DEAR: 2}).counts == {CHEAP: 0, DEAR: 2}


@pytest.mark.parametrize("noise", [-1e-4, 0.0, 1e-7, 1e-4])
def test_a_need_of_whole_servers_but_for_rounding_is_served_by_them_and_nothing_is_short(noise: float) -> None:
    solution = placed(TWO_TYPES, ROOM, {"llama": 5000.0 + noise}, {CHEAP: 2})
    assert solution.counts == {CHEAP: 5, DEAR: 0}
    assert (solution.report.termination, solution.report.shortfall_tokens_per_s) == ("Optimal Solution Found", 0.0)


RTT_S = 0.1


def random_problem(seed: int, *, models: int, regions: int, types: int, room: float, asked: float) -> PlacingProblem:
    """Some servers there and some asleep; `room`: GPUs per region and type, `asked`: tokens/s per model on average."""
    rng = np.random.default_rng(seed)
    names, places, kinds = (
        [f"{what}{i}" for i in range(n)] for what, n in {"m": models, "r": regions, "g": types}.items()
    )
    capacity = {
        (name, kind): Capacity(
            theta_tokens_per_s=float(rng.uniform(500, 1500)),
            gpus=1.0 + number % 2,
            start_s=float(rng.uniform(60, 900)),
            usd_per_gpu_h=float(rng.uniform(1, 4)),
            sleep_s=5.0,
            wake_s=20.0,
        )
        for number, name in enumerate(names)
        for kind in kinds
    }
    limits = FleetLimits(
        models=tuple(names),
        regions=tuple(places),
        capacity=capacity,
        quota_gpus=dict.fromkeys(product(places, kinds), room),
        rtt_s=dict.fromkeys(permutations(places, 2), RTT_S),
        min_servers=int(rng.integers(2)),
    )
    shares = {name: rng.dirichlet(np.ones(regions)).tolist() for name in names}
    return PlacingProblem(
        limits=limits,
        needs=Needs(
            tokens_per_s={name: float(rng.uniform(0.1, 1.9)) * asked for name in names},
            shares={Pool(name, place): shares[name][j] for name in names for j, place in enumerate(places)},
        ),
        standing={p: int(rng.integers(3)) for p in limits.placements()},
        asleep={p: int(rng.integers(2)) for p in limits.placements()},
        horizon_s=600.0,
        distance_price=1.0,
        time_limit_s=5.0,
    )


def cost_by_hand(problem: PlacingProblem, counts: Mapping[Placement, int]) -> float:
    """As `controller.mpc.statement` has it; infinite for counts that leave something unserved, or do not fit."""
    limits, hours, total = problem.limits, problem.horizon_s / 3600, 0.0
    for slot, quota in limits.quota_gpus.items():
        inside = [p for p in counts if (p.region, p.gpu_type) == slot]
        if sum(counts[p] * limits.capacity[p.model, p.gpu_type].gpus for p in inside) > quota:
            return inf
    for model in limits.models:
        of_type = {kind: capacity for (name, kind), capacity in limits.capacity.items() if name == model}
        theta = {kind: capacity.theta_tokens_per_s for kind, capacity in of_type.items()}
        usd = {kind: capacity.gpus * capacity.usd_per_gpu_h for kind, capacity in of_type.items()}
        own = [p for p in counts if p.model == model]
        if sum(theta[p.gpu_type] * counts[p] for p in own) < problem.needs.tokens_per_s[model]:
            return inf
        for region in limits.regions:
            here = [p for p in own if p.region == region]
            if sum(counts[p] for p in here) < limits.min_servers:
                return inf
            away = problem.needs.of_pool(Pool(model, region)) - sum(theta[p.gpu_type] * counts[p] for p in here)
            dearest = max(usd[kind] / theta[kind] for kind in theta)
            total += problem.distance_price * RTT_S * dearest * hours * max(0.0, away)
        for p in own:
            more = max(0, counts[p] - problem.standing[p])
            woken = min(more, problem.asleep[p])
            begun_h = (of_type[p.gpu_type].start_s * (more - woken) + 20.0 * woken) / 3600
            total += usd[p.gpu_type] * (hours * counts[p] + begun_h)
    return total


@pytest.mark.parametrize("asked", [1000.0, 6000.0])
@pytest.mark.parametrize("seed", range(5))
def test_no_plan_is_cheaper_by_more_than_the_gap_that_is_told(seed: int, asked: float) -> None:
    problem = random_problem(seed, models=2, regions=2, types=2, room=4.0, asked=asked)
    placements = problem.limits.placements()
    most = [int(4.0 / problem.limits.capacity[p.model, p.gpu_type].gpus) for p in placements]
    every = (dict(zip(placements, n, strict=True)) for n in product(*(range(m + 1) for m in most)))
    least = min(cost_by_hand(problem, counts) for counts in every)
    answer = place(problem)
    assert (answer.report.shortfall_tokens_per_s == 0) == (least < inf)
    if least < inf:
        assert answer.report.objective == pytest.approx(cost_by_hand(problem, answer.counts))
        assert answer.report.best_bound is not None and answer.report.gap is not None
        assert answer.report.best_bound <= least * (1 + 1e-6) and answer.report.objective >= least * (1 - 1e-6)
        assert answer.report.gap <= 0.004


@pytest.mark.parametrize("time_limit_s", [0.1, 1.0])
@pytest.mark.parametrize("asked", [20_000.0, 60_000.0])
def test_out_of_time_a_fleet_has_a_plan_that_fits_and_says_how_good_it_is(asked: float, time_limit_s: float) -> None:
    """More placements than the solver is done with in a second."""
    problem = random_problem(1, models=12, regions=6, types=3, room=40.0, asked=asked)
    answer = place(replace(problem, time_limit_s=time_limit_s))
    held = dict.fromkeys(problem.limits.quota_gpus, 0.0)
    served = dict.fromkeys(problem.limits.models, 0.0)
    for p, count in answer.counts.items():
        capacity = problem.limits.capacity[p.model, p.gpu_type]
        held[p.region, p.gpu_type] += count * capacity.gpus
        served[p.model] += count * capacity.theta_tokens_per_s
    assert all(gpus <= problem.limits.quota_gpus[slot] for slot, gpus in held.items())
    missing = sum(max(0.0, need - served[model]) for model, need in problem.needs.tokens_per_s.items())
    if answer.report.termination == "No Solution Found, standing servers kept":
        assert answer.counts == problem.standing
        return
    assert answer.report.shortfall_tokens_per_s == pytest.approx(missing, abs=1e-4 * problem.asked_tokens_per_s)
    bound, cost = answer.report.best_bound, answer.report.objective
    assert answer.report.gap == (None if bound is None else pytest.approx((cost - bound) / cost))
    if not missing:
        assert cost == pytest.approx(cost_by_hand(problem, answer.counts))
