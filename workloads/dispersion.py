"""Burstiness of arrivals on the scale of seconds: index of dispersion and inter-arrival CV within minutes."""

import numpy as np
import numpy.typing as npt

WINDOW_S = 60.0
BIN_S = 10.0
BINS_PER_WINDOW = 6
MIN_GAPS = 10

Times = npt.NDArray[np.float64]


def index_of_dispersion(arrival_s: Times, horizon_s: float) -> float | None:
    """Variance over mean of 10 s counts within a minute, pooled over the whole minutes of 0..horizon_s; Poisson: 1.

    Within a minute the rate hardly moves, so this is burstiness and not the daily curve. Pooled (mean variance over
    mean count) because the ratio of single minutes is biased where counts are low. None without a whole minute or an
    arrival in one.
    """
    minutes = int(horizon_s // WINDOW_S)
    inside = arrival_s[arrival_s < minutes * WINDOW_S]
    if not len(inside):
        return None
    bins = minutes * BINS_PER_WINDOW
    place = np.minimum((inside / BIN_S).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins).reshape(minutes, BINS_PER_WINDOW)
    return float(counts.var(axis=1, ddof=1).mean() / counts.mean())


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
