"""Confidence intervals over seeds: the percentile bootstrap (Efron 1979)."""

from collections.abc import Callable

import numpy as np

from results.arrays import Floats

RESAMPLES = 10_000
COVERAGE = 0.95


def change_interval(
    ours: Floats, base: Floats, change: Callable[[Floats, Floats], Floats], *, paired: bool
) -> tuple[float, float] | None:
    """Where 95 % of the resampled values of `change(mean of ours, mean of base)` lie; None of fewer than two runs, and
    where a resample has no such change (nan).

    `ours` and `base` hold a value per run. `paired`: place i of both is the same seed, and seeds are drawn; otherwise
    each side draws its own. `change` works element by element. The same values give the same interval.
    """
    if min(len(ours), len(base)) < 2:
        return None
    draws = np.random.default_rng(0)
    of_ours = draws.integers(len(ours), size=(RESAMPLES, len(ours)))
    of_base = of_ours if paired else draws.integers(len(base), size=(RESAMPLES, len(base)))
    changes = change(ours[of_ours].mean(axis=1), base[of_base].mean(axis=1))
    if np.isnan(changes).any():
        return None
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(changes, (tail, 1 - tail)).tolist()
    return low, high
