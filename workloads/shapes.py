"""How load moves over a week: daily curve, weekend, slow random level, short bursts."""

from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from workloads.seeds import generator

HOURS_PER_DAY = 24
MINUTES_PER_DAY = 1440
FIRST_WEEKEND_DAY = 5

Curve = npt.NDArray[np.float64]


class LoadShape(BaseModel):
    """The shape of one class of tiers, in hours and minutes of the synthetic day.

    `peak_to_trough` is the ratio of the highest to the lowest rate within a weekday, `weekend_to_weekday` that of a
    weekend day's load to a weekday's, reached over `weekend_ramp_h` around midnight. `level_sd` is the standard
    deviation of the logarithm of a random level by model that forgets itself over `level_correlation_h`. Bursts of one
    model last `burst_minutes` and multiply its rate by something between `burst_factor_low` and `burst_factor_high`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_to_trough: float = Field(default=5.0, ge=1)
    peak_hour: float = Field(default=14.0, ge=0, lt=24)
    weekend_to_weekday: float = Field(default=0.35, gt=0)
    weekend_ramp_h: float = Field(default=4.0, ge=0, le=12)
    level_sd: float = Field(default=0.2, ge=0, le=2)
    level_correlation_h: float = Field(default=3.0, gt=0, le=8)
    bursts_per_day: float = Field(default=2.5, ge=0)
    burst_minutes: int = Field(default=2, ge=1, le=60)
    burst_factor_low: float = Field(default=3.0, ge=1)
    burst_factor_high: float = Field(default=15.0, ge=1)

    @model_validator(mode="after")
    def _factors_rise(self) -> Self:
        if self.burst_factor_low > self.burst_factor_high:
            raise ValueError(
                f"burst_factor_low={self.burst_factor_low} is above burst_factor_high={self.burst_factor_high}; swap"
            )
        return self


def weekly_curve(shape: LoadShape, hour_of_week: Curve) -> Curve:
    """Relative rate at `hour_of_week` (any shape; hours since Monday 00:00, local): daily curve times weekend.

    The daily curve is log-sinusoidal, exp(a cos(2 pi (h - peak) / 24)) with a = ln(peak/trough) / 2: its logarithm, as
    that of measured load, is close to a sine, and its peak/trough is exactly the one asked for.
    """
    half_swing = np.log(shape.peak_to_trough) / 2
    hour = hour_of_week % 168.0
    daily = np.exp(half_swing * np.cos(2 * np.pi * (hour - shape.peak_hour) / HOURS_PER_DAY))
    half_ramp_h = shape.weekend_ramp_h / 2
    saturday_h, week_h = FIRST_WEEKEND_DAY * 24.0, 168.0
    # Monday 00:00 is the middle of the way up, Saturday 00:00 of the way down.
    knots_h = [-half_ramp_h, half_ramp_h, saturday_h - half_ramp_h, saturday_h + half_ramp_h, week_h - half_ramp_h]
    low = shape.weekend_to_weekday
    level = np.interp(hour, [*knots_h, week_h + half_ramp_h], [low, 1.0, 1.0, low, low, 1.0])
    return np.asarray(daily * level)


def random_level(shape: LoadShape, seed: int, name: str, day: int) -> Curve:
    """The random level of `name` (a model and a class of tiers) in each minute of `day`, shape (1440,), mean 1.

    A lognormal moving average of hourly white noise with exponentially falling weights, linear between the hours; each
    day's noise is a stream of its own, so that a day is the same whatever window it is drawn in. Mean 1 because a
    lognormal with -sd^2/2 in the exponent has it; between two hours the variance, and with it the mean, is a bit less.
    """
    if shape.level_sd == 0:
        return np.ones(MINUTES_PER_DAY)
    weights = np.exp(-np.arange(HOURS_PER_DAY) / shape.level_correlation_h)
    weights /= np.sqrt((weights**2).sum())
    noise = np.concatenate(
        [generator(seed, "level", name, d).standard_normal(HOURS_PER_DAY) for d in (day - 1, day, day + 1)]
    )
    # Hour h of `day` sees the noise of the 24 hours that end with it; one hour more, to interpolate towards.
    hourly = np.convolve(noise, weights, mode="full")[HOURS_PER_DAY : 2 * HOURS_PER_DAY + 1]
    minutely = np.interp(np.arange(MINUTES_PER_DAY) / 60.0, np.arange(HOURS_PER_DAY + 1), hourly)
    return np.asarray(np.exp(shape.level_sd * minutely - shape.level_sd**2 / 2))


def bursts(shape: LoadShape, seed: int, name: str, day: int) -> Curve:
    """Rate multipliers of `name` by its bursts in each minute of `day`, shape (1440,), mean 1 over many days.

    Factors are log-uniform between their limits. Bursts that overlap do not multiply: the stronger one counts.
    """
    rng = generator(seed, "bursts", name, day)
    curve = np.ones(MINUTES_PER_DAY)
    low, high = shape.burst_factor_low, shape.burst_factor_high
    for _ in range(rng.poisson(shape.bursts_per_day)):
        start = int(rng.integers(0, MINUTES_PER_DAY - shape.burst_minutes + 1))
        factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        window = slice(start, start + shape.burst_minutes)
        curve[window] = np.maximum(curve[window], factor)
    mean_factor = (high - low) / np.log(high / low) if high > low else low
    expected = 1.0 + shape.bursts_per_day * shape.burst_minutes / MINUTES_PER_DAY * (mean_factor - 1.0)
    return curve / expected
