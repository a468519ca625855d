"""Forecasters on series whose future is known."""

import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from controller.forecasts.arima import Arima, fourier_design
from controller.forecasts.arima_fit import ArmaFit, NoFit, conditional_fit, likelihood_fit
from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.calibration import Calibration, conformal_quantile, errors_of
from controller.forecasts.forecast import NotForecastable, Past
from controller.forecasts.methods import METHODS, MethodSettings, method, problem_with
from controller.forecasts.refit import Refitted
from controller.forecasts.seasonal import LastLevel, SeasonalNaive

DAY = 96  # steps of 900 s


def day_and_night(days: float, *, seed: int = 0, noise: float = 0.05, growth: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(round(days * DAY))
    clean = 1000 * (1.3 + np.sin(2 * np.pi * t / DAY)) * (1 + growth * t / DAY)
    return np.maximum(clean * (1 + noise * rng.standard_normal(len(t))), 0.0)


def past(values: np.ndarray) -> Past:
    return Past(values=values, step_s=900.0, until_s=900.0 * len(values))


INSTALLED = [name for name in METHODS if problem_with(name) is None]
TWO_DAYS = MethodSettings(refit_s=48 * 3600.0)


def of(name: str, settings: MethodSettings = TWO_DAYS) -> CalibratedForecaster:
    return CalibratedForecaster(method=method(name, settings))


@pytest.fixture(params=INSTALLED)
def forecaster(request) -> CalibratedForecaster:
    return of(request.param)


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


@pytest.mark.parametrize("name", ["arima", "arima-fourier", "ets", "ensemble", "seasonal-naive"])
def test_a_forecast_of_a_daily_rhythm_beats_the_last_level_and_covers_nine_peaks_in_ten(name):
    values = day_and_night(8)
    origins = range(6 * DAY, 8 * DAY - 4, 4)
    error, covered, over = rolling(of(name), values, origins)
    naive_error, _, _ = rolling(of("last-level"), values, origins)
    assert error < 0.6 * naive_error
    assert 0.75 <= covered <= 1.0
    assert over < 0.35


def test_a_forecast_never_looks_ahead(forecaster):
    values = day_and_night(5)
    poisoned = values.copy()
    origin = 4 * DAY + 37
    poisoned[origin:] = np.nan
    honest = forecaster.forecast(past(values[:origin]), steps=4, upper_quantile=0.9)
    assert forecaster.forecast(past(poisoned[:origin]), steps=4, upper_quantile=0.9) == honest
    assert np.isfinite(honest.upper_tokens_per_s).all()


def test_repeated_forecasts_of_the_past_use_only_what_was_known_then(forecaster):
    """The paths that calibrate the quantiles: what came behind an origin must not change its path."""
    values = day_and_night(9)
    model = forecaster.method.model(past(values))
    origin = 8 * DAY
    poisoned = values.copy()
    poisoned[origin:] = 1e9
    np.testing.assert_allclose(
        model.paths(past(poisoned), np.array([origin]), 4), model.paths(past(values), np.array([origin]), 4), rtol=1e-9
    )


@pytest.mark.parametrize("length", [0, 1, 2, 3, 5, 40])
@pytest.mark.parametrize("level", [0.0, 700.0])
def test_any_past_has_a_finite_forecast_of_the_length_asked_for(forecaster, length, level):
    answer = forecaster.forecast(past(np.full(length, level)), steps=3, upper_quantile=0.9)
    assert len(answer.mean_tokens_per_s) == len(answer.upper_tokens_per_s) == 3
    assert all(0 <= m <= u < 1e6 for m, u in zip(answer.mean_tokens_per_s, answer.upper_tokens_per_s, strict=True))
    if length > 0:
        assert answer.mean_tokens_per_s[0] == pytest.approx(level)


def test_a_fall_back_is_named_with_what_was_missing():
    answer = of("arima").forecast(past(np.array([100.0, 200.0, 300.0])), steps=2, upper_quantile=0.9)
    assert answer.method == "arima"
    assert answer.fell_back_because == (
        "arima: too little history: 0 steps of 900 s at the last fit, 32 wanted; "
        "seasonal-naive: too little history: 3 steps of 900 s, 100 wanted; last-level instead"
    )
    assert answer.mean_tokens_per_s == (200.0, 200.0)
    assert "no history at all" in of("ets").forecast(past(np.empty(0)), steps=1, upper_quantile=0.9).fell_back_because


def test_a_constant_history_is_forecast_by_the_seasonal_naive_and_said_so():
    answer = of("arima").forecast(past(np.full(2 * DAY, 500.0)), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because == "arima: the history is constant; seasonal-naive instead"
    assert answer.mean_tokens_per_s == pytest.approx((500.0,) * 4)


class Runaway:
    """A method whose prediction is a hundred times what was ever seen."""

    name = "runaway"

    def model(self, past):
        return self

    caveat = ""
    warnings = ()

    def paths(self, past, origins, steps):
        return np.full((len(origins), steps), 100 * past.values.max())

    def spread(self, past, path, level):
        return path


def test_an_exploding_prediction_falls_back():
    answer = CalibratedForecaster(method=Runaway()).forecast(past(day_and_night(3)), steps=8, upper_quantile=0.9)
    assert "runaway: its prediction of" in answer.fell_back_because and "exploded" in answer.fell_back_because
    assert answer.fell_back_because.endswith("seasonal-naive instead")
    assert answer.peak_mean_tokens_per_s < 5000


def test_a_fit_that_does_not_converge_says_so_with_the_warning(monkeypatch):
    class Unconverged:
        def __init__(self, *args, **kwargs):
            self.mle_retvals = {"converged": False}

        def fit(self, *args, **kwargs):
            warnings.warn("Maximum Likelihood optimization failed to converge", UserWarning, stacklevel=1)
            return self

    monkeypatch.setattr("controller.forecasts.arima_fit.ARIMA", Unconverged)
    monkeypatch.setattr("controller.forecasts.arima_fit.conditional_fit", lambda *_, **__: NoFit(why="no"))
    reason = Arima().fit(past(day_and_night(1)), DAY)
    assert reason == "the fit did not converge (Maximum Likelihood optimization failed to converge)"


def test_a_warning_of_a_fit_that_converged_is_carried_in_the_forecast(monkeypatch):
    class Warned:
        def __init__(self, *args, **kwargs):
            self.mle_retvals = {"converged": True}
            self.params = np.array([0.5, 0.1, 0.0, 0.2, 0.1, 0.01])

        def fit(self, *args, **kwargs):
            warnings.warn("Roots near the unit circle\nand more", UserWarning, stacklevel=1)
            return self

    monkeypatch.setattr("controller.forecasts.arima_fit.ARIMA", Warned)
    answer = of("arima").forecast(past(day_and_night(4)), steps=4, upper_quantile=0.9)
    assert (answer.fell_back_because, answer.warnings) == ("", ("Roots near the unit circle",))


def test_a_fit_that_raises_becomes_a_reason(monkeypatch):
    def broken(*args, **kwargs):
        raise np.linalg.LinAlgError("LU decomposition error")

    monkeypatch.setattr("controller.forecasts.arima_fit.ARIMA", broken)
    answer = of("arima").forecast(past(day_and_night(4)), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because.startswith("arima: the fit failed: LinAlgError: LU decomposition error")


def test_an_ensemble_goes_on_without_a_member_and_names_it(monkeypatch):
    def broken(*args, **kwargs):
        raise np.linalg.LinAlgError("singular")

    monkeypatch.setattr("controller.forecasts.ets.ExponentialSmoothing", broken)
    answer = of("ensemble").forecast(past(day_and_night(4)), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because == "ensemble without ets: the fit failed: LinAlgError: singular"
    assert np.isfinite(answer.mean_tokens_per_s).all()


def test_an_ensemble_without_any_member_falls_back():
    answer = of("ensemble").forecast(past(day_and_night(0.5)), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because.endswith("last-level instead")


@pytest.mark.filterwarnings("ignore:Non-(stationary|invertible) starting")
def test_the_recursion_forecasts_what_statsmodels_forecasts():
    from statsmodels.tsa.arima.model import ARIMA

    values = day_and_night(2)
    with threadpool_limits(1):
        result = ARIMA(values / values.mean(), order=(3, 1, 2), trend="n").fit(method_kwargs={"maxiter": 200})
    expected = result.forecast(8) * values.mean()
    ours = of("arima").forecast(past(values), steps=8, upper_quantile=0.9)
    assert ours.fell_back_because == ""
    np.testing.assert_allclose(ours.mean_tokens_per_s, expected, rtol=0.01)


def test_least_squares_and_likelihood_agree_on_a_long_series():
    rng = np.random.default_rng(3)
    surprises = rng.standard_normal(2000)
    w = np.zeros(2000)
    for t in range(2, 2000):
        w[t] = 0.6 * w[t - 1] + 0.2 * w[t - 2] + surprises[t] + 0.4 * surprises[t - 1]
    quick = conditional_fit(w, p=2, q=1)
    with threadpool_limits(1):
        exact = likelihood_fit(w, order=(2, 0, 1))
    assert isinstance(quick, ArmaFit) and isinstance(exact, ArmaFit)
    np.testing.assert_allclose([*quick.ar, *quick.ma, quick.sigma], [0.6, 0.2, 0.4, 1.0], atol=0.1)
    np.testing.assert_allclose([*quick.ar, *quick.ma], [*exact.ar, *exact.ma], atol=0.02)


def test_a_fit_of_too_few_values_says_so():
    assert conditional_fit(np.arange(10.0), p=3, q=2) == NoFit(why="10 values do not determine an ARMA(3, 2)")


@pytest.mark.parametrize("name", ["arima", "ets"])
def test_parameters_are_refitted_only_at_multiples_of_refit_s(name):
    settings = MethodSettings(refit_s=6 * 900.0)
    forecaster = of(name, settings)
    values = day_and_night(3)
    for origin in range(2 * DAY, 2 * DAY + 12):
        forecaster.forecast(past(values[:origin]), steps=2, upper_quantile=0.9)
    assert isinstance(forecaster.method, Refitted)
    assert len(forecaster.method._fits) == 2
    last = past(values[: 2 * DAY + 11])
    fresh = of(name, settings).forecast(last, steps=2, upper_quantile=0.9)
    assert fresh == forecaster.forecast(last, steps=2, upper_quantile=0.9)


def test_statsmodels_smooths_as_the_recursion_does():
    from statsmodels.tsa.holtwinters import ExponentialSmoothing

    values = day_and_night(4)
    model = of("ets").method.model(past(values))
    given = model.scale.to_model(values)
    theirs = ExponentialSmoothing(
        given, trend="add", damped_trend=True, seasonal="add", seasonal_periods=DAY, initialization_method="known",
        initial_level=model.level, initial_trend=model.trend, initial_seasonal=np.array(model.season),
    ).fit(smoothing_level=model.alpha, smoothing_trend=model.beta, smoothing_seasonal=model.gamma,
          damping_trend=model.phi, optimized=False)  # fmt: skip
    ours = model.paths(past(values), np.array([len(values)]), 8)[0]
    np.testing.assert_allclose(ours, model.scale.from_model(theirs.forecast(8)), rtol=1e-6)


def test_the_seasonal_naive_repeats_yesterday_at_the_level_of_today():
    yesterday = np.concatenate([np.full(48, 100.0), np.full(48, 300.0)])
    today = 2 * yesterday[:48]
    history = past(np.concatenate([yesterday, yesterday, today]))
    answer = of("seasonal-naive").forecast(history, steps=4, upper_quantile=0.9)
    assert answer.mean_tokens_per_s == (600.0,) * 4
    copy = of("seasonal-copy").forecast(history, steps=4, upper_quantile=0.9)
    assert copy.mean_tokens_per_s == (300.0,) * 4


def test_a_compressed_run_is_forecast_on_its_own_grid():
    t = np.arange(120)
    values = 50 * (1.5 + np.sin(2 * np.pi * t / 36))
    answer = CalibratedForecaster(method=SeasonalNaive(season_s=180.0)).forecast(
        Past(values=values, step_s=5.0, until_s=600.0), steps=6, upper_quantile=0.9
    )
    assert answer.fell_back_because == ""
    assert answer.from_s == 600.0
    came = 50 * (1.5 + np.sin(2 * np.pi * np.arange(120, 126) / 36))
    np.testing.assert_allclose(answer.mean_tokens_per_s, came, rtol=1e-6)


def test_the_upper_quantile_is_the_size_of_the_peaks_that_were_missed():
    """Every fourth step is three times the level, which a mean of four steps can never foresee."""
    values = np.tile([100.0, 100.0, 100.0, 300.0], 40)
    answer = CalibratedForecaster(method=LastLevel(), calibration=Calibration(window_s=100 * 900.0)).forecast(
        past(values), steps=4, upper_quantile=0.9
    )
    assert answer.peak_mean_tokens_per_s == 150.0
    assert answer.peak_upper_tokens_per_s == 300.0


def test_the_conformal_quantile_of_few_ratios_is_the_largest():
    assert conformal_quantile(np.array([1.0, 1.3, 0.9]), 0.9) == 1.3
    assert conformal_quantile(np.arange(1.0, 100.0), 0.9) == 90.0
    both = conformal_quantile(np.array([[1.0, 5.0], [2.0, 4.0]]), 0.9)
    assert both.tolist() == [2.0, 5.0]


def test_a_forecast_of_nothing_has_a_finite_ratio():
    errors = errors_of(past(np.array([0.0, 0.0, 50.0])), np.array([1]), np.array([[0.0, 0.0]]))
    assert np.isfinite(errors.peak).all() and errors.peak[0] > 1
    assert np.isfinite(errors.path).all()


def test_fourier_terms_repeat_after_a_season():
    design = fourier_design(np.arange(2 * DAY), DAY, 2, intercept=True)
    assert design.shape == (2 * DAY, 5)
    np.testing.assert_allclose(design[:DAY], design[DAY:], atol=1e-9)


def test_seasonal_terms_wait_for_a_whole_season():
    values = day_and_night(0.9)
    answer = of("arima-fourier", MethodSettings(refit_s=900.0)).forecast(past(values), steps=4, upper_quantile=0.9)
    assert answer.fell_back_because.startswith(
        "arima-fourier: too little history: 86 steps of 900 s at the last fit, 96"
    )


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].needs])
def test_a_method_whose_package_is_missing_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr("controller.forecasts.methods.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=rf"{name} needs {name}, which is not installed: pip install") as error:
        method(name, MethodSettings())
    assert "\n" not in str(error.value)


def test_an_unknown_method_names_those_there_are():
    with pytest.raises(ValueError, match=r"no forecast method 'prophet'; there are last-value, .*ensemble"):
        method("prophet", MethodSettings())


def test_a_method_that_cannot_answer_is_asked_no_further():
    with pytest.raises(NotForecastable, match="too little history"):
        SeasonalNaive().model(past(np.ones(3)))


@pytest.mark.parametrize("name", ["ets", "ensemble"])
def test_a_history_that_repeats_itself_is_forecast_afresh(name):
    """The same numbers a day later: what was remembered of the first day must not answer for the second."""
    values = np.tile(np.concatenate([np.full(48, 100.0), np.full(40, 300.0), np.full(8, 150.0)]), 9)
    settings = MethodSettings(refit_s=12 * 3600.0, fit_window_s=3 * 24 * 3600.0)
    asked_before = of(name, settings)
    asked_before.forecast(past(values[: 7 * DAY]), steps=4, upper_quantile=0.9)
    later = past(values[: 8 * DAY])
    fresh = of(name, settings).forecast(later, steps=4, upper_quantile=0.9)
    assert asked_before.forecast(later, steps=4, upper_quantile=0.9) == fresh
