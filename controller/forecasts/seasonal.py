"""Forecasts that need no fit: level-adjusted seasonal naive, and the last level."""

from dataclasses import dataclass

import numpy as np

from controller.forecasts.forecast import (
    DEFAULT_CALIBRATION,
    Calibration,
    NotForecastable,
    Origins,
    Past,
    Paths,
    calibrated_forecast,
    normal_quantile,
)
from controller.history import Series
from controller.types import Forecast

_LARGEST_ADJUSTMENT = 4.0
"""The level now over the level a season ago counts as at most this much, and at least its inverse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalPaths:
    """What came one season ago, times the level of the last `level_steps` steps over their level one season ago.

    A season ago without load says nothing about the shape of the day: then the last level stands for every step.
    """

    season_steps: int
    level_steps: int

    @property
    def least_steps(self) -> int:
        """Steps of history that the first forecast needs."""
        return self.season_steps + self.level_steps

    def paths(self, values: Series, origins: Origins, steps: int) -> Paths:
        level = _trailing_means(values, self.level_steps)
        answer = np.full((len(origins), steps), np.nan)
        usable = origins >= self.least_steps
        at = origins[usable]
        now, before = level[at], level[at - self.season_steps]
        ahead = np.arange(steps) % self.season_steps
        shape = values[(at - self.season_steps)[:, None] + ahead[None, :]]
        with np.errstate(divide="ignore", invalid="ignore"):
            adjustment = np.clip(now / before, 1 / _LARGEST_ADJUSTMENT, _LARGEST_ADJUSTMENT)
        adjusted = shape * adjustment[:, None]
        answer[usable] = np.where(before[:, None] > 0, adjusted, now[:, None])
        return answer

    def spread(self, values: Series, path: Series, upper_quantile: float) -> Series:
        return _random_walk_spread(values, path, upper_quantile)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLevelPaths:
    """The mean of the last `level_steps` steps, or of as many as there are, for every step to come."""

    level_steps: int

    def paths(self, values: Series, origins: Origins, steps: int) -> Paths:
        level = _trailing_means(values, self.level_steps)[origins]
        return np.repeat(level[:, None], steps, axis=1)

    def spread(self, values: Series, path: Series, upper_quantile: float) -> Series:
        return _random_walk_spread(values, path, upper_quantile)


def _trailing_means(values: Series, window: int) -> Series:
    """Mean of the `window` values (fewer at the start) before each index 0..n; 0 before the first value."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(len(values) + 1)
    start = np.maximum(index - window, 0)
    # Differences of running sums leave rounding dust where the load is zero.
    means = np.maximum(total[index] - total[start], 0.0) / np.maximum(index - start, 1)
    return np.where(means > 1e-12 * max(1.0, float(total[-1])), means, 0.0)


def _random_walk_spread(values: Series, path: Series, upper_quantile: float) -> Series:
    """Upper quantile of a random walk from `path`: z sd(differences) sqrt(h) (Hyndman and Athanasopoulos,
    Forecasting: Principles and Practice, 3rd ed., section 5.5).
    """
    if len(values) < 3:
        return path
    sd = float(np.sqrt(np.mean(np.square(np.diff(values)))))
    return np.asarray(path + normal_quantile(upper_quantile) * sd * np.sqrt(np.arange(1, len(path) + 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLevel:
    """Forecaster: the level of the last steps goes on. With no history at all it answers 0 and says so."""

    level_steps: int = 4
    calibration: Calibration = DEFAULT_CALIBRATION
    name: str = "last-level"

    def forecast(self, past: Past, *, steps: int, upper_quantile: float) -> Forecast:
        return self.standing_in(past, steps=steps, upper_quantile=upper_quantile, method=self.name, because="")

    def standing_in(self, past: Past, *, steps: int, upper_quantile: float, method: str, because: str) -> Forecast:
        """The same, for another method that could not answer `because`."""
        if len(past.values) == 0:
            because = "; ".join(filter(None, (because, "no history at all, 0 assumed")))
        return calibrated_forecast(
            LastLevelPaths(level_steps=self.level_steps),
            past,
            steps=steps,
            upper_quantile=upper_quantile,
            calibration=self.calibration,
            method=method,
            fell_back_because=because,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalNaive:
    """Forecaster: one season ago, adjusted to today's level; the last level until one season has been seen."""

    season_s: float = 24 * 3600.0
    level_steps: int = 4
    calibration: Calibration = DEFAULT_CALIBRATION
    name: str = "seasonal-naive"

    def forecast(self, past: Past, *, steps: int, upper_quantile: float) -> Forecast:
        return self.standing_in(past, steps=steps, upper_quantile=upper_quantile, method=self.name, because="")

    def standing_in(self, past: Past, *, steps: int, upper_quantile: float, method: str, because: str) -> Forecast:
        """The same, for another method that could not answer `because`."""
        model = SeasonalPaths(season_steps=max(1, round(self.season_s / past.step_s)), level_steps=self.level_steps)
        have, want = len(past.values), model.least_steps
        try:
            if have < want:
                raise NotForecastable(f"too little history: {have} steps of {past.step_s:g} s, {want} wanted")
            return calibrated_forecast(
                model,
                past,
                steps=steps,
                upper_quantile=upper_quantile,
                calibration=self.calibration,
                method=method,
                fell_back_because=f"{because}; seasonal-naive instead" if because else "",
            )
        except NotForecastable as why:
            return LastLevel(level_steps=self.level_steps, calibration=self.calibration).standing_in(
                past,
                steps=steps,
                upper_quantile=upper_quantile,
                method=method,
                because="; ".join(filter(None, (because, f"seasonal-naive: {why}; last-level instead"))),
            )
