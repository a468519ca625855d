"""Rolling-origin evaluation: at each origin the forecaster is handed the past up to there, and nothing behind it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.ensemble import fit_tasks
from controller.forecasts.forecast import Forecaster, Past
from controller.forecasts.scores import Tally, tally
from controller.forecasts.scores import total as total_of
from controller.history import Series

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolling:
    """Forecasts of `steps` steps from every `every`-th step of the grid on, the first after `warmup` steps of history.

    `quantile` is the level that is scored. All origins lie on multiples of `every` steps from time 0.
    """

    steps: int
    every: int
    warmup: int
    quantile: float

    def origins(self, length: int) -> range:
        """Those of a history of `length` steps from time 0: each has all of its steps to come inside."""
        first = -(-max(1, self.warmup) // self.every) * self.every
        return range(first, length - self.steps + 1, self.every)


def upto(whole: Past, origin: int) -> Past:
    """A copy of the first `origin` steps: what lies behind them cannot be reached through it."""
    return Past(
        values=whole.values[:origin].copy(),
        step_s=whole.step_s,
        until_s=(whole.first_step + origin) * whole.step_s,
        peaks=None if whole.peaks is None else whole.peaks[:origin].copy(),
        peak_step_s=whole.peak_step_s,
    )


def evaluate(forecaster: Forecaster, whole: Past, rolling: Rolling, *, clock: Clock) -> Tally:
    """All forecasts of one series as sums; `clock` tells seconds, to time fits and forecasts by."""
    return total_of(tallies(forecaster, whole, rolling, clock=clock))


def tallies(forecaster: Forecaster, whole: Past, rolling: Rolling, *, clock: Clock) -> Iterator[Tally]:
    """One for each origin, in order of time."""
    for origin in rolling.origins(len(whole.values)):
        past = upto(whole, origin)
        began_s = clock()
        fits = _make_fits(forecaster, past)
        fitted_s = clock()
        forecast = forecaster.forecast(past, steps=rolling.steps, upper_quantile=rolling.quantile)
        ended_s = clock()
        came = slice(origin, origin + rolling.steps)
        yield tally(
            forecast,
            whole.values[came],
            float(whole.highest[came].max()),
            fits=fits,
            fit_s=fitted_s - began_s if fits else 0.0,
            step_s=ended_s - fitted_s,
        )


def _make_fits(forecaster: Forecaster, past: Past) -> int:
    """The fits that are due, made ahead of the forecast so that they can be timed apart."""
    if not isinstance(forecaster, CalibratedForecaster):
        return 0
    due = fit_tasks(forecaster.method, past)
    for owner, task in due:
        owner.remember(task, task.fitted())
    return len(due)


def past_of_bins(values: Series, *, bin_s: float, step_s: float, peak_step_s: float) -> Past:
    """Tokens/s in bins of `bin_s` from time 0 on, shape (bins,), as whole steps with the peaks inside them.

    What is left of a last step is dropped. Raises ValueError where `step_s` is no multiple of `peak_step_s`, or that of
    `bin_s`, or there is no whole step.
    """
    for wide, narrow, names in (
        (step_s, peak_step_s, ("step", "peak step")),
        (peak_step_s, bin_s, ("peak step", "bin")),
    ):
        ratio = wide / narrow
        if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-6:
            raise ValueError(f"{names[0]} of {wide:g} s must be a multiple of the {names[1]} of {narrow:g} s")
    steps = int(len(values) * bin_s / step_s + 1e-9)
    if steps < 1:
        raise ValueError(f"{len(values) * bin_s:g} s of history hold no whole step of {step_s:g} s")
    fine = values[: steps * round(step_s / bin_s)].reshape(-1, round(peak_step_s / bin_s)).mean(axis=1)
    inside = fine.reshape(steps, -1)
    return Past(
        values=np.asarray(inside.mean(axis=1), dtype=np.float64),
        step_s=step_s,
        until_s=steps * step_s,
        peaks=np.asarray(inside.max(axis=1), dtype=np.float64),
        peak_step_s=peak_step_s,
    )
