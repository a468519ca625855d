"""Forecasts of many series: their fits in several processes, their answers as if one after the other.

A fit is a pure function of the history that it sees, so it may be made anywhere. What is made elsewhere is put where
the forecaster would have put it; the forecasts themselves, milliseconds each, then find every fit there.
"""

from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.ensemble import fit_tasks
from controller.forecasts.forecast import Forecaster, Past, PointModel
from controller.forecasts.refit import FitTask
from controller.types import Forecast
from workloads.worker_process import begin_worker

Name = TypeVar("Name", bound=Hashable)

_WORTH_A_PROCESS = 64
"""Fits per process below which starting one (a second or two of imports) takes longer than the fits."""
_CHUNK = 16


def forecast_many(
    forecaster: Forecaster,
    pasts: Mapping[Name, Past],
    *,
    steps: int,
    upper_quantile: float,
    skip: int = 0,
    processes: int = 1,
) -> dict[Name, Forecast]:
    """One forecast for each past, the same for any number of `processes`."""
    if processes > 1 and isinstance(forecaster, CalibratedForecaster):
        fit_ahead(forecaster, pasts.values(), processes=processes)
    return {
        name: forecaster.forecast(past, steps=steps, upper_quantile=upper_quantile, skip=skip)
        for name, past in pasts.items()
    }


def fit_ahead(forecaster: CalibratedForecaster, pasts: Iterable[Past], *, processes: int) -> int:
    """Make the fits that forecasts of `pasts` need, in up to `processes` processes; returns how many were made.

    Fewer than are worth a process are left to be made when they are asked for, and so is what a process that died did
    not make: that changes when an answer comes, not what it is.
    """
    wanted = {task.key: (owner, task) for past in pasts for owner, task in fit_tasks(forecaster.method, past)}
    workers = min(processes, len(wanted) // _WORTH_A_PROCESS)
    if workers < 2:
        return 0
    made = 0
    # Not fork: the process that decides may hold an event loop, sockets and threads. All workers are started by this
    # thread, which waits for them here: they die with it.
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn"), initializer=begin_worker) as pool:
        try:
            for (owner, task), found in zip(
                wanted.values(), pool.map(_fitted, [task for _, task in wanted.values()], chunksize=_CHUNK), strict=True
            ):
                owner.remember(task, found)
                made += 1
        except BrokenProcessPool:
            pass
    return made


def _fitted(task: FitTask) -> PointModel | str:
    return task.fitted()
