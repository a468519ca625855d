"""Gradient-boosted trees (LightGBM, an optional extra): the shape of the next steps from lags, seasons and time of day.

Everything is told relative to the level of the last steps, on logarithms, so that what was learned at one level holds
at another. Trees remember what they saw, so their errors on it are too small to calibrate by: a second booster, fitted
without the last season, stands in for origins in that season.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from controller.forecasts.calibration import random_walk_spread
from controller.forecasts.forecast import Origins, Past, Paths
from controller.forecasts.scale import Scale
from controller.history import Series

_LEVEL_STEPS = 4
_SETTINGS = {
    "objective": "quantile",
    "alpha": 0.5,
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 40,
    "lambda_l2": 1.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 1,
    "verbosity": -1,
}
_ROUNDS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class BoostedPaths:
    """`now` answers origins from step `cut_step` of the grid on, `before` those of the season before it."""

    now: Any
    before: Any
    cut_step: int
    season_steps: int
    most_steps: int
    floor_tokens_per_s: float
    caveat: str = ""
    warnings: tuple[str, ...] = ()

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        answer = np.full((len(origins), steps), np.nan)
        begin = self.cut_step - past.first_step
        for booster, low, high in (
            (self.before, begin - self.season_steps, begin),
            (self.now, begin, len(past.values) + 1),
        ):
            chosen = (origins >= max(low, self.season_steps + _LEVEL_STEPS)) & (origins < high)
            if chosen.any():
                table = _features(
                    past, origins[chosen], steps, self.season_steps, self.most_steps, self.floor_tokens_per_s
                )
                ratios = booster.predict(table.columns, num_threads=1).reshape(-1, steps)
                answer[chosen] = np.exp(ratios) * table.level[:, None]
        return answer

    def spread(self, past: Past, path: Series, level: float) -> Series:
        return random_walk_spread(past, path, level)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Features:
    """`columns`, shape (origins x steps, features), and the level that they are relative to, shape (origins,)."""

    columns: npt.NDArray[np.float64]
    level: Series


def _features(
    past: Past, origins: Origins, steps: int, season_steps: int, most_steps: int, floor_tokens_per_s: float
) -> _Features:
    """What is known at each origin about each of the next `steps`; NaN where the history does not reach."""
    logs = np.log(np.maximum(past.values, floor_tokens_per_s))
    highest = np.log(np.maximum(past.highest, floor_tokens_per_s))
    total = np.concatenate(([0.0], np.cumsum(past.values)))

    def level(at: Origins, window: int) -> Series:
        inside = at >= window
        mean = (total[np.maximum(at, 0)] - total[np.maximum(at - window, 0)]) / window
        return np.where(inside, np.log(np.maximum(mean, floor_tokens_per_s)), np.nan)

    now = level(origins, _LEVEL_STEPS)
    at_origin = [logs[origins - lag] - now for lag in (1, 2, 3, 4)]
    at_origin += [highest[origins - lag] - now for lag in (1, 2)]
    at_origin += [level(origins, window) - now for window in (4 * _LEVEL_STEPS, season_steps)]
    rows = np.arange(1, steps + 1)
    columns = [np.repeat(each[:, None], steps, axis=1) for each in at_origin]
    columns.append(np.repeat(np.minimum(rows, most_steps)[None, :], len(origins), axis=0).astype(np.float64))
    for seasons in (1, 2, 7):
        back = seasons * season_steps
        source = origins[:, None] - back + (rows[None, :] - 1) % season_steps
        value = np.where(source >= 0, logs[np.maximum(source, 0)], np.nan)
        columns.append(value - level(origins - back, _LEVEL_STEPS)[:, None])
    angle = 2 * np.pi * ((past.first_step + origins[:, None] + rows[None, :]) % season_steps) / season_steps
    columns += [np.sin(angle), np.cos(angle)]
    stacked = np.stack(columns, axis=2).reshape(len(origins) * steps, len(columns))
    return _Features(columns=stacked, level=np.exp(now))


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosted:
    """Estimator: median regression trees of the next `most_steps` steps; later steps are told as the last of these."""

    most_steps: int = 8
    name: str = "lightgbm"

    def least_steps(self, season_steps: int) -> int:
        return 3 * season_steps

    def fit(self, known: Past, season_steps: int) -> BoostedPaths | str:
        """The model, or in words why there is none. Raises ImportError where lightgbm is not installed."""
        scale = Scale.of(known.values, logs=True)
        if scale is None:
            return "the history is constant"
        floor = 0.01 * scale.mean_tokens_per_s
        end = len(known.values)
        return BoostedPaths(
            now=self._booster(known, end, season_steps, floor),
            before=self._booster(known, end - season_steps, season_steps, floor),
            cut_step=known.first_step + end,
            season_steps=season_steps,
            most_steps=self.most_steps,
            floor_tokens_per_s=floor,
        )

    def _booster(self, known: Past, end: int, season_steps: int, floor: float) -> Any:
        """Fitted on origins whose next `most_steps` end before `end`."""
        import lightgbm

        origins = np.arange(season_steps + _LEVEL_STEPS, end - self.most_steps + 1)
        table = _features(known, origins, self.most_steps, season_steps, self.most_steps, floor)
        came = known.values[origins[:, None] + np.arange(self.most_steps)[None, :]]
        target = np.log(np.maximum(came, floor)) - np.log(table.level)[:, None]
        return lightgbm.train(_SETTINGS, lightgbm.Dataset(table.columns, label=target.ravel()), num_boost_round=_ROUNDS)
