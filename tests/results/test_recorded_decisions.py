from itertools import pairwise
from types import MappingProxyType

import numpy as np

from controller.history import DemandHistory
from controller.records import encode
from controller.types import (
    Capacity,
    FleetLimits,
    Forecast,
    Memory,
    Observation,
    Placement,
    PlacementState,
    Pool,
    ScalingPlan,
    SolveReport,
    Step,
)
from results.decisions import Decision, read_decisions
from results.policy_section import most_telling

PLACE = Placement("m", "west", "h100")
POOL = Pool("m", "west")
LIMITS = FleetLimits(
    models=("m",),
    regions=("west",),
    capacity={("m", "h100"): Capacity(theta_tokens_per_s=2500.0, gpus=1.0, start_s=60.0)},
    quota_gpus={("west", "h100"): 8.0},
)


def forecast(from_s: float, because: str = "") -> Forecast:
    return Forecast(
        from_s=from_s,
        step_s=60.0,
        mean_tokens_per_s=(1.0,),
        upper_tokens_per_s=(2.0,),
        upper_quantile=0.9,
        method="arima",
        fell_back_because=because,
    )


def solve(termination: str = "Optimal Solution Found", shortfall: float = 0.0) -> SolveReport:
    return SolveReport(
        termination=termination,
        objective=1.0,
        best_bound=1.0,
        gap=0.0,
        shortfall_tokens_per_s=shortfall,
        variables=1,
        constraints=1,
        solve_wall_s=0.1,
    )


def recorded() -> list[dict]:
    """Three decisions: a solve with a forecast, one that keeps the forecast, one with a forecast that fell back."""
    records = []
    previous, before = None, None
    for index, made in enumerate((forecast(0.0), forecast(0.0), forecast(120.0, "too little history"))):
        at_s = 60.0 * index
        series = {("m", "west"): np.ones(5 + index)}
        seen = Observation(
            at_s=at_s,
            limits=LIMITS,
            placements={PLACE: PlacementState(ready=1)},
            demand=DemandHistory(bin_s=60.0, until_s=at_s, interactive=series, niw=series),
            niw_queued_tokens={},
            previous=previous,
        )
        plan = ScalingPlan(
            counts={PLACE: 2},
            next_decision_s=at_s + 60,
            steps=(Step(placement=PLACE, change=1, reason="utilisation 0.74 > 0.70"),) if index == 0 else (),
            solve=solve() if index == 0 else None,
            memory=Memory(forecasts=MappingProxyType({POOL: made})),
        )
        records.append(encode(seen, plan, before))
        previous, before = plan, seen
    return records


def test_decisions_are_read_as_the_controller_records_them():
    log = read_decisions(recorded())
    assert [decision.at_s for decision in log.decisions] == [0.0, 60.0, 120.0]
    assert log.decisions[0].steps == (Step(placement=PLACE, change=1, reason="utilisation 0.74 > 0.70"),)
    assert log.decisions[0].solve == solve()
    assert log.theta_tokens_per_s == {("m", "h100"): 2500.0}
    assert log.unread == 0


def test_a_forecast_that_is_kept_counts_once():
    log = read_decisions(recorded())
    assert [(pool, made.from_s) for pool, made in log.forecasts()] == [(POOL, 0.0), (POOL, 120.0)]
    assert log.forecast_methods() == {"arima": 1, "arima (fell back: too little history)": 1}


def test_records_of_another_shape_are_counted_and_not_raised():
    log = read_decisions([{"surprise": 1}, {"surprise": 2}])
    assert log.decisions == ()
    assert log.unread == 2


def test_no_decisions_are_no_fault():
    assert read_decisions([]).unread == 0


def decision(at_s: float, change: int, report: SolveReport | None = None) -> Decision:
    steps = (Step(placement=PLACE, change=change, reason="r"),) if change else ()
    return Decision(at_s=at_s, steps=steps, solve=report, forecasts={})


def test_a_long_log_shows_troubled_solves_large_changes_and_evenly_spaced_others_in_order_of_time():
    many = [decision(float(i), 1) for i in range(100)]
    many[10] = decision(10.0, 0, solve("Solution Found, not optimal"))
    many[20] = decision(20.0, 1, solve(shortfall=5.0))
    many[30] = decision(30.0, -9)
    many[40] = decision(40.0, 0)
    shown = [one.at_s for one in most_telling(many, most=6)]
    assert shown == sorted(shown)
    assert len(shown) == 6
    assert {0.0, 10.0, 20.0, 30.0, 99.0} <= set(shown)
    assert 40.0 not in shown


def test_of_a_long_log_of_equal_decisions_no_part_of_the_run_is_missing():
    shown = [one.at_s for one in most_telling([decision(float(i), 1) for i in range(1000)], most=100)]
    assert len(shown) == 100
    assert max(later - earlier for earlier, later in pairwise([0.0, *shown, 999.0])) <= 11
