"""A forecast corrected by what arrived since it was made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.forecasts.correction import corrected, level_factor
from controller.types import Forecast, ForecastQuantile

HOUR = Forecast(
    from_s=3600.0,
    step_s=900.0,
    mean_tokens_per_s=(100.0, 200.0, 300.0, 150.0),
    upper_tokens_per_s=(200.0, 400.0, 600.0, 300.0),
    upper_quantile=0.9,
    method="arima",
    quantiles=(ForecastQuantile(level=0.9, path_tokens_per_s=(150.0, 300.0, 450.0, 225.0), peak_tokens_per_s=600.0),),
)


def after(arrived: np.ndarray, **parameters: float) -> Forecast:
    return corrected(HOUR, arrived, arrived_step_s=60.0, **parameters)


def test_what_came_as_forecast_changes_nothing_but_what_is_left():
    left = after(np.full(15, 100.0))
    assert left.from_s == 4500.0
    assert left.mean_tokens_per_s == (200.0, 300.0, 150.0)
    assert left.quantile(0.9) == ForecastQuantile(
        level=0.9, path_tokens_per_s=(300.0, 450.0, 225.0), peak_tokens_per_s=600.0
    )


def test_ten_minutes_of_four_times_the_forecast_double_it():
    """Half of the correction on the scale of logarithms."""
    now = after(np.full(10, 400.0))
    assert now.from_s == 3600.0
    assert now.mean_tokens_per_s == pytest.approx((200.0, 400.0, 600.0, 300.0))
    assert now.peak_upper_tokens_per_s == pytest.approx(1200.0)
    assert now.quantile(0.9).peak_tokens_per_s == pytest.approx(1200.0)


def test_only_the_last_twenty_minutes_count():
    """The first quarter came at ten times the forecast, all since as forecast."""
    arrived = np.concatenate([np.full(15, 1000.0), np.full(15, 200.0), np.full(5, 300.0)])
    assert after(arrived).mean_tokens_per_s == pytest.approx((300.0, 150.0))


def test_the_quantile_of_the_peak_falls_with_what_is_left_of_the_hour():
    arrived = np.repeat([100.0, 200.0, 300.0], 15)
    last = after(arrived)
    assert last.mean_tokens_per_s == (150.0,)
    assert last.quantile(0.9).peak_tokens_per_s == pytest.approx(300.0)


def test_nothing_arrived_yet_or_all_of_it_leaves_the_forecast_as_it_was():
    assert after(np.empty(0)) == HOUR
    assert after(np.full(60, 900.0)) == HOUR


@given(
    factor=st.floats(0.01, 100.0),
    minutes=st.integers(1, 59),
    trust_after_s=st.floats(1.0, 1e6),
)
def test_a_correction_goes_the_way_of_the_error_and_never_all_of_it(factor, minutes, trust_after_s):
    forecast_then = np.repeat(HOUR.mean_tokens_per_s, 15)[:minutes]
    now = after(forecast_then * factor, trust_after_s=trust_after_s)
    before = HOUR.mean_tokens_per_s[-1]
    low, high = sorted((before, before * factor))
    assert low * (1 - 1e-9) <= now.mean_tokens_per_s[-1] <= high * (1 + 1e-9)
    assert before / 4 <= now.mean_tokens_per_s[-1] <= before * 4


def test_more_that_arrived_is_trusted_more():
    factors = [level_factor(200.0, 100.0, over_s, 600.0) for over_s in (0.0, 60.0, 600.0, 6000.0)]
    assert factors[0] == 1.0
    assert factors == sorted(factors)
    assert factors[-1] < 2.0


def test_a_forecast_of_nothing_is_not_corrected():
    assert level_factor(500.0, 0.0, 600.0, 600.0) == 1.0


def test_seconds_must_be_above_0():
    with pytest.raises(ValueError, match=r"arrived_step_s=0, .*all must be above 0"):
        corrected(HOUR, np.ones(3), arrived_step_s=0.0)
