"""Where mpc's integer program puts servers: what can be served is, and only then is anything saved."""

from collections.abc import Mapping

import pytest

from controller.mpc.needs import Needs
from controller.mpc.program import PlacingProblem, PlacingSolution, place
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
