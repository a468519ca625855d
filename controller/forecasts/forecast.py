"""Forecasts of demand: what is forecast from, what a method is, and what a forecaster is."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from controller.history import Series
from controller.types import Forecast

Paths = npt.NDArray[np.float64]
Origins = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One series up to now: mean tokens/s in whole steps of `step_s` seconds, the last of which ends at `until_s`.

    `values` has shape (steps,), tokens/s, finite and 0 or more. `peaks`, the same shape, holds the highest mean over
    `peak_step_s` inside each step: the peak that servers feel is one of minutes, not of quarters of an hour. Left out,
    the peak of a step is its mean.
    """

    values: Series
    step_s: float
    until_s: float
    peaks: Series | None = None
    peak_step_s: float | None = None

    @property
    def first_step(self) -> int:
        """The number of `values[0]` on the grid from time 0; below 0 for history from before the run."""
        return round(self.until_s / self.step_s) - len(self.values)

    @property
    def highest(self) -> Series:
        """The peak of each step, tokens/s, shape (steps,)."""
        return self.values if self.peaks is None else self.peaks


class NotForecastable(Exception):
    """A method cannot answer for this past; the message says why and becomes part of `fell_back_because`."""


class PointModel(Protocol):
    """A method whose forecasts from any moment of the past can be repeated with what was known at that moment.

    `caveat` says what of the method could not take part ("" for nothing); `warnings` are those of its fit.
    """

    @property
    def caveat(self) -> str: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        """Forecasts made when only `past.values[:origin]` was known: tokens/s, shape (len(origins), steps).

        Rows of origins that cannot be forecast from (too early, say) are NaN.
        """
        ...

    def spread(self, past: Past, path: Series, level: float) -> Series:
        """The quantile `level` of the method's own forecast distribution around `path`: tokens/s, shape of `path`.

        It answers while the method has too few errors of its own to be judged by.
        """
        ...


class Method(Protocol):
    """A way to forecast: it makes a point model of the past, and of nothing else."""

    @property
    def name(self) -> str: ...

    def model(self, past: Past) -> PointModel:
        """Raises NotForecastable with the reason."""
        ...


class Forecaster(Protocol):
    """Pure: the same past gives the same forecast, and nothing but the past is looked at.

    `forecast` answers `steps` values that follow `past`, the first of them beginning at `past.until_s`, without the
    first `skip`; for any past, also an empty one: where the named method cannot answer, another does and
    `fell_back_because` says why. It never raises for what the numbers are.
    """

    @property
    def name(self) -> str: ...

    def forecast(self, past: Past, *, steps: int, upper_quantile: float, skip: int = 0) -> Forecast: ...
