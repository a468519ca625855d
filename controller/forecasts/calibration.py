"""Quantiles of a forecast from the method's own past errors: conformal calibration of any point model.

Split conformal prediction (Vovk et al., 2005; Lei et al., JASA 113:523, 2018) on ratios instead of residuals, since the
errors of demand grow with demand. Its guarantee needs exchangeable errors, which a trailing window only approaches.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from controller.forecasts.forecast import NotForecastable, Origins, Past, Paths, PointModel
from controller.history import Series
from controller.types import Forecast, ForecastQuantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How quantiles are found: from the trailing `window_s` of the method's own errors, if there are `least`.

    72 h of trailing errors cover 88 to 94 % of hourly peaks at a nominal 90 % on public traces of LLM demand.
    `levels`: the quantiles that a forecast carries beside the one it is asked for.
    """

    window_s: float = 72 * 3600.0
    least: int = 16
    levels: tuple[float, ...] = (0.5, 0.9)


DEFAULT_CALIBRATION = Calibration()


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """What came / what was forecast, from every origin that could be forecast from.

    `path`, shape (origins, steps): of each step's mean. `peak`, shape (origins,): of the highest of all steps.
    """

    path: Paths
    peak: Series


def calibrated_forecast(
    model: PointModel,
    past: Past,
    *,
    steps: int,
    skip: int,
    upper_quantile: float,
    calibration: Calibration,
    method: str,
    fell_back_because: str = "",
) -> Forecast:
    """The model's forecast of steps `skip`..`steps` with quantiles of every step and of their peak.

    Every step inside the calibration window is an origin: the forecast made there is repeated and what came divided by
    what was forecast. A quantile of a step is its mean times that quantile of the step's ratios; a quantile of the peak
    is the highest mean times that quantile of the peaks' ratios. `upper` is the mean scaled so that its highest step is
    the peak's quantile `upper_quantile`, and never below the mean. With too few ratios the model's own forecast
    distribution answers.

    Raises NotForecastable when the forecast holds a value that is not finite.
    """
    n = len(past.values)
    first = max(1, n - steps - round(calibration.window_s / past.step_s) + 1)
    origins = np.append(np.arange(first, n - steps + 1, dtype=np.int64), n)
    paths = model.paths(past, origins, steps)[:, skip:]
    mean = np.maximum(paths[-1], 0.0)
    if not np.isfinite(mean).all():
        raise NotForecastable("its prediction is not finite")
    errors = errors_of(past, origins[:-1], paths[:-1], skip)
    highest = float(mean.max())
    levels = sorted({*calibration.levels, upper_quantile})
    quantiles = []
    for level in levels:
        if len(errors.peak) >= calibration.least:
            path = mean * conformal_quantile(errors.path, level)
            peak = highest * float(conformal_quantile(errors.peak, level))
        else:
            path = np.maximum(model.spread(past, mean, level), 0.0)
            peak = float(path.max())
        if not (np.isfinite(path).all() and np.isfinite(peak)):
            raise NotForecastable(f"its quantile {level:g} is not finite")
        quantiles.append(ForecastQuantile(level=level, path_tokens_per_s=tuple(path.tolist()), peak_tokens_per_s=peak))
    peak = quantiles[levels.index(upper_quantile)].peak_tokens_per_s
    upper = mean * max(1.0, peak / highest) if highest > 0 else np.maximum(mean, peak)
    return Forecast(
        from_s=past.until_s + skip * past.step_s,
        step_s=past.step_s,
        mean_tokens_per_s=tuple(mean.tolist()),
        upper_tokens_per_s=tuple(upper.tolist()),
        upper_quantile=upper_quantile,
        method=method,
        fell_back_because="; ".join(filter(None, (fell_back_because, model.caveat))),
        warnings=model.warnings,
        quantiles=tuple(quantiles),
        peak_step_s=past.peak_step_s if past.peaks is not None else past.step_s,
    )


def errors_of(past: Past, origins: Origins, paths: Paths, skip: int = 0) -> Errors:
    """The ratios of what came to `paths`, which hold the steps from `skip` on after each origin.

    What was forecast counts as at least 1 % of the mean level, so that a forecast of nothing has a finite ratio.
    """
    usable = np.isfinite(paths).all(axis=1)
    if not usable.any():
        return Errors(path=np.empty((0, paths.shape[1])), peak=np.empty(0))
    at = origins[usable][:, None] + skip + np.arange(paths.shape[1])[None, :]
    floor = max(0.01 * float(past.values.mean()), 1e-9)
    forecast = np.maximum(paths[usable], floor)
    return Errors(
        path=np.maximum(past.values[at], 0.0) / forecast,
        peak=np.maximum(past.highest[at].max(axis=1), 1e-9) / forecast.max(axis=1),
    )


def conformal_quantile(ratios: Paths, level: float) -> Series:
    """The ceil((n + 1) level)-th smallest of n ratios along the first axis, or the largest: the finite-sample quantile.

    `ratios` has shape (n, ...), n at least 1; the answer has the shape of the rest.
    """
    rank = min(len(ratios), int(np.ceil((len(ratios) + 1) * level)))
    return np.asarray(np.partition(ratios, rank - 1, axis=0)[rank - 1])


def normal_quantile(level: float) -> float:
    """Standard normal quantile, for forecast distributions."""
    return NormalDist().inv_cdf(level)


def random_walk_spread(past: Past, path: Series, level: float) -> Series:
    """Quantile of a random walk from `path`: z sd(differences) sqrt(h) (Hyndman and Athanasopoulos, Forecasting:
    Principles and Practice, 3rd ed., section 5.5).
    """
    if len(past.values) < 3:
        return path
    sd = float(np.sqrt(np.mean(np.square(np.diff(past.values)))))
    return np.asarray(path + normal_quantile(level) * sd * np.sqrt(np.arange(1, len(path) + 1)))
