"""Demand for the long-term program: forecasts of every (model, region of origin), peaks, and the buffer for NIW."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.forecasts.forecast import Forecaster, Past
from controller.history import DemandHistory, Series
from controller.types import Forecast, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the program must serve, tokens/s. `local` (rho[i, j]) arises in a region and a share of it must be served
    there; `anywhere` is demand of a model that no region has a claim on.
    """

    local: Mapping[Pool, float]
    anywhere: Mapping[str, float]

    def of_model(self, model: str) -> float:
        """All of a model's demand, wherever it is served: tokens/s."""
        return sum(rho for pool, rho in self.local.items() if pool.model == model) + self.anywhere.get(model, 0.0)


def forecasts(
    demand: DemandHistory,
    forecaster: Forecaster,
    *,
    step_s: float,
    from_s: float,
    until_s: float,
    upper_quantile: float,
) -> dict[Pool, Forecast]:
    """One forecast of interactive tokens/s for every series of `demand`, over the steps inside from_s..until_s.

    Steps between the end of the history and `from_s` are forecast too and left out of the answer.
    Raises ValueError when `step_s` is no multiple of the history's bin.
    """
    answer = {}
    for key in demand.interactive:
        past = past_of(demand, key, step_s)
        ahead = max(1, round((until_s - past.until_s) / step_s))
        skipped = min(max(0, round((from_s - past.until_s) / step_s)), ahead - 1)
        forecast = forecaster.forecast(past, steps=ahead, upper_quantile=upper_quantile)
        answer[Pool(*key)] = Forecast(
            from_s=forecast.from_s + skipped * step_s,
            step_s=step_s,
            mean_tokens_per_s=forecast.mean_tokens_per_s[skipped:],
            upper_tokens_per_s=forecast.upper_tokens_per_s[skipped:],
            upper_quantile=upper_quantile,
            method=forecast.method,
            fell_back_because=forecast.fell_back_because,
        )
    return answer


def past_of(demand: DemandHistory, key: tuple[str, str], step_s: float) -> Past:
    """The interactive series of `key` in whole steps of `step_s`, with the end of its last whole step."""
    values: Series = np.asarray(demand.resampled(key, step_s), dtype=np.float64)
    whole_steps = np.floor(round(demand.until_s / demand.bin_s) * demand.bin_s / step_s + 1e-6)
    return Past(values=values, step_s=step_s, until_s=float(whole_steps * step_s))


def demand_of_period(
    demand: DemandHistory,
    given: Mapping[Pool, Forecast],
    *,
    peak_of_upper: bool,
    niw_share: float,
    niw_window_s: float,
) -> Demand:
    """Demand of the next period: the peak of each forecast, and `niw_share` of the last window's NIW load.

    `peak_of_upper`: the peak of the upper quantile; otherwise the peak of the mean, the paper's rule, which falls short
    of the peak that comes in most hours. The NIW buffer (10 % of the last hour in the paper) is demand of the
    model, not of a region: NIW requests may run anywhere, so they enter the program's global row and no local one.
    """
    local = {
        pool: forecast.peak_upper_tokens_per_s if peak_of_upper else forecast.peak_mean_tokens_per_s
        for pool, forecast in given.items()
    }
    anywhere: dict[str, float] = {}
    for key in demand.niw:
        anywhere[key[0]] = anywhere.get(key[0], 0.0) + niw_share * demand.latest_niw(key, niw_window_s)
    return Demand(local=local, anywhere=anywhere)
