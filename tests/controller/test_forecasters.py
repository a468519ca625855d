"""Forecasters on series whose future is known."""

import warnings

import numpy as np
import pytest

from controller.forecasts.arima import Arima, fit_arima, fourier_design
from controller.forecasts.forecast import Calibration, Past, conformal_quantile, peak_ratios
from controller.forecasts.seasonal import LastLevel, SeasonalNaive

DAY = 96  # steps of 900 s


def day_and_night(days: float, *, seed: int = 0, noise: float = 0.05, growth: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(days * DAY))
    clean = 1000 * (1.3 + np.sin(2 * np.pi * t / DAY)) * (1 + growth * t / DAY)
    return np.maximum(clean * (1 + noise * rng.standard_normal(len(t))), 0.0)


def past(values: np.ndarray) -> Past:
    return Past(values=values, step_s=900.0, until_s=900.0 * len(values))


FORECASTERS = [
    Arima(refit_s=48 * 3600.0),
    Arima(order=(2, 0, 1), fourier_pairs=4, logs=True, refit_s=48 * 3600.0, name="arima-fourier"),
    SeasonalNaive(),
    LastLevel(),
]


def rolling(forecaster, values, origins):
    """(absolute error, actual, peak covered, over-provision of the peak) by origin, four steps ahead."""
    rows = []
    for origin in origins:
        answer = forecaster.forecast(past(values[:origin]), steps=4, upper_quantile=0.9)
        came = values[origin : origin + 4]
        rows.append(
            (
                np.abs(np.array(answer.mean_tokens_per_s) - came).sum(),
                came.sum(),
                answer.peak_upper_tokens_per_s >= came.max(),
                answer.peak_upper_tokens_per_s / came.max() - 1,
            )
        )
    error, actual, covered, over = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    return error.sum() / actual.sum(), covered.mean(), over.mean()


@pytest.mark.parametrize("forecaster", FORECASTERS[:3], ids=lambda f: f.name)
def test_a_forecast_of_a_daily_rhythm_beats_the_last_level_and_covers_nine_peaks_in_ten(forecaster):
    values = day_and_night(8)
    origins = range(6 * DAY, 8 * DAY - 4, 4)
    error, covered, over = rolling(forecaster, values, origins)
    naive_error, _, _ = rolling(LastLevel(), values, origins)
    assert error < 0.6 * naive_error
    assert 0.75 <= covered <= 1.0
    assert over < 0.35


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda f: f.name)
def test_a_forecast_never_looks_ahead(forecaster):
    values = day_and_night(5)
    poisoned = values.copy()
    origin = 4 * DAY + 37
    poisoned[origin:] = np.nan
    honest = forecaster.forecast(past(values[:origin]), steps=4, upper_quantile=0.9)
    assert forecaster.forecast(past(poisoned[:origin]), steps=4, upper_quantile=0.9) == honest
    assert np.isfinite(honest.upper_tokens_per_s).all()


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda f: f.name)
def test_repeated_forecasts_of_the_past_use_only_what_was_known_then(forecaster):
    """The paths that calibrate the upper quantile: cutting the series behind an origin must not change its path."""
    values = day_and_night(4)
    until = past(values)
    if isinstance(forecaster, Arima):
        model = forecaster._fitted(until)
    elif isinstance(forecaster, SeasonalNaive):
        from controller.forecasts.seasonal import SeasonalPaths

        model = SeasonalPaths(season_steps=DAY, level_steps=4)
    else:
        from controller.forecasts.seasonal import LastLevelPaths

        model = LastLevelPaths(level_steps=4)
    origin = 3 * DAY
    whole = model.paths(values, np.array([origin]), 4)
    cut = model.paths(values[:origin], np.array([origin]), 4)
    np.testing.assert_allclose(whole, cut, rtol=1e-9)


@pytest.mark.parametrize("forecaster", FORECASTERS, ids=lambda f: f.name)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 40])
@pytest.mark.parametrize("level", [0.0, 700.0])
def test_any_past_has_a_finite_forecast_of_the_length_asked_for(forecaster, length, level):
    answer = forecaster.forecast(past(np.full(length, level)), steps=3, upper_quantile=0.9)
    assert len(answer.mean_tokens_per_s) == len(answer.upper_tokens_per_s) == 3
    assert all(0 <= m <= u < 1e6 for m, u in zip(answer.mean_tokens_per_s, answer.upper_tokens_per_s, strict=True))
    if length > 0:
        assert answer.mean_tokens_per_s[0] == pytest.approx(level)


def test_a_fall_back_is_named_with_what_was_missing():
    answer = Arima().forecast(past(np.array([100.0, 200.0, 300.0])), steps=2, upper_quantile=0.9)
    assert answer.method == "arima"
    assert answer.fell_back_because == (
        "arima: too little history: 0 steps of 900 s at the last fit, 32 wanted; "
        "seasonal-naive: too little history: 3 steps of 900 s, 100 wanted; last-level instead"
    )
    assert answer.mean_tokens_per_s == (200.0, 200.0)
    assert "no history at all" in LastLevel().forecast(past(np.empty(0)), steps=1, upper_quantile=0.9).fell_back_because


