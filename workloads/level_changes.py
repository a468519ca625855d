"""Steps in the level of one model against the others: where the largest one lies and how large it is."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Series = npt.NDArray[np.float64]

LEAST_SIDE_H = 24  # of both sides: a day is the least that a random level of some hours averages out over
FLOOR = 0.01  # of the mean: an hour without load has a logarithm


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelChange:
    """From hour `at` of the series on, the level is multiplied by `factor`."""

    at: int
    factor: float


def largest_change(load: Series, rest: Series, least_side_h: int = LEAST_SIDE_H) -> LevelChange | None:
    """The one step that explains most of how `load` moves against `rest`, both hourly, shape (hours,).

    The logarithm of their ratio is free of what all models share: daily curve, weekend. The split minimises the
    squared distance from the means of its two sides; None where a side would be shorter than `least_side_h`.
    """
    hours = len(load)
    if hours < 2 * least_side_h or load.mean() <= 0 or rest.mean() <= 0:
        return None
    ratio = np.log(np.maximum(load / load.mean(), FLOOR)) - np.log(np.maximum(rest / rest.mean(), FLOOR))
    split = np.arange(least_side_h, hours - least_side_h + 1)
    before = np.cumsum(ratio)[split - 1]
    difference = (ratio.sum() - before) / (hours - split) - before / split
    best = int(np.argmax(split * (hours - split) * difference**2))
    return LevelChange(at=int(split[best]), factor=float(np.exp(difference[best])))
