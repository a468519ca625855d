"""Exact quantiles of many groups of one column, without a Python object per row."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from results.arrays import Floats

Groups = npt.NDArray[np.int64]


class SortedValues:
    """A column sorted once, its NaN left out; then every grouping costs one stable sort of small integers."""

    def __init__(self, values: Floats) -> None:
        order = np.argsort(values, kind="stable")
        self._order = order[: len(values) - int(np.isnan(values).sum())]
        self._values = values[self._order]

    def quantiles(self, groups: Groups, count: int, shares: Sequence[float] | Floats) -> Floats:
        """Of each group 0 to `count` - 1 its quantiles at `shares`, shape (count, shares); NaN for an empty group.

        `groups` has one number per row of the column; a row of a negative group belongs to none. Linear interpolation
        between order statistics, as results.metrics.percentiles.
        """
        small = groups[self._order].astype(np.int32 if count > 32_767 else np.int16)
        by_group = np.argsort(small, kind="stable")
        values = self._values[by_group]
        edges = np.searchsorted(small[by_group], np.arange(count + 1))
        sizes = np.diff(edges)
        place = (sizes - 1)[:, None] * np.asarray(shares, dtype=np.float64)[None, :]
        place[sizes == 0] = 0.0
        lower = np.floor(place).astype(np.int64)
        upper = np.minimum(lower + 1, np.maximum(sizes - 1, 0)[:, None])
        if not len(values):
            return np.full(place.shape, np.nan)
        first = np.minimum(edges[:-1], len(values) - 1)[:, None]
        below = values[np.minimum(first + lower, len(values) - 1)]
        above = values[np.minimum(first + upper, len(values) - 1)]
        found = below + (above - below) * (place - lower)
        found[sizes == 0] = np.nan
        return np.asarray(found)
