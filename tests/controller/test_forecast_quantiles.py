"""Laws of every forecaster, and quantiles of a path and of its peak."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.calibration import Calibration
from controller.forecasts.forecast import Past
from controller.forecasts.methods import METHODS, MethodSettings, method, problem_with
from controller.forecasts.seasonal import LastLevel

DAY = 24
"""Steps of one season: laws do not need a grid of quarters of an hour."""
SETTINGS = MethodSettings(season_s=DAY * 3600.0, refit_s=6 * 3600.0)
LEVELS = (0.1, 0.5, 0.8, 0.95)
NAMES = [name for name in METHODS if problem_with(name) is None]
QUICK = [name for name in NAMES if name not in ("arima", "lightgbm", "statsforecast")]


def forecaster(name: str) -> CalibratedForecaster:
    return CalibratedForecaster(method=method(name, SETTINGS), calibration=Calibration(levels=LEVELS))


def past(values: np.ndarray, peaks: np.ndarray | None = None) -> Past:
    return Past(values=values, step_s=3600.0, until_s=3600.0 * len(values), peaks=peaks, peak_step_s=60.0)


def rough_days(days: float, seed: int) -> np.ndarray:
    """A rhythm under noise of all sizes, with empty hours and bursts."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(days * DAY))
    clean = 1000 * (1.2 + np.sin(2 * np.pi * t / DAY + rng.uniform(0, 6)))
    noisy = clean * rng.lognormal(0, rng.choice([0.05, 0.5]), len(t)) * (rng.random(len(t)) > 0.05)
    return noisy * np.where(rng.random(len(t)) > 0.97, 8, 1)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), days=st.sampled_from([0.5, 3.0, 8.3]), steps=st.integers(1, 6))
def test_forecasts_are_finite_and_not_negative_and_quantiles_rise_with_their_level(name, seed, days, steps):
    values = rough_days(days, seed)
    answer = forecaster(name).forecast(past(values, peaks=values * 1.5), steps=steps, upper_quantile=0.9)
    assert [each.level for each in answer.quantiles] == [0.1, 0.5, 0.8, 0.9, 0.95]
    paths = np.array([each.path_tokens_per_s for each in answer.quantiles])
    peaks = np.array([each.peak_tokens_per_s for each in answer.quantiles])
    assert paths.shape == (5, steps)
    for numbers in (paths, peaks, np.array(answer.mean_tokens_per_s), np.array(answer.upper_tokens_per_s)):
        assert np.isfinite(numbers).all() and (numbers >= 0).all()
    assert (np.diff(paths, axis=0) >= 0).all() and (np.diff(peaks) >= 0).all()
    assert answer.peak_upper_tokens_per_s >= answer.peak_mean_tokens_per_s


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.integers(-8, 8))
def test_scaling_the_history_scales_the_forecast(name, seed, power):
    """By powers of two, which change no digit: what is left is the method itself."""
    values = rough_days(5.2, seed)
    one = forecaster(name).forecast(past(values), steps=4, upper_quantile=0.9)
    other = forecaster(name).forecast(past(values * 2.0**power), steps=4, upper_quantile=0.9)
    assert (one.fell_back_because == "") == (other.fell_back_because == "")
    np.testing.assert_allclose(np.array(other.mean_tokens_per_s), np.array(one.mean_tokens_per_s) * 2.0**power, 1e-6)
    for a, b in zip(one.quantiles, other.quantiles, strict=True):
        assert b.peak_tokens_per_s == pytest.approx(a.peak_tokens_per_s * 2.0**power, rel=1e-6)


@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), poison=st.sampled_from([np.nan, np.inf, 1e12, 0.0]))
def test_a_poisoned_future_changes_nothing(name, seed, poison):
    values = rough_days(6, seed)
    origin = 5 * DAY + 7
    poisoned = np.concatenate([values[:origin], np.full(len(values) - origin, poison)])
    honest = forecaster(name).forecast(past(values[:origin]), steps=4, upper_quantile=0.9)
    assert forecaster(name).forecast(past(poisoned[:origin]), steps=4, upper_quantile=0.9) == honest


