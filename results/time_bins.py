"""The bins of time in which a page draws its series."""

import numpy as np
import numpy.typing as npt

from results.arrays import Floats
from results.demand import bin_edges


def time_bins(end_s: float) -> Floats:
    """Edges of bins over [0, end_s]; the last bin ends with it, and is at least half as wide as the others.

    A shorter rest belongs to the bin before it: a rate over a sliver is noise, and would set the scale of its chart.
    """
    edges = bin_edges(end_s)
    if len(edges) > 2 and end_s - edges[-2] < 0.5 * (edges[1] - edges[0]):
        edges = edges[:-1]
    return np.append(edges[:-1], end_s) if end_s > edges[-2] else edges


def bin_of(at_s: npt.ArrayLike, edges: Floats) -> npt.NDArray[np.int64]:
    """In which bin each moment lies; what lies outside belongs to the first or the last."""
    return np.clip(np.searchsorted(edges, at_s, side="right") - 1, 0, len(edges) - 2)


def binned_mean(at_s: npt.ArrayLike, values: Floats, edges: Floats, weights: Floats | None = None) -> Floats:
    """The weighted mean of the values in each bin; a NaN counts nowhere, and a bin without weight is NaN."""
    weight = np.where(np.isnan(values), 0.0, 1.0 if weights is None else weights)
    at, bins = bin_of(at_s, edges), len(edges) - 1
    sums = np.bincount(at, weights=weight * np.nan_to_num(values), minlength=bins)
    total = np.bincount(at, weights=weight, minlength=bins)
    return np.asarray(np.divide(sums, total, out=np.full(bins, np.nan), where=total > 0))
