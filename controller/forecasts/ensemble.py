"""The mean of several methods, weighted by how well each did lately: their errors are partly their own, and cancel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controller.forecasts.forecast import Method, NotForecastable, Origins, Past, Paths, PointModel
from controller.forecasts.refit import FitTask, Refitted
from controller.history import Series

_SHARPNESS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanPaths:
    """The weighted mean of the members' paths, from origins that all of those can forecast from which can now.

    A member's weight is its mean absolute error over the origins asked for whose steps have all come, to the power -4:
    the inverse square of its squared error (Stock and Watson, Journal of Forecasting 23:405, 2004). With fewer than
    `least` such origins all weigh the same.
    """

    members: tuple[PointModel, ...]
    least: int = 16
    caveat: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(warning for member in self.members for warning in member.warnings)

    def paths(self, past: Past, origins: Origins, steps: int) -> Paths:
        each = np.stack([member.paths(past, origins, steps) for member in self.members])
        # A member without an answer now would make the errors of the past those of another mean.
        answering = np.isfinite(each[:, -1]).all(axis=1)
        if not answering.any():
            return np.full((len(origins), steps), np.nan)
        each = each[answering]
        return np.asarray(np.tensordot(self._weights(past, origins, each), each, axes=1))

    def _weights(self, past: Past, origins: Origins, each: Paths) -> Series:
        """Shape (members,), sum 1; `each` has shape (members, origins, steps)."""
        steps = each.shape[2]
        judged = (origins <= len(past.values) - steps) & np.isfinite(each).all(axis=(0, 2))
        if judged.sum() < self.least:
            return np.full(len(each), 1 / len(each))
        came = past.values[origins[judged][:, None] + np.arange(steps)[None, :]]
        error = np.abs(each[:, judged] - came).mean(axis=(1, 2))
        # Relative to the best, so that no power overflows; where the best makes no error it is alone.
        best = float(error.min())
        weights = (best / error) ** _SHARPNESS if best > 0 else (error == 0).astype(np.float64)
        return np.asarray(weights / weights.sum())

    def spread(self, past: Past, path: Series, level: float) -> Series:
        return np.asarray(np.mean([member.spread(past, path, level) for member in self.members], axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Method: the weighted mean of `members`, without those that cannot answer, which the caveat names."""

    members: tuple[Method, ...]
    name: str = "ensemble"

    def model(self, past: Past) -> MeanPaths:
        found: list[PointModel] = []
        missing: list[str] = []
        for member in self.members:
            try:
                found.append(member.model(past))
            except NotForecastable as why:
                missing.append(f"{member.name}: {why}")
        if not found:
            raise NotForecastable("; ".join(missing))
        caveat = f"{self.name} without {'; '.join(missing)}" if missing else ""
        return MeanPaths(members=tuple(found), caveat=caveat)


def refitted(method: Method) -> Sequence[Refitted]:
    """The fitted methods in `method`: itself, its members, or none."""
    if isinstance(method, Refitted):
        return (method,)
    if isinstance(method, Ensemble):
        return tuple(found for member in method.members for found in refitted(member))
    return ()


def fit_tasks(method: Method, past: Past) -> list[tuple[Refitted, FitTask]]:
    """The fits that a forecast of `past` by `method` still needs, and who remembers them."""
    return [(each, task) for each in refitted(method) for task in each.tasks(past)]
