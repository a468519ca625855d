"""Demand for the long-term program: forecasts of every (model, region of origin), peaks, and the buffer for NIW."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from controller.forecasts.correction import live_factor, scaled
from controller.forecasts.forecast import Forecaster, Past
from controller.forecasts.many import forecast_many
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
    peak_step_s: float | None = None,
    processes: int = 1,
    trust_after_s: float | None = None,
) -> dict[Pool, Forecast]:
    """One forecast of interactive tokens/s for every series of `demand`, over the steps inside from_s..until_s.

    Steps between the end of the history and `from_s` are forecast too and left out of the answer. Peaks are of means
    over `peak_step_s`, None for `step_s`. Fits that are due are made in up to `processes` processes. With
    `trust_after_s` the level is corrected by what has arrived since the last whole step (`live_factor`).
    Raises ValueError when `step_s` is no multiple of the history's bin or of `peak_step_s`.
    """
    pasts = {Pool(*key): past_of(demand, key, step_s, peak_step_s) for key in demand.interactive}
    if not pasts:
        return {}
    end_s = next(iter(pasts.values())).until_s
    steps = max(1, round((until_s - end_s) / step_s))
    skip = min(max(0, round((from_s - end_s) / step_s)), steps - 1)

    def from_step(first: int) -> dict[Pool, Forecast]:
        return forecast_many(
            forecaster, pasts, steps=steps, skip=first, upper_quantile=upper_quantile, processes=processes
        )

    given = from_step(skip)
    since = round((demand.until_s - end_s) / demand.bin_s)
    if trust_after_s is None or since < 1:
        return given
    whole = given if skip == 0 else from_step(0)
    return {
        pool: scaled(
            forecast,
            live_factor(
                whole[pool],
                demand.interactive[pool][-since:],
                arrived_step_s=demand.bin_s,
                trust_after_s=trust_after_s,
            ),
        )
        for pool, forecast in given.items()
    }


def past_of(demand: DemandHistory, key: tuple[str, str], step_s: float, peak_step_s: float | None = None) -> Past:
    """The interactive series of `key` in whole steps of `step_s`, with the end of its last whole step.

    With `peak_step_s` each step also has the highest mean over so many seconds inside it. Raises ValueError when
    `step_s` is no multiple of the history's bin or of `peak_step_s`.
    """
    values: Series = np.asarray(demand.resampled(key, step_s), dtype=np.float64)
    end_s = round(demand.until_s / demand.bin_s) * demand.bin_s
    whole_steps = np.floor(end_s / step_s + 1e-6)
    past = Past(values=values, step_s=step_s, until_s=float(whole_steps * step_s))
    if peak_step_s is None:
        return past
    inside = round(step_s / peak_step_s)
    if inside < 1 or abs(inside * peak_step_s - step_s) > 1e-9:
        raise ValueError(f"step_s={step_s} must be a multiple of peak_step_s={peak_step_s}")
    fine = demand.resampled(key, peak_step_s)
    after = int(np.floor(end_s / peak_step_s + 1e-6)) - int(whole_steps) * inside
    whole = fine[: len(fine) - after][-len(values) * inside :] if len(values) else fine[:0]
    return replace(past, peaks=whole.reshape(-1, inside).max(axis=1), peak_step_s=peak_step_s)


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
