"""How good the forecasts were: observed demand against what was forecast before it came."""

from collections.abc import Iterable, Mapping

import numpy as np
from pydantic import BaseModel, ConfigDict

from controller.types import Forecast, Pool
from results.demand import TokenStream


class ForecastError(BaseModel):
    """Over every step of every forecast whose time was fully observed; None where there is nothing to divide by.

    `wape`: sum of |observed - mean| / sum of observed. `bias`: sum of (mean - observed) / sum of observed.
    `upper_coverage`: share of steps observed at or below the upper forecast. `peak_coverage`: share of forecasts
    whose highest observed step lies at or below the highest upper one. `over_provision`: sum over forecasts of
    (highest upper - highest observed) / sum of highest observed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    forecasts: int
    steps: int
    wape: float | None
    bias: float | None
    upper_coverage: float | None
    peak_coverage: float | None
    over_provision: float | None


def forecast_error(
    forecasts: Iterable[tuple[Pool, Forecast]], observed: Mapping[Pool, TokenStream], end_s: float
) -> ForecastError:
    """Compare interactive demand with its forecasts. A pool with no tokens at all was observed as 0."""
    mean: list[float] = []
    upper: list[float] = []
    seen: list[float] = []
    peaks: list[tuple[float, float]] = []
    for pool, forecast in forecasts:
        count = len(forecast.mean_tokens_per_s)
        edges = forecast.from_s + forecast.step_s * np.arange(count + 1, dtype=np.float64)
        whole = int(np.searchsorted(edges[1:], end_s, side="right"))
        if whole == 0 or forecast.from_s < 0:
            continue
        stream = observed.get(pool)
        actual = np.zeros(whole) if stream is None else stream.per_s(edges[: whole + 1])
        mean += forecast.mean_tokens_per_s[:whole]
        upper += forecast.upper_tokens_per_s[:whole]
        seen += actual.tolist()
        if whole == count:
            peaks.append((float(actual.max()), forecast.peak_upper_tokens_per_s))
    actual_sum = float(np.sum(seen))
    peak_sum = sum(actual for actual, _ in peaks)
    errors = np.asarray(mean) - np.asarray(seen)
    return ForecastError(
        forecasts=len(peaks),
        steps=len(seen),
        wape=float(np.abs(errors).sum()) / actual_sum if actual_sum else None,
        bias=float(errors.sum()) / actual_sum if actual_sum else None,
        upper_coverage=float(np.mean(np.asarray(seen) <= np.asarray(upper))) if seen else None,
        peak_coverage=sum(actual <= upper for actual, upper in peaks) / len(peaks) if peaks else None,
        over_provision=sum(upper - actual for actual, upper in peaks) / peak_sum if peak_sum else None,
    )
