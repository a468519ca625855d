"""Shapes of load: day, week, level and bursts."""

import numpy as np
import pytest
from pydantic import ValidationError

from workloads.shapes import LoadShape, Regime, bursts, random_level, regime_level, weekly_curve

MINUTES = (np.arange(7 * 1440) + 0.5) / 60


def test_a_weekday_has_the_peak_to_trough_ratio_asked_for_at_the_hour_asked_for():
    shape = LoadShape(peak_to_trough=6.0, peak_hour=15.0)
    tuesday = MINUTES[1440:2880]
    curve = weekly_curve(shape, tuesday)
    assert curve.max() / curve.min() == pytest.approx(6.0, rel=1e-3)
    assert tuesday[curve.argmax()] == pytest.approx(24 + 15, abs=0.02)


def test_a_weekend_day_is_the_fraction_of_a_weekday_asked_for():
    curve = weekly_curve(LoadShape(weekend_to_weekday=0.3), MINUTES).reshape(7, -1).mean(axis=1)
    assert curve[5:].mean() / curve[1:4].mean() == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize("ramp_h", [0.0, 4.0, 12.0])
def test_the_week_closes_without_a_jump_beyond_the_ramp(ramp_h):
    curve = weekly_curve(LoadShape(weekend_ramp_h=ramp_h, weekend_to_weekday=0.3), np.array([167.99, 168.0, 0.01]))
    # Without a ramp Sunday ends low and Monday begins high; with one, midnight lies half-way.
    assert (curve[2] / curve[0] > 3) == (ramp_h == 0)


def test_the_random_level_runs_on_over_midnight():
    shape = LoadShape(level_sd=0.5, level_correlation_h=4.0)
    first, second = random_level(shape, 1, "m", 3), random_level(shape, 1, "m", 4)
    within = np.abs(np.diff(np.log(first))).max()
    assert abs(np.log(second[0] / first[-1])) <= within


def test_the_random_level_has_mean_one_and_forgets_itself_within_a_day():
    shape = LoadShape(level_sd=0.3, level_correlation_h=3.0)
    days = np.concatenate([random_level(shape, 2, "m", day) for day in range(-100, 100)])
    assert days.mean() == pytest.approx(1.0, abs=0.05)
    hourly = days[::60]
    assert np.log(hourly).std() == pytest.approx(0.3, rel=0.1)
    assert abs(np.corrcoef(hourly[:-24], hourly[24:])[0, 1]) < 0.1
    assert np.corrcoef(hourly[:-1], hourly[1:])[0, 1] > 0.5


def test_bursts_are_rare_short_and_strong_and_do_not_change_the_mean():
    shape = LoadShape(bursts_per_day=2, burst_minutes=3, burst_factor_low=5, burst_factor_high=10)
    days = np.stack([bursts(shape, 3, "m", day) for day in range(300)])
    quiet = days.min()
    strong = days > 4 * quiet
    assert 0 < strong.mean() < 3 * 3 / 1440
    assert (days[strong] / quiet).max() <= 10 + 1e-9
    assert days.mean() == pytest.approx(1.0, abs=0.01)


def test_no_bursts_and_no_level_mean_an_even_day():
    shape = LoadShape(bursts_per_day=0, level_sd=0)
    assert (bursts(shape, 1, "m", 0) * random_level(shape, 1, "m", 0) == 1).all()


def test_the_first_minute_of_every_hour_may_ask_more():
    plain, burst = (weekly_curve(LoadShape(first_minute_factor=factor), MINUTES) for factor in (1, 9))
    ratio = (burst / plain).reshape(-1, 60)
    assert ratio[:, 0] == pytest.approx(9)
    assert (ratio[:, 1:] == 1).all()


def test_burst_factors_the_wrong_way_round_are_refused():
    with pytest.raises(ValidationError, match="swap"):
        LoadShape(burst_factor_low=5, burst_factor_high=4)


def test_measured_hours_and_weekdays_replace_the_idealised_ones():
    by_hour = tuple(1.0 + hour % 5 for hour in range(24))
    shape = LoadShape(by_hour=by_hour, by_weekday=(1, 1, 2, 1, 1, 0.5, 0.1), weekend_ramp_h=0)
    middles = np.arange(168) + 0.5
    curve = weekly_curve(shape, middles).reshape(7, 24)
    assert curve[0] == pytest.approx(by_hour)
    assert curve[2] == pytest.approx(2 * curve[0])
    assert curve[6] == pytest.approx(0.1 * curve[0])


def test_a_regime_stays_for_hours_and_then_jumps():
    regime = Regime(sd=0.6, mean_h=6.0)
    days = np.concatenate([regime_level(regime, 1, "m", day) for day in range(300)])
    jumps = int((np.diff(days) != 0).sum())
    assert 300 * 24 / jumps == pytest.approx(6.0, rel=0.1)
    assert days.mean() == pytest.approx(1.0, abs=0.06)
    assert np.log(days).std() == pytest.approx(0.6, rel=0.1)


def test_a_day_begins_at_the_level_of_its_eve_whichever_is_drawn_first():
    regime = Regime(sd=0.6, mean_h=30.0)
    later, earlier = regime_level(regime, 2, "n", 41), regime_level(regime, 2, "n", 40)
    jumps_at_midnight = [
        regime_level(regime, 2, "n", day)[0] != regime_level(regime, 2, "n", day - 1)[-1] for day in range(40)
    ]
    assert later[0] == earlier[-1]
    assert sum(jumps_at_midnight) <= 1  # one in 1440 minutes is a midnight


def test_a_rhythm_without_any_rate_is_refused():
    with pytest.raises(ValidationError, match="by_hour is all 0"):
        LoadShape(by_hour=(0.0,) * 24)
