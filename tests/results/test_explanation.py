"""What `explain` tells of a decision: what was seen, forecast, solved, done, and not granted."""

import dataclasses
import json

import numpy as np
import pytest

from controller.catalogue import make_policy
from controller.history import DemandHistory
from controller.records import encode
from controller.types import (
    Binding,
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
from results.explanation import UnreadableDecisions, changes_table, changing, decisions_of, explain, latest_at

WEST, EAST = Placement("llama", "west", "h100"), Placement("llama", "east", "h100")
POOL = Pool("llama", "west")
LIMITS = FleetLimits(
    models=("llama",),
    regions=("west", "east"),
    capacity={("llama", "h100"): Capacity(theta_tokens_per_s=1000.0, gpus=2.0, start_s=60.0)},
    quota_gpus={("west", "h100"): 8.0, ("east", "h100"): 4.0},
)
SOLVED = SolveReport(
    termination="Optimal Solution Found",
    objective=12.5,
    best_bound=12.4375,
    gap=0.005,
    shortfall_tokens_per_s=250.0,
    variables=24,
    constraints=43,
    solve_wall_s=0.01,
    binding=(
        Binding(family="local", subject="llama@west", shadow_price=0.25),
        Binding(family="quota", subject="east/h100", shadow_price=-3.0),
    ),
)


def observation(at_s: float, bins: int = 60, queued: int = 0, previous: ScalingPlan | None = None) -> Observation:
    load = np.full(bins, 1200.0)
    load[-1:] = 1800.0
    keys = [("llama", "west"), ("llama", "east")]
    return Observation(
        at_s=at_s,
        limits=LIMITS,
        placements={
            WEST: PlacementState(
                ready=2, starting=1, utilisation=0.83, outstanding_tokens=4321, ready_at_s=(at_s + 45.0,)
            ),
            EAST: PlacementState(ready=1, draining=1, utilisation=0.25, outstanding_tokens=100),
        },
        demand=DemandHistory(
            bin_s=60.0,
            until_s=at_s,
            interactive=dict.fromkeys(keys, load),
            niw={key: np.full(bins, 77.0) for key in keys},
            ended={key: np.full(bins, 10.0) for key in keys},
            missed={key: np.full(bins, 1.0) for key in keys},
        ),
        niw_queued_tokens={"llama": queued},
        niw_due={"llama": ((at_s + 7200.0, 600.0),)} if queued else {},
        previous=previous,
    )


def forecast(because: str = "") -> Forecast:
    return Forecast(
        from_s=3600.0,
        step_s=900.0,
        mean_tokens_per_s=(1111.0, 2222.0, 1500.0, 1400.0),
        upper_tokens_per_s=(1300.0, 2600.0, 1800.0, 1700.0),
        upper_quantile=0.9,
        method="arima",
        fell_back_because=because,
        warnings=("the fit did not converge",),
    )


def three_decisions() -> list[tuple[Observation, ScalingPlan]]:
    """At one hour a program with two steps, then nothing, then one step in the west."""
    memory = Memory(
        budget={WEST: 4, EAST: 2},
        budget_until_s=7200.0,
        forecasts={Pool("llama", "west"): forecast(), Pool("llama", "east"): forecast("too little history")},
        numbers={"llama@west headroom": 0.125, "llama@east headroom": 0.5, "theta llama": 1.0, "budget spent": 0.01},
    )
    first = ScalingPlan(
        counts={WEST: 4, EAST: 1},
        next_decision_s=3660.0,
        steps=(Step(placement=WEST, change=1, reason="budget 4 of the program"),),
        solve=SOLVED,
        memory=memory,
    )
    second = dataclasses.replace(first, steps=(), solve=None, counts={WEST: 3, EAST: 1}, next_decision_s=3720.0)
    third = dataclasses.replace(
        second, counts={WEST: 2, EAST: 1}, steps=(Step(placement=WEST, change=-1, reason="idle"),)
    )
    return [
        (observation(3600.0, queued=900), first),
        (observation(3660.0, previous=first), second),
        (observation(3720.0, previous=second), third),
    ]


def tables(index: int, pool: Pool | None = None) -> dict[str, dict[str, tuple[str, ...]]]:
    """Rows by their first cell, by title."""
    return {t.title: {row[0]: row[1:] for row in t.rows} for t in explain("mpc", three_decisions(), index, pool)}


def test_what_was_seen_is_demand_now_and_before_servers_by_state_and_the_queue() -> None:
    shown = tables(0)
    assert shown["What was seen: demand, tokens/s"]["llama@west"] == (
        "1,800",
        "1,240",
        "1,210",
        "1,800",
        "77",
        "15 of 150 (10 %)",
    )
    assert shown["What was seen: the NIW queue"] == {"llama": ("900", "600 tokens in 2 h")}
    servers = shown["What was seen: servers"]
    assert servers["llama@west/h100"] == ("2", "1", "45 s", "0", "0", "0.83", "4,321", "4 (+1)", "0")
    assert servers["llama@east/h100"] == ("1", "0", "-", "1", "0", "0.25", "100", "1", "0")


def test_gpus_left_are_those_that_neither_stand_drain_nor_are_planned() -> None:
    (servers,) = [t for t in explain("mpc", three_decisions(), 0) if t.title == "What was seen: servers"]
    assert servers.notes == ("GPUs left free by the plan: west/h100 0 of 8, east/h100 0 of 4",)


def test_what_was_forecast_says_when_it_was_made_and_why_a_method_fell_back() -> None:
    for index in (0, 2):
        (made,) = [t for t in explain("mpc", three_decisions(), index) if t.title.startswith("What was forecast")]
        assert made.title == "What was forecast, at 1:00:00: tokens/s"
        assert made.rows[0] == ("llama@west", "arima", "1:00:00 to 2:00:00", "1,111", "2,222", "2,600 (90 %)", "no")
        assert made.rows[1][-1] == "yes"
        assert "llama@east: fell back: too little history" in made.notes
        assert "llama@west, llama@east: the fit did not converge" in made.notes


def test_what_binds_in_the_program_comes_with_its_price_dearest_first() -> None:
    shown = tables(0)
    program = shown["What the program said, at 1:00:00"]
    assert program["ended with"] == ("Optimal Solution Found",)
    assert program["best bound"] == ("12.4375 (gap 0.5 %)",)
    assert program["demand not served"] == ("250 tokens/s",)
    (binding,) = [t for t in explain("mpc", three_decisions(), 0) if t.title == "What binds in it"]
    assert binding.rows == (
        ("GPUs of a region", "east/h100", "-3"),
        ("local share of a pool", "llama@west", "0.25"),
    )
    later = [t for t in explain("mpc", three_decisions(), 2) if t.title.startswith("What the program said")]
    assert later[0].title.endswith("at 1:00:00")
    assert later[0].lead == "Solved earlier; its counts are the budget until 2:00:00."


def test_what_was_done_has_its_reason_and_what_was_not_has_one_too() -> None:
    first = tables(0)
    assert first["What was done, and why"] == {"llama@west/h100": ("3", "4", "budget 4 of the program")}
    assert first["Wanted and not granted"] == {
        "llama@east/h100": ("2", "1", "0 GPUs left in east/h100, a server takes 2")
    }
    nothing = [t for t in explain("mpc", three_decisions(), 1) if t.title == "What was done, and why"]
    assert nothing[0].rows == () and nothing[0].lead == "Nothing: the counts stand as they have since 1:00:00."
    assert tables(1)["Wanted and not granted"]["llama@west/h100"] == (
        "4",
        "3",
        "the policy's rule for steps did not ask for it",
    )


def test_a_pool_below_its_minimum_is_told() -> None:
    seen, plan = three_decisions()[1]
    short = dataclasses.replace(seen, limits=dataclasses.replace(LIMITS, min_servers=2))
    (row,) = [
        row
        for t in explain("mpc", [(short, plan)], 0)
        if t.title == "Wanted and not granted"
        for row in t.rows
        if row[0] == "llama@east"
    ]
    assert row == ("llama@east", "at least 2", "1", "no GPU is free for more")


def test_one_pool_alone_can_be_asked_for() -> None:
    shown = tables(0, POOL)
    assert list(shown["What was seen: servers"]) == ["llama@west/h100"]
    assert list(shown["What was forecast, at 1:00:00: tokens/s"]) == ["llama@west"]
    assert shown["What it remembers for the next decision"] == {
        "budget spent": ("0.01",),
        "llama@west headroom": ("0.125",),
        "theta llama": ("1",),
    }
    assert "Wanted and not granted" not in shown
    bloom = dataclasses.replace(LIMITS, models=("llama", "bloom"))
    seen, plan = three_decisions()[0]
    shown = explain("mpc", [(dataclasses.replace(seen, limits=bloom), plan)], 0, Pool("bloom", "west"))
    assert [row[0] for t in shown if t.title.startswith("What it remembers") for row in t.rows] == ["budget spent"]


def test_decisions_are_found_by_time_and_by_what_they_changed() -> None:
    decisions = three_decisions()
    assert changing(decisions) == [0, 2]
    assert changing(decisions, Pool("llama", "east")) == []
    assert [latest_at(decisions, at_s) for at_s in (3599.0, 3600.0, 3659.0, 3660.0, 9999.0)] == [None, 0, 0, 1, 2]
    listed = changes_table("mpc", decisions, [0, 2])
    assert listed.rows == (
        ("1:00:00", "llama@west/h100", "3", "4", "budget 4 of the program"),
        ("1:02:00", "llama@west/h100", "3", "2", "idle"),
    )
    assert changes_table("mpc", decisions, [], POOL).lead == "No decision changed anything."


@pytest.mark.parametrize("name", ["static", "reactive", "hpa", "lt-u"])
def test_every_recorded_decision_can_be_explained_from_the_very_first_bin_on(name: str) -> None:
    policy = make_policy(name, {"forecast": {"method": "seasonal-naive"}} if name == "lt-u" else {})
    before, previous, records = None, None, []
    for at_s, bins in ((0.0, 0), (60.0, 1), (3600.0, 60), (3660.0, 61)):
        seen = observation(at_s, bins=bins, previous=previous)
        plan = policy.decide(seen)
        records.append(json.loads(json.dumps(encode(seen, plan, before))))
        before, previous = seen, plan
    decisions = decisions_of(records)
    for index in range(len(decisions)):
        shown = explain(name, decisions, index)
        assert shown[0].title.startswith(f"{name}: decision {index + 1} of 4")
        assert all(cell for table in shown for row in table.rows for cell in row)


def test_records_of_another_version_are_refused_in_one_line() -> None:
    seen, plan = three_decisions()[0]
    record = json.loads(json.dumps(encode(seen, plan, None)))
    for broken in ({"decided": 1}, {**record, "seen": {**record["seen"], "placements": [["llama", "west", {}]]}}):
        with pytest.raises(UnreadableDecisions, match="another version") as told:
            decisions_of([broken])
        assert "\n" not in str(told.value)
    assert decisions_of([]) == []
