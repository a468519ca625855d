"""Forecast parameters of a scenario: what is refused, and what reaches the program."""

import numpy as np
import pytest
from pydantic import ValidationError

from controller.forecasts.methods import METHODS, problem_with
from controller.forecasts.parameters import BEST_METHOD, ForecastParameters
from controller.program.demand import forecasts, past_of
from controller.types import Pool

LLAMA_WEST = Pool("llama", "west")


def test_the_default_is_the_papers_method_and_the_best_is_another():
    assert ForecastParameters().method == "arima"
    assert problem_with(BEST_METHOD) is None


@pytest.mark.parametrize("name", [name for name in METHODS if problem_with(name) is None])
def test_every_method_makes_a_forecaster_of_its_name(name):
    assert ForecastParameters(method=name).forecaster().name == name


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"method": "prophet"}, "no forecast method 'prophet'"),
        ({"peak_step_s": 7.0}, "peak_step_s=7 must divide step_s=900"),
        ({"order": (1, 3, 1)}, "give .p, d, q."),
        ({"levels": (0.5, 1.0)}, "less than 1"),
        ({"horizon": 3}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_refused(given, wrong):
    with pytest.raises(ValidationError, match=wrong):
        ForecastParameters(**given)


def test_peaks_of_minutes_reach_the_forecast(make_limits, make_history):
    """One minute in fifteen holds all of the load."""
    minutes = np.where(np.arange(600) % 15 == 4, 1500.0, 0.0)
    history = make_history(make_limits(), until_s=36_000.0, series={LLAMA_WEST: minutes})
    past = past_of(history, LLAMA_WEST, 900.0, 60.0)
    assert past.values.tolist() == [100.0] * 40
    assert past.peaks is not None and past.peaks.tolist() == [1500.0] * 40
    parameters = ForecastParameters(method="last-level", peak_step_s=60.0)
    times = {"step_s": 900.0, "from_s": 36_000.0, "until_s": 39_600.0, "upper_quantile": 0.9}
    fine = forecasts(history, parameters.forecaster(), peak_step_s=60.0, **times)[LLAMA_WEST]
    coarse = forecasts(history, parameters.forecaster(), **times)[LLAMA_WEST]
    assert fine.peak_upper_tokens_per_s == pytest.approx(1500.0)
    assert coarse.peak_upper_tokens_per_s == pytest.approx(100.0)


def test_peaks_keep_to_their_steps_when_a_step_is_in_progress(make_limits, make_history):
    minutes = np.repeat([10.0, 20.0, 30.0], 15)
    minutes[14], minutes[29] = 99.0, 77.0
    history = make_history(make_limits(), until_s=2400.0, series={LLAMA_WEST: minutes[:40]})
    past = past_of(history, LLAMA_WEST, 900.0, 60.0)
    assert past.peaks is not None and past.peaks.tolist() == [99.0, 77.0]


def test_a_peak_step_that_does_not_fill_the_step_is_refused(make_limits, make_history):
    history = make_history(make_limits(), until_s=3600.0, bins=60, level=1.0)
    with pytest.raises(ValueError, match=r"step_s=900.0 must be a multiple of peak_step_s=132"):
        past_of(history, LLAMA_WEST, 900.0, 132.0)
    with pytest.raises(ValueError, match=r"step_s=900.0 must be a multiple of peak_step_s=420"):
        past_of(history, LLAMA_WEST, 900.0, 420.0)


@pytest.mark.parametrize("from_s", [36_000.0, 37_800.0])
def test_what_arrived_since_the_last_whole_step_corrects_the_level_where_asked(make_limits, make_history, from_s):
    """Ten minutes into the quarter, four times the level: twice the forecast."""
    minutes = np.concatenate([np.full(600, 100.0), np.full(10, 400.0)])
    history = make_history(make_limits(), until_s=36_600.0, series={LLAMA_WEST: minutes})
    forecaster = ForecastParameters(method="last-level").forecaster()
    times = {"step_s": 900.0, "from_s": from_s, "until_s": 39_600.0, "upper_quantile": 0.9}
    plain = forecasts(history, forecaster, **times)[LLAMA_WEST]
    live = forecasts(history, forecaster, trust_after_s=600.0, **times)[LLAMA_WEST]
    assert plain.mean_tokens_per_s == pytest.approx((100.0,) * len(plain.mean_tokens_per_s))
    assert live.mean_tokens_per_s == pytest.approx((200.0,) * len(plain.mean_tokens_per_s))
    assert live.from_s == plain.from_s == from_s
