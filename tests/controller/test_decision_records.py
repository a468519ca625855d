"""Recorded decisions replay to the same plans."""

import dataclasses
import json

import numpy as np
import pytest

from controller.catalogue import make_policy, policy_names
from controller.history import DemandHistory
from controller.records import decision_from_json, decision_to_json, decode_all, decode_plans, encode
from controller.types import Observation, PlacementState


def same_history(a: DemandHistory, b: DemandHistory) -> bool:
    return (a.bin_s, a.until_s) == (b.bin_s, b.until_s) and all(
        set(x) == set(y) and all(np.array_equal(x[key], y[key]) for key in x)
        for x, y in (
            (a.interactive, b.interactive),
            (a.niw, b.niw),
            (a.interactive_output, b.interactive_output),
        )
    )


def same_seen(a: Observation, b: Observation) -> bool:
    empty = DemandHistory(bin_s=1.0, until_s=0.0, interactive={}, niw={})
    return dataclasses.replace(a, demand=empty) == dataclasses.replace(b, demand=empty) and same_history(
        a.demand, b.demand
    )


def without_wall_time(plan):
    return (
        plan
        if plan.solve is None
        else dataclasses.replace(plan, solve=dataclasses.replace(plan.solve, solve_wall_s=0.0))
    )


def a_run(policy, make_limits, make_seen, decisions=40):
    """Decisions over 40 minutes of ragged load, history kept for 90 minutes only, as JSON text would carry them."""
    limits = make_limits(quota=8.0)
    rng = np.random.default_rng(5)
    load = {key: rng.gamma(2.0, 900.0, 240) for key in [(m, r) for m in limits.models for r in limits.regions]}
    pairs, lines, previous, before = [], [], None, None
    counts = dict.fromkeys(limits.placements(), 2)
    at_s = 3000.0
    for _ in range(decisions):
        now = int(at_s // 60)
        series = {key: values[max(0, now + 60 - 90) : now + 60] for key, values in load.items()}
        states = {
            p: PlacementState(
                ready=n, utilisation=float(load[p.pool][now + 59] / 1000 / max(n, 1)), outstanding_tokens=17 * n
            )
            for p, n in counts.items()
        }
        outputs = {key: 0.3 * values for key, values in series.items()}
        history = dataclasses.replace(
            make_seen(limits, series=series).demand, until_s=60.0 * now, interactive_output=outputs
        )
        seen = make_seen(limits, states, at_s=at_s, demand=history, previous=previous)
        plan = policy.decide(seen)
        pairs.append((seen, plan))
        lines.append(json.dumps(encode(seen, plan, before), allow_nan=False))
        previous, before, counts = plan, seen, dict(plan.counts)
        at_s = plan.next_decision_s + 0.003
    return pairs, lines


@pytest.mark.parametrize("name", policy_names())
def test_a_recorded_run_decodes_to_what_was_seen_and_decides_to_what_was_planned(name, make_limits, make_seen):
    parameters = {"forecast": {"method": "seasonal-naive", "season_s": 3600.0}} if name.startswith("lt") else {}
    pairs, lines = a_run(make_policy(name, parameters), make_limits, make_seen)
    decoded = decode_all(json.loads(line) for line in lines)
    assert len(decoded) == len(pairs)
    replayed = make_policy(name, parameters)
    for (seen, plan), (seen_again, plan_again) in zip(pairs, decoded, strict=True):
        assert same_seen(seen, seen_again)
        assert plan_again == plan
        assert without_wall_time(replayed.decide(seen_again)) == without_wall_time(plan)
    assert len({tuple(plan.counts.values()) for _, plan in pairs}) > 1 or name == "static"


def test_records_of_before_which_did_not_tell_output_tokens_apart_are_read(make_limits, make_seen):
    pairs, lines = a_run(make_policy("mpc", {}), make_limits, make_seen, decisions=3)
    records = [json.loads(line) for line in lines]
    for record in records:
        del record["seen"]["demand"]["interactive_output"]
    for (seen, plan), (seen_again, plan_again) in zip(pairs, decode_all(records), strict=True):
        assert plan_again == plan
        assert seen_again.demand.interactive_output == {}
        assert same_history(seen_again.demand, dataclasses.replace(seen.demand, interactive_output={}))
    assert len(list(decode_plans(records))) == 3


def test_a_later_record_carries_only_what_is_new(make_limits, make_seen):
    parameters = {"forecast": {"method": "seasonal-naive", "season_s": 3600.0}}
    _, lines = a_run(make_policy("lt-ua", parameters), make_limits, make_seen)
    first, third = json.loads(lines[0]), json.loads(lines[2])
    assert "limits" in first["seen"] and "limits" not in third["seen"]
    assert len(first["seen"]["demand"]["interactive"][0][2]) == 90
    assert len(third["seen"]["demand"]["interactive"][0][2]) == 1
    assert {"budget", "forecasts"} <= set(third["plan"]["memory"]["unchanged"])
    assert len(lines[2]) < len(lines[0]) / 5


def test_one_decision_stands_alone_with_the_plan_before_it(make_limits, make_seen):
    parameters = {"forecast": {"method": "seasonal-naive", "season_s": 3600.0}}
    pairs, _ = a_run(make_policy("lt-u", parameters), make_limits, make_seen, decisions=5)
    seen, plan = pairs[4]
    seen_again, plan_again = decision_from_json(json.loads(json.dumps(decision_to_json(seen, plan))))
    assert same_seen(seen, seen_again) and plan_again == plan


def test_a_run_with_a_lost_record_is_refused(make_limits, make_seen):
    _, lines = a_run(make_policy("reactive", {"interval_s": 60.0}), make_limits, make_seen, decisions=6)
    records = [json.loads(line) for line in lines]
    with pytest.raises(ValueError, match="from its first record on"):
        decode_all(records[1:])
    with pytest.raises(ValueError, match=r"decision record 3 holds 1 new bins of demand, 2 passed"):
        decode_all(records[:2] + records[3:])
    assert decode_all([]) == []
    assert len(decode_all(records[:3])) == 3
