"""Requests of each model in each minute of a trace's calendar, and the bursts among them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.hourly_load import whole_hours
from workloads.trace import Trace

Counts = npt.NDArray[np.float64]

MINUTES = 60
LEAST_MEDIAN = 20.0  # requests in an hour's median minute: below, chance alone triples a minute
BURST = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteCounts:
    """Requests, shape (models, hours, 60), in the whole clock hours of a trace; minutes are sixtieths of those.

    `smooth` has the median minute of its hour in place of each minute of a burst: BURST times that median or more.
    """

    raw: Counts
    smooth: Counts
    burst: npt.NDArray[np.bool_]
    eligible: npt.NDArray[np.bool_]

    @property
    def hourly(self) -> Counts:
        """Requests in each hour without what bursts add, shape (models, hours)."""
        return np.asarray(self.smooth.sum(axis=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """How often one model bursts, for how long, and by which factors; none where `per_day` is 0."""

    per_day: float
    minutes: int
    factor_low: float
    factor_high: float


def minute_counts(trace: Trace, rows: npt.NDArray[np.bool_]) -> MinuteCounts:
    """Counts of the requests `rows` (a mask over the trace), models in the order of the trace's labels."""
    hours, model = whole_hours(trace), trace.labels("model")
    minutes = hours.count * MINUTES
    place = np.floor((trace.numbers("arrival_s")[rows] - hours.first_s) / (hours.hour_s / MINUTES)).astype(np.int64)
    inside = (place >= 0) & (place < minutes)
    cell = model.codes[rows][inside].astype(np.int64) * minutes + place[inside]
    raw = np.bincount(cell, minlength=len(model.names) * minutes).astype(np.float64)
    raw = raw.reshape(len(model.names), hours.count, MINUTES)
    median = np.median(raw, axis=2, keepdims=True)
    eligible = median[:, :, 0] >= LEAST_MEDIAN
    burst = eligible[:, :, np.newaxis] & (raw >= BURST * median)
    return MinuteCounts(raw=raw, smooth=np.where(burst, median, raw), burst=burst, eligible=eligible)


def fitted_bursts(counts: MinuteCounts) -> Bursts:
    """Runs of burst minutes, over the hours in which one could be told from chance."""
    lengths, factors = [], []
    for model in range(len(counts.raw)):
        in_burst = counts.burst[model].ravel()
        edges = np.flatnonzero(np.diff(np.concatenate(([False], in_burst, [False])).astype(np.int8)))
        for start, stop in edges.reshape(-1, 2).tolist():
            usual = counts.smooth[model, start // MINUTES, start % MINUTES]
            lengths.append(stop - start)
            factors.append(counts.raw[model].ravel()[start:stop].mean() / usual)
    if not lengths:
        return Bursts(per_day=0.0, minutes=1, factor_low=BURST, factor_high=BURST)
    return Bursts(
        per_day=24.0 * len(lengths) / int(counts.eligible.sum()),
        minutes=min(60, max(1, round(float(np.median(lengths))))),
        factor_low=min(factors),
        factor_high=max(factors),
    )
