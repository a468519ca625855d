"""Forecasts in recorded decisions: they come back with every bit, and older records can still be read."""

import json
from dataclasses import replace

import numpy as np

from controller.forecasts.parameters import ForecastParameters
from controller.program.demand import forecasts
from controller.records import decision_from_json, decision_to_json
from controller.types import Memory, ScalingPlan


def test_a_forecast_with_quantiles_survives_json(make_limits, make_seen, make_history):
    limits = make_limits()
    rng = np.random.default_rng(0)
    series = {(m, r): rng.lognormal(5, 1, 240) for m in limits.models for r in limits.regions}
    demand = make_history(limits, until_s=14_400.0, series=series)
    given = forecasts(
        demand, ForecastParameters(method="last-level", levels=(0.5, 0.8)).forecaster(), step_s=900.0,
        from_s=14_400.0, until_s=18_000.0, upper_quantile=0.95, peak_step_s=60.0,
    )  # fmt: skip
    seen = make_seen(limits, at_s=14_400.0, demand=demand)
    plan = ScalingPlan(counts={}, next_decision_s=18_000.0, memory=Memory(forecasts=given))
    record = json.loads(json.dumps(decision_to_json(seen, plan)))
    _, back = decision_from_json(record)
    assert dict(back.memory.forecasts) == given
    (forecast, *_) = given.values()
    assert [each.level for each in forecast.quantiles] == [0.5, 0.8, 0.95]
    for _, _, fields in record["plan"]["memory"]["forecasts"]:
        for new in ("quantiles", "warnings", "peak_step_s"):
            del fields[new]
    _, old = decision_from_json(record)
    assert dict(old.memory.forecasts) == {
        pool: replace(each, quantiles=(), peak_step_s=None) for pool, each in given.items()
    }
