"""How load moves over a week: daily curve, weekend, slow random level, regimes, short bursts."""

from functools import lru_cache
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from workloads.file_part import FilePart
from workloads.seeds import generator

HOURS_PER_DAY = 24
MINUTES_PER_DAY = 1440
FIRST_WEEKEND_DAY = 5

DAYS_PER_WEEK = 7
REGIME_LOOK_BACK_DAYS = 100

Curve = npt.NDArray[np.float64]
RelativeRate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class LoadShape(FilePart):
    """The shape of one class of tiers, in hours and minutes of the synthetic day.

    `peak_to_trough` is the ratio of the highest to the lowest rate within a weekday, `weekend_to_weekday` that of a
    weekend day's load to a weekday's, reached over `weekend_ramp_h` around midnight. `level_sd` is the standard
    deviation of the logarithm of a random level by model that forgets itself over `level_correlation_h`. Bursts of one
    model last `burst_minutes` and multiply its rate by something between `burst_factor_low` and `burst_factor_high`.
    `first_minute_factor` multiplies the rate of all models in the first minute of every hour.

    What was measured replaces what is idealised: `by_hour` (24 relative rates of a day, from 00:00) stands for
    `peak_to_trough` and `peak_hour`, `by_weekday` (7 relative loads, from Monday) for `weekend_to_weekday`.
    """

    peak_to_trough: float = Field(default=5.0, ge=1, le=1e6)
    peak_hour: float = Field(default=14.0, ge=0, lt=24)
    weekend_to_weekday: float = Field(default=0.35, gt=0, le=1e6)
    weekend_ramp_h: float = Field(default=4.0, ge=0, le=12)
    level_sd: float = Field(default=0.2, ge=0, le=2)
    level_correlation_h: float = Field(default=3.0, ge=0.01, le=8)
    bursts_per_day: float = Field(default=2.5, ge=0, le=1440)
    burst_minutes: int = Field(default=2, ge=1, le=60)
    burst_factor_low: float = Field(default=3.0, ge=1, le=1e6)
    burst_factor_high: float = Field(default=15.0, ge=1, le=1e6)
    first_minute_factor: float = Field(default=1.0, gt=0, le=100)
    by_hour: tuple[RelativeRate, ...] | None = Field(default=None, min_length=24, max_length=24)
    by_weekday: tuple[RelativeRate, ...] | None = Field(default=None, min_length=7, max_length=7)

    @model_validator(mode="after")
    def _factors_rise(self) -> Self:
        if self.burst_factor_low > self.burst_factor_high:
            raise ValueError(
                f"burst_factor_low={self.burst_factor_low} is above burst_factor_high={self.burst_factor_high}; swap"
            )
        for name, rates in (("by_hour", self.by_hour), ("by_weekday", self.by_weekday)):
            if rates is not None and not any(rates):
                raise ValueError(f"{name} is all 0; give one of them a rate or leave it out")
        return self


class Regime(FilePart):
    """A level that stays for a while and then jumps, as when a batch client comes and goes.

    Jumps come at random, `mean_h` hours of the synthetic day apart on average; the logarithm of the level has the
    standard deviation `sd`, and each level is drawn without regard to the one before.
    """

    sd: float = Field(ge=0, le=2)
    mean_h: float = Field(default=12.0, ge=0.01, le=168)


def weekly_curve(shape: LoadShape, hour_of_week: Curve) -> Curve:
    """Relative rate at `hour_of_week` (any shape; hours since Monday 00:00, local): daily curve times weekend.

    The daily curve is log-sinusoidal, exp(a cos(2 pi (h - peak) / 24)) with a = ln(peak/trough) / 2: its logarithm, as
    that of measured load, is close to a sine, and its peak/trough is exactly the one asked for. A measured one
    (`by_hour`) is linear between the middles of its hours. Days meet in ramps whose middles are the midnights.
    """
    hour = hour_of_week % 168.0
    if shape.by_hour is None:
        half_swing = np.log(shape.peak_to_trough) / 2
        daily = np.exp(half_swing * np.cos(2 * np.pi * (hour - shape.peak_hour) / HOURS_PER_DAY))
    else:
        middles_h = np.arange(-1, HOURS_PER_DAY + 1) + 0.5
        daily = np.interp(hour % HOURS_PER_DAY, middles_h, [shape.by_hour[-1], *shape.by_hour, shape.by_hour[0]])
    days = shape.by_weekday or (1.0,) * FIRST_WEEKEND_DAY + (shape.weekend_to_weekday,) * 2
    half_ramp_h = shape.weekend_ramp_h / 2
    knots_h = [24.0 * day + side for day in range(DAYS_PER_WEEK + 1) for side in (-half_ramp_h, half_ramp_h)]
    level = [days[(day + side) % DAYS_PER_WEEK] for day in range(DAYS_PER_WEEK + 1) for side in (-1, 0)]
    in_first_minute = hour % 1.0 < 1 / 60
    return np.asarray(daily * np.interp(hour, knots_h, level) * np.where(in_first_minute, shape.first_minute_factor, 1))


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


def regime_level(regime: Regime, seed: int, name: str, day: int) -> Curve:
    """The level of `name` by its regime in each minute of `day`, shape (1440,), mean 1 over many days.

    Each day's jumps are a stream of its own; a day begins at the level of the last jump before it, so that it is the
    same whatever window it is drawn in. (After 100 days without a jump, which do not happen, it would begin at 1.)
    """
    minutes, levels = _jumps(regime, seed, name, day)
    before = 1.0
    for earlier in range(day - 1, day - 1 - REGIME_LOOK_BACK_DAYS, -1):
        jumped_to = _jumps(regime, seed, name, earlier)[1]
        if jumped_to:
            before = jumped_to[-1]
            break
    return np.array([before, *levels])[np.searchsorted(minutes, np.arange(MINUTES_PER_DAY), side="right")]


@lru_cache(maxsize=4096)
def _jumps(regime: Regime, seed: int, name: str, day: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Minutes of `day` at which the level jumps, in order, and the levels it jumps to (lognormal, mean 1)."""
    rng = generator(seed, "regime", name, day)
    minutes = np.sort(rng.integers(0, MINUTES_PER_DAY, rng.poisson(HOURS_PER_DAY / regime.mean_h)))
    levels = np.exp(regime.sd * rng.standard_normal(len(minutes)) - regime.sd**2 / 2)
    return tuple(minutes.tolist()), tuple(levels.tolist())
