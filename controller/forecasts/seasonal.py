"""Forecasts that need no fit: seasonal naive, with and without adjustment of its level, and the last level."""

from dataclasses import dataclass

import numpy as np

from controller.forecasts.calibration import random_walk_spread
from controller.forecasts.forecast import NotForecastable, Origins, Past, Paths
from controller.history import Series

_LARGEST_ADJUSTMENT = 4.0
"""The level now over the level a season ago counts as at most this much, and at least its inverse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalPaths:
    """What came one season ago, times the level of the last `level_steps` steps over their level one season ago.

    Without `level_steps` it is what came one season ago and nothing else. A season ago without load says nothing about
    the shape of the day: then the last level stands for every step.
    """

    season_steps: int
    level_steps: int | None
    caveat: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def least_steps(self) -> int:
        """Steps of history that the first forecast needs."""
        return self.season_steps + (self.level_steps or 0)

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        values = past.values
        answer = np.full((len(origins), steps), np.nan)
        usable = origins >= self.least_steps
        at = origins[usable]
        ahead = np.arange(steps) % self.season_steps
        shape = values[(at - self.season_steps)[:, None] + ahead[None, :]]
        if self.level_steps is None:
            answer[usable] = shape
            return answer
        level = _trailing_means(values, self.level_steps)
        now, before = level[at], level[at - self.season_steps]
        with np.errstate(divide="ignore", invalid="ignore"):
            adjustment = np.clip(now / before, 1 / _LARGEST_ADJUSTMENT, _LARGEST_ADJUSTMENT)
            adjusted = shape * adjustment[:, None]
        answer[usable] = np.where(before[:, None] > 0, adjusted, now[:, None])
        return answer

    def spread(self, past: Past, path: Series, level: float) -> Series:
        return random_walk_spread(past, path, level)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLevelPaths:
    """The mean of the last `level_steps` steps, or of as many as there are, for every step to come."""

    level_steps: int
    caveat: str = ""
    warnings: tuple[str, ...] = ()

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        level = _trailing_means(past.values, self.level_steps)[origins]
        return np.repeat(level[:, None], steps, axis=1)

    def spread(self, past: Past, path: Series, level: float) -> Series:
        return random_walk_spread(past, path, level)


def _trailing_means(values: Series, window: int) -> Series:
    """Mean of the `window` values (fewer at the start) before each index 0..n; 0 before the first value."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    index = np.arange(len(values) + 1)
    start = np.maximum(index - window, 0)
    # Differences of running sums leave rounding dust where the load is zero.
    means = np.maximum(total[index] - total[start], 0.0) / np.maximum(index - start, 1)
    return np.where(means > 1e-12 * float(total[-1]), means, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLevel:
    """Method: the level of the last steps goes on. With no history at all it answers 0 and says so."""

    level_steps: int = 4
    name: str = "last-level"

    def model(self, past: Past) -> LastLevelPaths:
        caveat = "" if len(past.values) else "no history at all, 0 assumed"
        return LastLevelPaths(level_steps=self.level_steps, caveat=caveat)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalNaive:
    """Method: one season ago, adjusted to today's level unless `level_steps` is None."""

    season_s: float = 24 * 3600.0
    level_steps: int | None = 4
    name: str = "seasonal-naive"

    def model(self, past: Past) -> SeasonalPaths:
        model = SeasonalPaths(season_steps=max(1, round(self.season_s / past.step_s)), level_steps=self.level_steps)
        have, want = len(past.values), model.least_steps
        if have < want:
            raise NotForecastable(f"too little history: {have} steps of {past.step_s:g} s, {want} wanted")
        return model
