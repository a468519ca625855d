"""What the program is asked to serve: which steps are forecast, and what is added to their peak."""

import numpy as np
import pytest

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.seasonal import LastLevel
from controller.program.demand import demand_of_period, forecasts
from controller.types import Pool

LLAMA_WEST = Pool("llama", "west")


def ahead(history, **times):
    return forecasts(
        history, CalibratedForecaster(method=LastLevel(level_steps=1)), step_s=900.0, upper_quantile=0.9, **times
    )[LLAMA_WEST]


def test_a_period_is_forecast_from_the_last_whole_step_and_told_from_its_beginning(make_limits, make_history):
    """At 3720 s two bins of the step in progress are known: they are left out; the forecast begins at the period."""
    series = {("llama", "west"): np.concatenate([np.full(60, 100.0), np.full(2, 9e9)])}
    history = make_history(make_limits(), until_s=3720.0, series=series)
    whole = ahead(history, from_s=3600.0, until_s=7200.0)
    assert (whole.from_s, len(whole.mean_tokens_per_s)) == (3600.0, 4)
    assert whole.peak_mean_tokens_per_s == 100.0


def test_steps_between_the_history_and_the_period_are_left_out(make_limits, make_history):
    history = make_history(make_limits(), until_s=1800.0, bins=30, level=100.0)
    later = ahead(history, from_s=3600.0, until_s=7200.0)
    assert (later.from_s, len(later.mean_tokens_per_s), len(later.upper_tokens_per_s)) == (3600.0, 4, 4)


def test_a_grid_that_the_history_does_not_fit_is_refused(make_limits, make_history):
    history = make_history(make_limits(), until_s=3600.0, bins=60, level=1.0)
    with pytest.raises(ValueError, match=r"step_s=90.* must be a multiple of the bin width 60"):
        forecasts(
            history,
            CalibratedForecaster(method=LastLevel()),
            step_s=90.0,
            from_s=3600.0,
            until_s=7200.0,
            upper_quantile=0.9,
        )


def test_a_share_of_the_niw_load_of_all_regions_is_demand_of_the_model(make_limits, make_history):
    history = make_history(make_limits(), until_s=7200.0, bins=120, level=300.0, niw=1000.0)
    given = forecasts(
        history,
        CalibratedForecaster(method=LastLevel()),
        step_s=900.0,
        from_s=7200.0,
        until_s=10_800.0,
        upper_quantile=0.9,
    )
    demand = demand_of_period(history, given, peak_of_upper=False, niw_share=0.10, niw_window_s=3600.0)
    assert demand.local[LLAMA_WEST] == pytest.approx(300.0)
    assert demand.anywhere == pytest.approx({"llama": 200.0, "bloom": 200.0})
    assert demand.of_model("llama") == pytest.approx(800.0)
