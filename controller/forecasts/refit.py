"""Methods whose parameters are fitted now and then: what a fit sees, when it is made, and where it is remembered.

Parameters are fitted on history cut at the last multiple of `refit_s`. From the cut on, and for the repeated forecasts
that calibrate the quantiles, the model runs with its parameters held. So a forecast costs milliseconds, and the answer
depends on the past alone: also which history the parameters come from is a function of the time, not of who asked when.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from threadpoolctl import ThreadpoolController

from controller.forecasts.forecast import NotForecastable, Past, PointModel

_KEPT_FITS = 20_000


@cache
def _blas() -> Any:
    """Fits multiply matrices of a few rows: BLAS threads that wait for each other make them ten times slower, and add
    up in another order each time. Made at the first fit, when the libraries that it limits are loaded.
    """
    return ThreadpoolController()


class Estimator(Protocol):
    """Fits a point model. Pure, and picklable: a fit may run in another process."""

    @property
    def name(self) -> str: ...

    def least_steps(self, season_steps: int) -> int:
        """Steps of history below which nothing is fitted."""
        ...

    def fit(self, known: Past, season_steps: int) -> PointModel | str:
        """The model, or in words why there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTask:
    """One fit to be made: `key` names everything that it depends on."""

    key: bytes
    estimator: Estimator
    known: Past
    season_steps: int

    def fitted(self) -> PointModel | str:
        with _blas().limit(limits=1):
            return self.estimator.fit(self.known, self.season_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """Method: `estimator`, fitted at multiples of `refit_s` on the last `fit_window_s` of history.

    Fits are remembered by the bytes they were made from, which changes the speed of an answer and never the answer.
    """

    estimator: Estimator
    season_s: float = 24 * 3600.0
    refit_s: float = 12 * 3600.0
    fit_window_s: float = 3 * 24 * 3600.0
    _fits: dict[bytes, PointModel | str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.estimator.name

    def model(self, past: Past) -> PointModel:
        task = self._task(past)
        if task.key not in self._fits:
            self.remember(task, task.fitted())
        found = self._fits[task.key]
        if isinstance(found, str):
            raise NotForecastable(found)
        return found

    def tasks(self, past: Past) -> tuple[FitTask, ...]:
        """The fits that a forecast from `past` still needs: one or none."""
        try:
            task = self._task(past)
        except NotForecastable:
            return ()
        return () if task.key in self._fits else (task,)

    def remember(self, task: FitTask, found: PointModel | str) -> None:
        while len(self._fits) >= _KEPT_FITS:
            del self._fits[next(iter(self._fits))]
        self._fits[task.key] = found

    def _task(self, past: Past) -> FitTask:
        season_steps = max(1, round(self.season_s / past.step_s))
        last_step = round(past.until_s / past.step_s)
        after_cut = min(last_step % max(1, round(self.refit_s / past.step_s)), len(past.values))
        cut = len(past.values) - after_cut
        window = slice(max(0, cut - round(self.fit_window_s / past.step_s)), cut)
        known = Past(
            values=past.values[window],
            step_s=past.step_s,
            until_s=(last_step - after_cut) * past.step_s,
            peaks=None if past.peaks is None else past.peaks[window],
            peak_step_s=past.peak_step_s,
        )
        least = self.estimator.least_steps(season_steps)
        if len(known.values) < least:
            raise NotForecastable(
                f"too little history: {len(known.values)} steps of {past.step_s:g} s at the last fit, {least} wanted"
            )
        given = (self.estimator, season_steps, known.first_step, past.step_s)
        key = hashlib.blake2b(known.values.tobytes() + known.highest.tobytes() + repr(given).encode()).digest()
        return FitTask(key=key, estimator=self.estimator, known=known, season_steps=season_steps)
