"""The bins of time in which a live view draws a run: as many at its end as at its beginning."""

import numpy as np
import numpy.typing as npt

from results.demand import bin_edges

Floats = npt.NDArray[np.float64]
Name = tuple[str, ...]

MOST_BINS = 360


class Grid:
    """Equal bins from 0 over `horizon_s`, and over as much again for what comes after it, at most `grace_s`.

    Their width is a multiple of `demand_bin_s`. What comes later still counts in the last bin.
    """

    def __init__(self, horizon_s: float, grace_s: float, demand_bin_s: float) -> None:
        edges = bin_edges(horizon_s, MOST_BINS)
        self.width_s = demand_bin_s * float(np.ceil((edges[1] - edges[0]) / demand_bin_s - 1e-9))
        self.bins = max(1, int(np.ceil((horizon_s + min(grace_s, horizon_s)) / self.width_s)))
        self.edges_s: Floats = np.arange(self.bins + 1, dtype=np.float64) * np.float64(self.width_s)

    def index(self, at_s: float) -> int:
        """The bin of a time; the first for what lies before 0."""
        return min(max(0, int(at_s / self.width_s + 1e-9)), self.bins - 1)

    def indices(self, at_s: Floats) -> npt.NDArray[np.int64]:
        """As `index`, of many times."""
        return np.clip((at_s / self.width_s + 1e-9).astype(np.int64), 0, self.bins - 1)

    def empty(self) -> Floats:
        """A value per bin: none yet."""
        return np.full(self.bins, np.nan)


class BinnedMeans:
    """Means per bin of what is sampled, by name."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._sums: dict[Name, Floats] = {}
        self._counts: dict[Name, Floats] = {}

    def add(self, name: Name, index: int, value: float) -> None:
        """Count a sample in a bin."""
        if name not in self._sums:
            self._sums[name], self._counts[name] = np.zeros(self._grid.bins), np.zeros(self._grid.bins)
        self._sums[name][index] += value
        self._counts[name][index] += 1

    def values(self) -> dict[Name, Floats]:
        """A new array per name; NaN in bins without a sample."""
        with np.errstate(invalid="ignore"):
            return {name: sums / self._counts[name] for name, sums in self._sums.items()}
