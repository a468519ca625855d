"""What the last hours of demand, and the same hour yesterday, say about the minutes to come."""

import numpy as np
import numpy.typing as npt

from controller.history import Series

Rows = npt.NDArray[np.float64]

LONGEST = 181
"""Steps of history that a row needs."""
ANCHOR = 3
"""The column of `level_rows` that forecasts start from: the mean of five steps."""
_MEANS = (1, 3, 5, 15, 30, 60, 180)
_PEAKS = (5, 15, 60, 180)
_ROUGHNESS = (5, 15, 60, 180)
_SMALLEST_CHANGE = 1e-3
_AROUND = 30
"""Steps over which the shape of yesterday is averaged: a minute of it would be noise."""


def level_rows(values: Series, first: int, *, floor: float, season_steps: int, window_steps: int) -> Rows:
    """What to expect a peak from, for the origins `first`..len(values); shape (origins, columns).

    The row of an origin is made of `values[:origin]`, tokens/s, and nothing later; `first` is at least LONGEST.
    Columns: a constant; logarithms of trailing means and peaks over 1 to 180 steps; how much demand rose from here one
    season ago, against then and against now; and how high its peak over the next `window_steps` was then (0 while
    there is no season of history). `floor`, tokens/s, is added before a logarithm.
    """
    means = {width: np.log(_trailing(values, first, width).mean(axis=1) + floor) for width in _MEANS}
    peaks = [np.log(_trailing(values, first, width).max(axis=1) + floor) for width in _PEAKS]
    then, soon = _yesterday(values, first, season_steps)
    known = np.isfinite(then)
    rise = np.log(np.where(known, soon, 1.0) + floor)
    against_then = np.where(known, rise - np.log(np.where(known, then, 1.0) + floor), 0.0)
    against_now = np.where(known, rise - means[30], 0.0)
    ones = np.ones(len(values) + 1 - first)
    burst = _burst_of_yesterday(values, first, season_steps, window_steps, floor)
    return np.stack([ones, *means.values(), *peaks, against_then, against_now, burst], axis=1)


def roughness_rows(values: Series, first: int, *, floor: float) -> Rows:
    """What says how far off a forecast may be, for the origins `first`..len(values); shape (origins, columns).

    A constant, logarithms of the mean step-to-step change of log demand over 5 to 180 steps, and how far the last
    minutes stand out of the last hour.
    """
    changes = np.abs(np.diff(np.log(values[first - LONGEST :] + floor)))
    rough = [np.log(_trailing(changes, LONGEST - 1, width).mean(axis=1) + _SMALLEST_CHANGE) for width in _ROUGHNESS]
    quarter, hour = _trailing(values, first, 15), _trailing(values, first, 60)
    mean_of_hour = np.log(hour.mean(axis=1) + floor)
    standing_out = [
        np.log(quarter.max(axis=1) + floor) - np.log(quarter.mean(axis=1) + floor),
        np.log(hour.max(axis=1) + floor) - mean_of_hour,
        np.log(_trailing(values, first, 5).mean(axis=1) + floor) - mean_of_hour,
    ]
    return np.stack([np.ones(len(values) + 1 - first), *rough, *standing_out], axis=1)


def _trailing(values: Series, first: int, width: int) -> Rows:
    """The `width` values before each origin `first`..len(values), shape (origins, width)."""
    if first == len(values):  # of one origin: a decision, which must be quick
        return values[None, first - width :]
    return np.lib.stride_tricks.sliding_window_view(values[first - width :], width)


def _yesterday(values: Series, first: int, season_steps: int) -> tuple[Series, Series]:
    """Mean demand just before and just after each origin, one season earlier; NaN where that is not known."""
    origins = np.arange(first, len(values) + 1)
    then, soon = np.full(len(origins), np.nan), np.full(len(origins), np.nan)
    known = origins >= season_steps + _AROUND
    if season_steps < 2 * _AROUND or not known.any():
        return then, soon
    at = origins[known] - season_steps
    start = int(at[0]) - _AROUND
    total = np.concatenate(([0.0], np.cumsum(values[start : int(at[-1]) + _AROUND])))
    at = at - start
    then[known] = np.maximum(total[at] - total[at - _AROUND], 0.0) / _AROUND
    soon[known] = np.maximum(total[at + _AROUND] - total[at], 0.0) / _AROUND
    return then, soon


def _burst_of_yesterday(values: Series, first: int, season_steps: int, window_steps: int, floor: float) -> Series:
    """Logarithm of the peak that came within the window one season ago over the five steps before it; 0 where unknown.

    What happens every day at the same minute is blurred by the half-hours of `_yesterday`, and not here.
    """
    answer = np.zeros(len(values) + 1 - first)
    origins = np.arange(first, len(values) + 1)
    known = origins >= season_steps + _AROUND
    if season_steps < max(2 * _AROUND, window_steps) or not known.any():
        return answer
    start, stop = int(origins[known][0]) - season_steps, int(origins[known][-1]) - season_steps
    peaks = np.lib.stride_tricks.sliding_window_view(values[start : stop + window_steps], window_steps).max(axis=1)
    before = np.lib.stride_tricks.sliding_window_view(values[start - 5 : stop], 5).mean(axis=1)
    answer[known] = np.log(peaks + floor) - np.log(before + floor)
    return answer
