"""How long forecasts of many series take: seconds for fits and for answers, in one process and in several.

    python -m benchmarks.forecasts [--series 1000] [--processes 2] [--method NAME ...]

A week of quarters of an hour for each series; every fit is due.
"""

import argparse
import os
import time
from collections.abc import Iterator

import numpy as np

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.forecast import Past
from controller.forecasts.many import fit_ahead, forecast_many
from controller.forecasts.methods import MethodSettings, method
from controller.forecasts.parameters import BEST_METHOD

DAY = 96


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--series", type=int, default=1000)
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options.add_argument("--method", action="append")
    given = options.parse_args()
    pasts = dict(enumerate(_weeks(given.series)))
    print(f"{given.series} series of 7 days, {DAY} steps a day; seconds", flush=True)
    for name in given.method or ("arima", "arima-fourier", "ets", BEST_METHOD):
        one, several = (CalibratedForecaster(method=method(name, MethodSettings())) for _ in range(2))
        began_s, busy_s = time.perf_counter(), time.process_time()
        forecast_many(one, pasts, steps=4, upper_quantile=0.9)
        alone_s, busy_s = time.perf_counter() - began_s, time.process_time() - busy_s
        began_s = time.perf_counter()
        fits = fit_ahead(several, pasts.values(), processes=given.processes)
        fitted_s = time.perf_counter() - began_s
        began_s = time.perf_counter()
        forecast_many(several, pasts, steps=4, upper_quantile=0.9)
        told_s = time.perf_counter() - began_s
        print(
            f"{name:15} one process {alone_s:7.1f} s ({busy_s:.1f} s of CPU); "
            f"{fits} fits in {given.processes} processes {fitted_s:7.1f} s, forecasts {told_s:5.1f} s",
            flush=True,
        )


def _weeks(series: int) -> Iterator[Past]:
    rng = np.random.default_rng(1)
    t = np.arange(7 * DAY)
    for _ in range(series):
        clean = 1000 * (1.2 + np.sin(2 * np.pi * t / DAY + rng.uniform(0, 6)))
        drift = np.exp(np.cumsum(rng.normal(0, 0.03, len(t))) * 0.5)
        values = clean * drift * rng.lognormal(0, 0.1, len(t))
        yield Past(values=values, step_s=900.0, until_s=900.0 * len(t), peaks=values * 1.2, peak_step_s=60.0)


if __name__ == "__main__":
    main()