def test_a_constant_history_is_forecast_by_the_seasonal_naive_and_said_so():
    answer = Arima().forecast(past(np.full(2 * DAY, 500.0)), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because == "arima: the history is constant; seasonal-naive instead"
    assert answer.mean_tokens_per_s == pytest.approx((500.0,) * 4)


def test_an_exploding_prediction_falls_back():
    """A fit made on a quiet history of another model: its prediction for this past runs away."""
    forecaster = Arima()
    values = day_and_night(3)
    fitted = forecaster._fitted(past(values)).fit
    (key,) = forecaster._fits
    forecaster._fits[key] = type(fitted)(ar=(3.0, 0.0, 0.0), ma=fitted.ma, beta=(), sigma=1.0, scale=fitted.scale)
    answer = forecaster.forecast(past(values), steps=8, upper_quantile=0.9)
    assert "exploded" in answer.fell_back_because or "not finite" in answer.fell_back_because
    assert answer.fell_back_because.endswith("seasonal-naive instead")
    assert answer.peak_mean_tokens_per_s < 5000


def test_a_fit_that_does_not_converge_says_so_with_the_warning(monkeypatch):
    class Unconverged:
        def __init__(self, *args, **kwargs):
            self.mle_retvals = {"converged": False}

        def fit(self, **kwargs):
            warnings.warn("Maximum Likelihood optimization failed to converge", UserWarning, stacklevel=1)
            return self

    monkeypatch.setattr("controller.forecasts.arima.ARIMA", Unconverged)
    reason = fit_arima(day_and_night(1), order=(3, 1, 2), logs=False, design=np.empty((DAY, 0)))
    assert reason == "the fit did not converge (Maximum Likelihood optimization failed to converge)"


def test_a_fit_that_raises_becomes_a_reason(monkeypatch):
    def broken(*args, **kwargs):
        raise np.linalg.LinAlgError("LU decomposition error")

    monkeypatch.setattr("controller.forecasts.arima.ARIMA", broken)
    answer = Arima().forecast(past(day_and_night(3)), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because.startswith("arima: the fit failed: LinAlgError: LU decomposition error")


@pytest.mark.filterwarnings("ignore:Non-(stationary|invertible) starting")
def test_the_recursion_forecasts_what_statsmodels_forecasts():
    from statsmodels.tsa.arima.model import ARIMA

    values = day_and_night(4)
    result = ARIMA(values / values.mean(), order=(3, 1, 2), trend="n").fit(method_kwargs={"maxiter": 200})
    expected = result.forecast(8) * values.mean()
    ours = Arima().forecast(past(values), steps=8, upper_quantile=0.9)
    assert ours.fell_back_because == ""
    np.testing.assert_allclose(ours.mean_tokens_per_s, expected, rtol=0.01)


def test_parameters_are_refitted_only_at_multiples_of_refit_s():
    forecaster = Arima(refit_s=6 * 900.0)
    values = day_and_night(2)
    for origin in range(96, 108):
        forecaster.forecast(past(values[:origin]), steps=2, upper_quantile=0.9)
    assert len(forecaster._fits) == 2
    fresh = Arima(refit_s=6 * 900.0).forecast(past(values[:107]), steps=2, upper_quantile=0.9)
    assert fresh == forecaster.forecast(past(values[:107]), steps=2, upper_quantile=0.9)


def test_the_seasonal_naive_repeats_yesterday_at_the_level_of_today():
    yesterday = np.concatenate([np.full(48, 100.0), np.full(48, 300.0)])
    today = 2 * yesterday[:48]
    answer = SeasonalNaive().forecast(past(np.concatenate([yesterday, yesterday, today])), steps=4, upper_quantile=0.9)
    assert answer.mean_tokens_per_s == (600.0,) * 4


def test_a_compressed_run_is_forecast_on_its_own_grid():
    t = np.arange(120)
    values = 50 * (1.5 + np.sin(2 * np.pi * t / 36))
    answer = SeasonalNaive(season_s=180.0).forecast(
        Past(values=values, step_s=5.0, until_s=600.0), steps=6, upper_quantile=0.9
    )
    assert answer.fell_back_because == ""
    assert answer.from_s == 600.0
    came = 50 * (1.5 + np.sin(2 * np.pi * np.arange(120, 126) / 36))
    np.testing.assert_allclose(answer.mean_tokens_per_s, came, rtol=1e-6)


def test_the_upper_quantile_is_the_size_of_the_peaks_that_were_missed():
    """Every fourth step is three times the level, which a mean of four steps can never foresee."""
    values = np.tile([100.0, 100.0, 100.0, 300.0], 40)
    answer = LastLevel(calibration=Calibration(window_s=100 * 900.0)).forecast(
        past(values), steps=4, upper_quantile=0.9
    )
    assert answer.peak_mean_tokens_per_s == 150.0
    assert answer.peak_upper_tokens_per_s == 300.0


def test_the_conformal_quantile_of_few_ratios_is_the_largest():
    assert conformal_quantile(np.array([1.0, 1.3, 0.9]), 0.9) == 1.3
    assert conformal_quantile(np.arange(1.0, 100.0), 0.9) == 90.0


def test_a_forecast_of_nothing_has_a_finite_ratio():
    ratios = peak_ratios(np.array([0.0, 0.0, 50.0]), np.array([1]), np.array([[0.0, 0.0]]))
    assert np.isfinite(ratios).all() and ratios[0] > 1


def test_fourier_terms_repeat_after_a_season():
    design = fourier_design(np.arange(2 * DAY), DAY, 2, intercept=True)
    assert design.shape == (2 * DAY, 5)
    np.testing.assert_allclose(design[:DAY], design[DAY:], atol=1e-9)


def test_seasonal_terms_wait_for_a_whole_season():
    values = day_and_night(0.9)
    forecaster = Arima(order=(2, 0, 1), fourier_pairs=4, logs=True, refit_s=900.0, name="arima-fourier")
    answer = forecaster.forecast(past(values), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because.startswith(
        "arima-fourier: too little history: 86 steps of 900 s at the last fit, 96"
    )
