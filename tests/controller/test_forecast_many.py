"""Forecasts of many series: the same in one process and in several."""

import subprocess
import sys
import threading

import numpy as np
import psutil
import pytest

from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.ensemble import fit_tasks
from controller.forecasts.forecast import Past
from controller.forecasts.many import fit_ahead, forecast_many
from controller.forecasts.methods import MethodSettings, method

DAY = 24
SETTINGS = MethodSettings(season_s=DAY * 3600.0)


def pasts(count: int) -> dict[str, Past]:
    rng = np.random.default_rng(1)
    t = np.arange(4 * DAY + 5)
    return {
        f"series {n}": Past(
            values=1000 * (1.5 + np.sin(2 * np.pi * t / DAY)) * rng.lognormal(0, 0.2, len(t)),
            step_s=3600.0,
            until_s=3600.0 * len(t),
        )
        for n in range(count)
    }


def of(name: str) -> CalibratedForecaster:
    return CalibratedForecaster(method=method(name, SETTINGS))


@pytest.mark.slow  # starts processes, each of which imports everything
def test_several_processes_answer_as_one_does():
    given = pasts(48)
    one, several = of("ensemble"), of("ensemble")
    assert fit_ahead(several, given.values(), processes=2) == 3 * 48
    serial = forecast_many(one, given, steps=4, upper_quantile=0.9)
    parallel = forecast_many(several, given, steps=4, upper_quantile=0.9, processes=2)
    assert parallel == serial


# A testbed that decides beside its event loop, with fits for a minute.
DECIDING = """
import asyncio
import numpy as np
from controller.forecasts.calibrated import CalibratedForecaster
from controller.forecasts.forecast import Past
from controller.forecasts.many import fit_ahead
from controller.forecasts.methods import MethodSettings, method

rng = np.random.default_rng(1)
pasts = [Past(values=rng.lognormal(0, 1, 700), step_s=3600.0, until_s=3600.0 * 700) for _ in range(2000)]
forecaster = CalibratedForecaster(method=method("ensemble", MethodSettings(season_s=86400.0)))

async def main():
    deciding = asyncio.get_running_loop().run_in_executor(None, lambda: fit_ahead(forecaster, pasts, processes=2))
    print("decides", flush=True)
    await deciding

asyncio.run(main())
"""


@pytest.mark.slow  # starts processes, each of which imports everything
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_the_processes_that_fit_do_not_outlive_a_testbed_that_is_killed():
    pause = threading.Event()
    with subprocess.Popen([sys.executable, "-c", DECIDING], stdout=subprocess.PIPE) as testbed:
        assert testbed.stdout is not None
        testbed.stdout.readline()
        workers: list[psutil.Process] = []
        # At work: what they have imported takes them that long.
        while len(workers) < 2 or min(sum(worker.cpu_times()[:2]) for worker in workers) < 2.0:
            assert testbed.poll() is None
            pause.wait(0.1)
            children = psutil.Process(testbed.pid).children()
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        testbed.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]


def test_a_fit_that_was_made_is_not_made_again():
    forecaster, given = of("ets"), pasts(3)
    assert all(len(fit_tasks(forecaster.method, past)) == 1 for past in given.values())
    forecast_many(forecaster, given, steps=4, upper_quantile=0.9)
    assert not any(fit_tasks(forecaster.method, past) for past in given.values())


def test_few_fits_stay_in_this_process(monkeypatch):
    def started(*_, **__):
        pytest.fail("a process was started")

    monkeypatch.setattr("controller.forecasts.many.ProcessPoolExecutor", started)
    assert len(forecast_many(of("ets"), pasts(4), steps=2, upper_quantile=0.9, processes=8)) == 4


def test_a_method_without_fits_has_none_to_make():
    assert fit_ahead(of("seasonal-naive"), pasts(4).values(), processes=8) == 0
