"""Forecasts as they stood over a run: of each pool, the newest at every moment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from controller.types import Forecast, Pool
from results.arrays import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastLine:
    """Tokens/s in the middle of each bin, NaN where there was no forecast."""

    mean: Floats
    upper: Floats


def forecast_lines(forecasts: Iterable[tuple[Pool, Forecast]], edges_s: Floats) -> dict[Pool, ForecastLine]:
    """By pool. Where forecasts overlap the newest counts, as it did for the policy."""
    middles = (edges_s[:-1] + edges_s[1:]) / 2
    lines: dict[Pool, ForecastLine] = {}
    for pool, forecast in forecasts:
        line = lines.get(pool)
        if line is None:
            line = lines[pool] = ForecastLine(mean=np.full(len(middles), np.nan), upper=np.full(len(middles), np.nan))
        end_s = forecast.from_s + forecast.step_s * len(forecast.mean_tokens_per_s)
        first, last = np.searchsorted(middles, (forecast.from_s, end_s))
        step = np.floor((middles[first:last] - forecast.from_s) / forecast.step_s).astype(np.int64)
        # Rounding may put a moment just before the end one step behind it.
        step = np.minimum(step, len(forecast.mean_tokens_per_s) - 1)
        line.mean[first:last] = np.asarray(forecast.mean_tokens_per_s)[step]
        line.upper[first:last] = np.asarray(forecast.upper_tokens_per_s)[step]
    return lines


def summed(lines: Sequence[ForecastLine]) -> ForecastLine:
    """Over pools, at least one; NaN where none had a forecast."""

    def total(rows: list[Floats]) -> Floats:
        stacked = np.array(rows)
        return np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))

    return ForecastLine(mean=total([line.mean for line in lines]), upper=total([line.upper for line in lines]))
