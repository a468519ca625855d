"""A live view's pools: demand as policies see it, forecasts, capacity, utilisation, the NIW queue."""

from collections.abc import Mapping

import numpy as np

from controller.history import DemandHistory
from controller.types import Forecast, Pool
from results.forecast_lines import forecast_lines
from testbed.live_events import PoolGauge
from testbed.live_grid import BinnedMeans, Floats, Grid, Name

_KINDS = ("interactive", "niw")


class LivePools:
    """Series per bin, by name: ("interactive" | "niw" | "forecast" | "forecast upper", model, region of origin) in
    tokens/s, ("utilisation", model, region, GPU type, role), ("NIW queue", model) in requests."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._means = BinnedMeans(grid)
        self._forecasts: dict[Name, Floats] = {}
        self._demand_until_s = 0.0
        self.latest: PoolGauge | None = None

    def demanded(self, demand: DemandHistory) -> None:
        """Count the bins of demand that have passed since the last time."""
        new = round((demand.until_s - self._demand_until_s) / demand.bin_s)
        if new <= 0:
            return
        indices = [self._grid.index(self._demand_until_s + number * demand.bin_s) for number in range(new)]
        self._demand_until_s = demand.until_s
        for kind in _KINDS:
            for (model, region), series in getattr(demand, kind).items():
                for index, tokens_per_s in zip(indices, series[-new:].tolist(), strict=True):
                    self._means.add((kind, model, region), index, tokens_per_s)

    def forecast(self, forecasts: Mapping[Pool, Forecast]) -> None:
        """Draw new forecasts over the older ones."""
        for pool, forecast in forecasts.items():
            line = forecast_lines([(pool, forecast)], self._grid.edges_s)[pool]
            for name, new in (("forecast", line.mean), ("forecast upper", line.upper)):
                old = self._forecasts.get((name, *pool), self._grid.empty())
                self._forecasts[name, *pool] = np.where(np.isnan(new), old, new)

    def read(self, gauge: PoolGauge) -> None:
        self.latest = gauge
        index = self._grid.index(gauge.at_s)
        for placement, state in gauge.placements.items():
            name = ("utilisation", placement.model, placement.region, placement.gpu_type, placement.role.value)
            self._means.add(name, index, state.utilisation)
        for model, queued in gauge.niw_queued.items():
            self._means.add(("NIW queue", model), index, queued)

    def series(self) -> dict[Name, Floats]:
        """A new array for each name; forecasts reach beyond now."""
        return {**self._means.values(), **self._forecasts}
