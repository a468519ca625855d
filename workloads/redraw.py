"""New arrivals for an old trace: another rate, the same shape and the same burstiness.

For each (model, region, tier) the cumulative count of the trace, smoothed over bins of at least a minute and some 30
requests, gives the rate to follow. New arrivals come in 10 s windows: their number is negative binomial, that is
Poisson with a Gamma-distributed mean, whose variance over mean is D at any rate if the Gamma's shape is mean / (D - 1).
D is the tier's own index of dispersion in the trace given, 1 (Poisson) where that is less.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.dispersion import BIN_S, WINDOW_S, index_of_dispersion
from workloads.request import Tier
from workloads.seeds import generator
from workloads.trace import TIME_DECIMALS, Trace

REQUESTS_PER_BIN = 30
Times = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def redrawn(trace: Trace, factor: float, seed: int) -> tuple[pa.Table, Mapping[str, float]]:
    """A table with about `factor` times the requests of `trace`, ids from 0, and the index of dispersion by tier.

    Each new request takes lengths, tenant and time to deadline from one of the same stream that arrived near it.
    """
    arrival_s = trace.numbers("arrival_s")
    model, region, tier = trace.labels("model"), trace.labels("region"), trace.labels("tier")
    dispersion: dict[str, float] = {}
    sources: list[Rows] = []
    times: list[Times] = []
    for tier_name in tier.names:
        of_tier = tier.rows(tier_name)
        measured = index_of_dispersion(arrival_s[of_tier], trace.horizon_s)
        dispersion[Tier(tier_name).value] = max(1.0, measured or 1.0)
        for m, model_name in enumerate(model.names):
            for r, region_name in enumerate(region.names):
                rows = np.flatnonzero(of_tier & (model.codes == m) & (region.codes == r))
                if not len(rows):
                    continue
                rng = generator(seed, "redraw", model_name, region_name, tier_name)
                new_s, place = _stream(rng, arrival_s[rows], trace.horizon_s, factor, dispersion[tier_name])
                times.append(new_s)
                sources.append(rows[place])
    new_s = np.concatenate([np.empty(0), *times])
    order = np.argsort(new_s, kind="stable")
    new_s = new_s[order]
    source = np.concatenate([np.empty(0, dtype=np.int64), *sources])[order]
    slack_s = (trace.numbers("deadline_s") - arrival_s)[source]
    table = trace.table.take(pa.array(source))
    for name, values in (
        ("request_id", np.arange(len(source))),
        ("arrival_s", new_s),
        ("deadline_s", np.round(new_s + slack_s, TIME_DECIMALS)),
    ):
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table, dispersion


def _stream(
    rng: np.random.Generator, arrival_s: Times, horizon_s: float, factor: float, dispersion: float
) -> tuple[Times, Rows]:
    """New times of one stream, not sorted, and for each the index of the old request it is modelled on."""
    width_s = max(WINDOW_S, horizon_s * REQUESTS_PER_BIN / len(arrival_s))
    # Whole bins: one that is narrower at the end would have a rate from few requests.
    knots_s = np.linspace(0.0, horizon_s, max(1, int(horizon_s / width_s)) + 1)
    cumulative = np.searchsorted(arrival_s, knots_s, side="left").astype(np.float64)
    cumulative[-1] = len(arrival_s)  # an arrival at the very horizon counts
    edges_s = np.append(np.arange(0.0, horizon_s, BIN_S), horizon_s)
    wanted = factor * np.diff(np.interp(edges_s, knots_s, cumulative))
    if dispersion > 1:
        # Gamma(0) is 0, as a window without demand needs it.
        wanted = rng.gamma(wanted / (dispersion - 1.0), dispersion - 1.0)
    counts = rng.poisson(wanted)
    window = np.repeat(np.arange(len(counts)), counts)
    new_s = np.round(edges_s[window] + rng.random(len(window)) * np.diff(edges_s)[window], TIME_DECIMALS)
    new_s = np.minimum(new_s, horizon_s)
    near = np.interp(new_s, knots_s, cumulative) + rng.uniform(-0.5, 0.5, len(new_s)) * REQUESTS_PER_BIN
    return new_s, np.clip(near.astype(np.int64), 0, len(arrival_s) - 1)
