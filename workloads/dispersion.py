"""Burstiness of arrivals on the scale of seconds and minutes: dispersion, gaps, minutes above their hour."""

import numpy as np
import numpy.typing as npt

WINDOW_S = 60.0
BIN_S = 10.0
BINS_PER_WINDOW = 6
MIN_GAPS = 10
MIN_WINDOWS = 30
HOUR_S = 3600.0
MINUTES_PER_HOUR = 60

Times = npt.NDArray[np.float64]


def index_of_dispersion(
    arrival_s: Times, horizon_s: float, *, at_per_s: tuple[float, float] | None = None, trimmed: float = 0.0
) -> float | None:
    """Variance over mean of 10 s counts within a minute, pooled over the whole minutes of 0..horizon_s; Poisson: 1.

    Within a minute the rate hardly moves, so this is burstiness and not the daily curve. Pooled (mean variance over
    mean count) because the ratio of single minutes is biased where counts are low. None without a whole minute or an
    arrival in one. `at_per_s` keeps to the minutes with a rate between these two, and wants 30 of them.
    `trimmed` leaves out that share of the minutes, those whose counts vary most: where a burst begins or ends.
    """
    minutes = int(horizon_s // WINDOW_S)
    inside = arrival_s[: np.searchsorted(arrival_s, minutes * WINDOW_S, side="left")]
    if not len(inside):
        return None
    bins = minutes * BINS_PER_WINDOW
    place = np.minimum((inside / BIN_S).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins).reshape(minutes, BINS_PER_WINDOW)
    if at_per_s is not None:
        rate_per_s = counts.sum(axis=1) / WINDOW_S
        counts = counts[(rate_per_s >= at_per_s[0]) & (rate_per_s <= at_per_s[1])]
        if len(counts) < MIN_WINDOWS:
            return None
    variance, mean = counts.var(axis=1, ddof=1), counts.mean(axis=1)
    if trimmed:
        kept = np.argsort(variance, kind="stable")[: max(1, round((1 - trimmed) * len(variance)))]
        variance, mean = variance[kept], mean[kept]
    return float(variance.mean() / mean.mean()) if mean.any() else None


def interarrival_cv(arrival_s: Times) -> float | None:
    """Median over minutes of the coefficient of variation of the gaps within the minute; Poisson: about 1.

    Minutes with fewer than 10 gaps are left out; None when all are. Both ends of a gap lie in its minute, which makes
    gaps of a sparse minute look more even than they are: compare traces of similar rate.
    """
    if len(arrival_s) < 2:
        return None
    minute = (arrival_s / WINDOW_S).astype(np.int64)
    within = minute[1:] == minute[:-1]
    gaps, of = np.diff(arrival_s)[within], minute[1:][within]
    if not len(gaps):
        return None
    # Counted from the first minute that occurs, so that a late start costs no memory.
    of = of - of[0]
    n = np.bincount(of)
    enough = n >= MIN_GAPS
    if not enough.any():
        return None
    mean = np.bincount(of, weights=gaps)[enough] / n[enough]
    square = np.bincount(of, weights=gaps**2)[enough] / n[enough]
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    return float(np.median(np.divide(deviation, mean, out=np.zeros_like(mean), where=mean > 0)))


def minute_to_hour_median(arrival_s: Times, horizon_s: float, *, least_per_minute: float = 0.0) -> Times:
    """Requests in a minute over those of the median minute of its hour, shape (hours, 60).

    Hours count from time 0; those whose median is 0, or below `least_per_minute`, are left out.
    """
    hours = int(horizon_s // HOUR_S)
    minutes = hours * MINUTES_PER_HOUR
    place = (arrival_s / WINDOW_S).astype(np.int64)
    counts = np.bincount(place[place < minutes], minlength=minutes).reshape(hours, MINUTES_PER_HOUR)
    median = np.median(counts, axis=1) if hours else np.empty(0)
    busy = (median > 0) & (median >= least_per_minute)
    return np.asarray(counts[busy] / median[busy, np.newaxis])
