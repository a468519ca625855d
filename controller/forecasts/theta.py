"""The Theta method as Nixtla's statsforecast chooses it (AutoTheta), an optional extra.

Assimakopoulos and Nikolopoulos, International Journal of Forecasting 16:521, 2000. The library forecasts from one
origin at a time: errors of the past are taken at every `_EVERY`-th step, and what was computed once is remembered.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controller.forecasts.calibration import random_walk_spread
from controller.forecasts.forecast import Origins, Past, Paths
from controller.forecasts.scale import Scale
from controller.history import Series

_EVERY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ThetaPaths:
    """`model` is fitted on history that ends at the last refit; from any origin it sees the last `window_steps`."""

    model: Any
    scale: Scale
    window_steps: int
    least_steps: int
    warnings: tuple[str, ...] = ()
    caveat: str = ""
    _rows: dict[tuple[int, int, int], Series] = field(default_factory=dict, repr=False, compare=False)

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        answer = np.full((len(origins), steps), np.nan)
        for row, origin in enumerate(origins.tolist()):
            grid_step = past.first_step + origin
            if origin < self.least_steps or (grid_step % _EVERY and row < len(origins) - 1):
                continue
            start = max(0, origin - self.window_steps)
            key = (grid_step, origin - start, steps)
            if key not in self._rows:
                self._rows[key] = self._path(past.values[start:origin], steps)
            answer[row] = self._rows[key]
        return answer

    def _path(self, values: Series, steps: int) -> Series:
        with warnings.catch_warnings():
            # Said once, of the fit.
            warnings.simplefilter("ignore")
            ahead = self.model.forward(self.scale.to_model(values), h=steps)["mean"]
        return self.scale.from_model(np.asarray(ahead, dtype=np.float64))

    def spread(self, past: Past, path: Series, level: float) -> Series:
        return random_walk_spread(past, path, level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Theta:
    """Estimator: AutoTheta of statsforecast, with the season where the library finds one."""

    name: str = "statsforecast"

    def least_steps(self, season_steps: int) -> int:
        return 2 * season_steps

    def fit(self, known: Past, season_steps: int) -> ThetaPaths | str:
        """The model, or in words why there is none. Raises ImportError where statsforecast is not installed."""
        from statsforecast.models import AutoTheta

        scale = Scale.of(known.values, logs=False)
        if scale is None:
            return "the history is constant"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model = AutoTheta(season_length=season_steps).fit(scale.to_model(known.values))
            except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
                return f"the fit failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return ThetaPaths(
            model=model,
            scale=scale,
            window_steps=len(known.values),
            least_steps=self.least_steps(season_steps),
            warnings=tuple(sorted({str(w.message).splitlines()[0] for w in caught})),
        )
