"""The rhythm of a trace: relative rate by hour of the day and by day of the week, and what moves around it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.hourly_load import HOURS_PER_DAY

Series = npt.NDArray[np.float64]
WholeNumbers = npt.NDArray[np.int64]

DAYS_PER_WEEK = 7
SWEEPS = 50
LOWEST_CORRELATION_H, HIGHEST_CORRELATION_H = 0.1, 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Relative rates, shape (24,) and (7,) from Monday; NaN where the trace says nothing."""

    by_hour: Series
    by_weekday: Series

    def at(self, hour_of_week: WholeNumbers) -> Series:
        """Relative rate in each of these hours, all of which the rhythm was learned from."""
        return np.asarray(self.by_hour[hour_of_week % HOURS_PER_DAY] * self.by_weekday[hour_of_week // HOURS_PER_DAY])


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Standard deviation of the logarithm of a random level, and the hours over which it forgets itself."""

    sd: float
    correlation_h: float


def fitted_rhythm(counts: Series, hour_of_week: WholeNumbers) -> Rhythm:
    """The rhythm f(hour) * g(day) that is likeliest for Poisson counts in these hours of the week.

    By turns each factor is set to what was counted over what the other expects, which is the likeliest value given
    the other (as in the fit of a log-linear table); fifty turns are many more than a table without gaps needs. The mean
    over the hours and over the days that occur is 1.
    """
    hour, day = hour_of_week % HOURS_PER_DAY, hour_of_week // HOURS_PER_DAY
    f, g = np.ones(HOURS_PER_DAY, dtype=np.float64), np.ones(DAYS_PER_WEEK, dtype=np.float64)
    hour_seen, day_seen = np.bincount(hour, minlength=HOURS_PER_DAY) > 0, np.bincount(day, minlength=DAYS_PER_WEEK) > 0
    by_hour = _sums(hour, counts, HOURS_PER_DAY)
    by_day = _sums(day, counts, DAYS_PER_WEEK)
    for _ in range(SWEEPS):
        f = _over(by_hour, _sums(hour, g[day], HOURS_PER_DAY))
        g = _over(by_day, _sums(day, f[hour], DAYS_PER_WEEK))
    return Rhythm(
        by_hour=np.where(hour_seen, f / _positive(f[hour_seen].mean()), np.nan),
        by_weekday=np.where(day_seen, g / _positive(g[day_seen].mean()), np.nan),
    )


def fitted_level(counts: Series, expected: Series, dispersion: float) -> Level:
    """What moves hourly `counts` around `expected`, both of shape (models, hours), beyond the chance of arrivals.

    Counts of arrivals alone would vary by `dispersion` times their mean; that part of the variance is taken off. The
    rest is a level that is linear between hours whose values forget each other by r an hour: the means of two hours
    in a row then correlate by (1 + r) / 2, and vary by as much of the level's own variance.
    """
    usable = (counts > 0) & (expected > 0)
    deviation = np.log(np.where(usable, counts, 1.0)) - np.log(np.where(usable, expected, 1.0))
    weight = usable.sum()
    if weight < DAYS_PER_WEEK:
        return Level(sd=0.0, correlation_h=LOWEST_CORRELATION_H)
    deviation = np.where(usable, deviation - deviation[usable].mean(), 0.0)
    chance = float((dispersion / counts[usable]).mean())
    variance = float((deviation**2).sum() / weight) - chance
    if variance <= 0:
        return Level(sd=0.0, correlation_h=LOWEST_CORRELATION_H)
    pairs = usable[:, 1:] & usable[:, :-1]
    covariance = float((deviation[:, 1:] * deviation[:, :-1]).sum() / max(1, pairs.sum()))
    r = float(np.clip(2 * covariance / variance - 1, 1e-4, 0.99))
    correlation_h = float(np.clip(-1 / np.log(r), LOWEST_CORRELATION_H, HIGHEST_CORRELATION_H))
    return Level(sd=min(2.0, (variance * 2 / (1 + r)) ** 0.5), correlation_h=correlation_h)


def _sums(groups: WholeNumbers, values: Series, size: int) -> Series:
    return np.bincount(groups, weights=values, minlength=size).astype(np.float64)


def _over(counted: Series, expected: Series) -> Series:
    return np.divide(counted, expected, out=np.zeros_like(counted), where=expected > 0)


def _positive(value: float) -> float:
    return value if value > 0 else 1.0