def test_the_peak_is_that_of_minutes_where_the_history_has_them():
    """Every hour holds one minute of three times its mean."""
    values = np.full(4 * DAY, 100.0)
    hours = CalibratedForecaster(method=LastLevel()).forecast(past(values), steps=4, upper_quantile=0.9)
    minutes = CalibratedForecaster(method=LastLevel()).forecast(
        past(values, peaks=values * 3), steps=4, upper_quantile=0.9
    )
    assert hours.peak_upper_tokens_per_s == pytest.approx(100.0)
    assert minutes.peak_upper_tokens_per_s == pytest.approx(300.0)
    assert minutes.quantile(0.9).peak_tokens_per_s == pytest.approx(300.0)
    assert minutes.quantile(0.9).path_tokens_per_s == pytest.approx((100.0,) * 4)
    assert (minutes.peak_step_s, hours.peak_step_s) == (60.0, 3600.0)


def test_a_step_has_the_quantile_of_its_own_errors():
    """Steps alternate between 50 and 150: a level of 100 is wrong by half, up or down, as often."""
    values = np.tile([50.0, 150.0], 60)
    answer = CalibratedForecaster(method=LastLevel(), calibration=Calibration(levels=(0.1, 0.9))).forecast(
        past(values), steps=2, upper_quantile=0.9
    )
    assert answer.mean_tokens_per_s == (100.0, 100.0)
    assert answer.quantile(0.9).path_tokens_per_s == pytest.approx((150.0, 150.0))
    assert answer.quantile(0.1).path_tokens_per_s == pytest.approx((50.0, 50.0))


def test_nine_peaks_in_ten_stay_below_their_quantile_when_errors_are_alike():
    rng = np.random.default_rng(5)
    values = 1000 * rng.lognormal(0, 0.3, 40 * DAY)
    one = CalibratedForecaster(method=LastLevel(), calibration=Calibration(window_s=10 * DAY * 3600.0))
    covered = [
        values[origin : origin + 4].max()
        <= one.forecast(past(values[:origin]), steps=4, upper_quantile=0.9).peak_upper_tokens_per_s
        for origin in range(15 * DAY, 40 * DAY - 4, 4)
    ]
    assert 0.85 <= np.mean(covered) <= 0.95


def test_skipped_steps_are_forecast_and_left_out():
    values = np.tile([100.0, 200.0, 300.0, 400.0] * 6, 4)
    whole = forecaster("seasonal-copy").forecast(past(values), steps=4, upper_quantile=0.9)
    later = forecaster("seasonal-copy").forecast(past(values), steps=4, skip=2, upper_quantile=0.9)
    assert later.mean_tokens_per_s == whole.mean_tokens_per_s[2:] == (300.0, 400.0)
    assert later.from_s == whole.from_s + 2 * 3600.0
    assert all(len(each.path_tokens_per_s) == 2 for each in later.quantiles)


def test_a_level_that_is_not_carried_is_refused():
    answer = forecaster("last-value").forecast(past(np.ones(50)), steps=1, upper_quantile=0.9)
    with pytest.raises(ValueError, match=r"no quantile 0.99 in a forecast that carries 0.1, 0.5, 0.8, 0.9, 0.95"):
        answer.quantile(0.99)
    with pytest.raises(ValueError, match="carries none"):
        replace(answer, quantiles=()).quantile(0.9)


@pytest.mark.parametrize("name", ["seasonal-naive", "last-level"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_demand_that_comes_and_goes_no_quantile_explodes_and_a_cut_has_a_name(name, seed):
    """A client that asks in a third of the hours: where nothing was forecast and something came, the ratio is huge."""
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(20 * DAY) < 0.3, 1000.0 * rng.lognormal(0.0, 0.5, 20 * DAY), 0.0)
    cut = 0
    for until in range(10 * DAY, 20 * DAY, 7):
        answer = forecaster(name).forecast(past(values[:until]), steps=2, upper_quantile=0.95)
        largest = values[:until].max()
        numbers = [
            *answer.upper_tokens_per_s,
            *(n for q in answer.quantiles for n in (q.peak_tokens_per_s, *q.path_tokens_per_s)),
        ]
        assert max(numbers) <= 5.0 * largest * (1 + 1e-9)
        cut += f"cut at {5.0 * largest:.3g}" in answer.fell_back_because
    assert cut
