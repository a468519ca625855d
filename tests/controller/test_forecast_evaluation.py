"""Rolling-origin evaluation: what is scored, and that nothing behind an origin is seen."""

import itertools

import numpy as np
import pytest

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.evaluation import Rolling, evaluate, past_of_bins, tallies, upto
from controller.forecasts.forecast import Past
from controller.forecasts.methods import MethodSettings, method
from controller.forecasts.scores import Tally, pinball, tally, total
from controller.forecasts.seasonal import LastLevel
from controller.types import Forecast, ForecastQuantile

HOURLY = Rolling(steps=4, every=4, warmup=96, quantile=0.9)
LAST = CalibratedForecaster(method=LastLevel(level_steps=1))


def past(values: np.ndarray) -> Past:
    return Past(values=values, step_s=900.0, until_s=900.0 * len(values))


def test_origins_leave_room_for_what_is_to_come():
    assert list(Rolling(steps=4, every=4, warmup=5, quantile=0.9).origins(16)) == [8, 12]
    assert list(Rolling(steps=4, every=1, warmup=0, quantile=0.9).origins(6)) == [1, 2]
    assert not Rolling(steps=4, every=4, warmup=16, quantile=0.9).origins(16)


def test_a_forecaster_is_handed_the_past_and_nothing_behind_it():
    values = np.arange(200.0)
    whole = past(values)
    handed = upto(whole, 150)
    assert handed.values.tolist() == values[:150].tolist()
    assert handed.values.base is None
    assert handed.until_s == 150 * 900.0

    seen = []

    class Watching:
        name = "watching"

        def forecast(self, past, *, steps, upper_quantile, skip=0):
            seen.append(len(past.values))
            return LAST.forecast(past, steps=steps, upper_quantile=upper_quantile)

    evaluate(Watching(), whole, HOURLY, clock=lambda: 0.0)
    assert seen == list(HOURLY.origins(200))


@pytest.mark.parametrize("name", ["arima", "ensemble", "lightgbm"])
def test_a_poisoned_future_changes_no_score_before_it(name):
    if name == "lightgbm":
        pytest.importorskip("lightgbm")
    rng = np.random.default_rng(2)
    t = np.arange(4 * 24)
    values = 1000 * (1.5 + np.sin(2 * np.pi * t / 24)) * rng.lognormal(0, 0.1, len(t))
    poisoned = values.copy()
    poisoned[84:] *= 1000
    rolling = Rolling(steps=2, every=4, warmup=72, quantile=0.9)
    settings = MethodSettings(season_s=24 * 900.0)

    def scored(series: np.ndarray) -> list[Tally]:
        forecaster = CalibratedForecaster(method=method(name, settings))
        return list(itertools.islice(tallies(forecaster, past(series), rolling, clock=lambda: 0.0), 3))

    assert scored(values) == scored(poisoned)


def test_a_constant_series_is_told_without_error():
    scores = evaluate(LAST, past(np.full(200, 7.0)), HOURLY, clock=lambda: 0.0).scores
    assert scores.forecasts == 26
    assert (scores.path_wape, scores.peak_wape, scores.peak_bias, scores.peak_coverage) == (0.0, 0.0, 0.0, 1.0)
    assert (scores.fell_back, scores.fits, scores.s_per_fit) == (0, 0, None)


def test_one_forecast_is_scored_by_hand():
    """Told 100, 300 where 200, 200 came, with a peak of 250 in minutes; the peak's 0.9 quantile was 200."""
    forecast = Forecast(
        from_s=0.0,
        step_s=900.0,
        mean_tokens_per_s=(100.0, 300.0),
        upper_tokens_per_s=(100.0, 300.0),
        upper_quantile=0.9,
        method="arima",
        fell_back_because="arima: why; seasonal-naive instead",
        quantiles=(ForecastQuantile(level=0.9, path_tokens_per_s=(150.0, 300.0), peak_tokens_per_s=200.0),),
    )
    one = tally(forecast, np.array([200.0, 200.0]), 250.0, fits=1, fit_s=2.0, step_s=0.5)
    scores = one.scores
    assert scores.path_wape == pytest.approx(200 / 400)
    assert scores.peak_wape == scores.peak_bias == pytest.approx(50 / 250)
    assert scores.peak_pinball == pytest.approx(0.9 * 50 / 250)
    assert scores.path_pinball == pytest.approx((0.9 * 50 + 0.1 * 100) / 400)
    assert scores.peak_coverage == 0.0
    assert scores.peak_over_provision == pytest.approx(-50 / 250)
    assert (scores.s_per_fit, scores.s_per_step, scores.fell_back) == (2.0, 0.5, 1)
    both = total([one, one])
    assert both.scores.path_wape == scores.path_wape
    assert both.why["arima: why; seasonal-naive instead"] == 2


def test_the_pinball_loss_is_least_at_the_quantile():
    came = np.arange(1.0, 101.0)
    losses = {q: pinball(came, np.full(100, q), 0.9) for q in (80.0, 90.0, 99.0)}
    assert min(losses, key=lambda q: losses[q]) == 90.0


def test_seconds_are_those_of_the_clock_given():
    ticks = itertools.count()
    forecaster = CalibratedForecaster(method=method("ets", MethodSettings()))
    t = np.arange(200)
    values = 100 + 50 * np.sin(2 * np.pi * t / 96) + t % 3
    once = Rolling(steps=4, every=1, warmup=193, quantile=0.9)
    found = evaluate(forecaster, past(values), once, clock=lambda: float(next(ticks)))
    assert (found.fits, found.fit_s) == (1, 1.0)
    assert found.step_s == found.forecasts


def test_bins_become_steps_with_the_peaks_inside_them():
    bins = np.array([0.0, 6.0, 1.0, 1.0, 5.0, 5.0, 9.0])
    found = past_of_bins(bins, bin_s=10.0, step_s=40.0, peak_step_s=20.0)
    assert found.values.tolist() == [2.0]
    assert found.peaks is not None and found.peaks.tolist() == [3.0]
    assert (found.until_s, found.peak_step_s) == (40.0, 20.0)


@pytest.mark.parametrize(
    ("step_s", "peak_step_s", "wrong"),
    [(90.0, 60.0, "step of 90 s must be a multiple"), (60.0, 15.0, "bin of 10 s"), (600.0, 60.0, "no whole step")],
)
def test_bins_that_do_not_fill_steps_are_refused(step_s, peak_step_s, wrong):
    with pytest.raises(ValueError, match=wrong):
        past_of_bins(np.ones(20), bin_s=10.0, step_s=step_s, peak_step_s=peak_step_s)
