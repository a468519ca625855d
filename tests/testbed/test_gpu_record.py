"""A run's record of its GPUs, on simulated ones: a module in pynvml's place."""

import asyncio
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from results.gpu_charts import gpu_group
from results.recorder import RunRecorder
from results.run_folder import PolicyFolder
from testbed.gpu_record import record_gpus
from testbed.virtual_time import VirtualTimeLoop
from workloads.clock import RunClock


class NvmlError(Exception):
    pass


class NotSupported(NvmlError):
    pass


def _no_energy(_gpu: int) -> int:
    raise NotSupported


def _handle(index: int) -> int:
    if index > 1:
        raise NvmlError("Invalid Argument")
    return index


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two GPUs that draw 100 and 200 W and do not count their energy."""
    simulated = SimpleNamespace(
        NVMLError=NvmlError,
        NVMLError_NotSupported=NotSupported,
        NVMLError_FunctionNotFound=NotSupported,
        NVML_TEMPERATURE_GPU=0,
        NVML_CLOCK_SM=1,
        open=0,
        nvmlDeviceGetHandleByIndex=_handle,
        nvmlDeviceGetTotalEnergyConsumption=_no_energy,
        nvmlDeviceGetPowerUsage=lambda gpu: 100_000 * (gpu + 1),
        nvmlDeviceGetTemperature=lambda gpu, _kind: 40 + gpu,
        nvmlDeviceGetClockInfo=lambda _gpu, _kind: 1500,
        nvmlDeviceGetUtilizationRates=lambda gpu: SimpleNamespace(gpu=50 * gpu),
        nvmlDeviceGetMemoryInfo=lambda _gpu: SimpleNamespace(used=2**30),
    )
    simulated.nvmlInit = lambda: setattr(simulated, "open", simulated.open + 1)
    simulated.nvmlShutdown = lambda: setattr(simulated, "open", simulated.open - 1)
    monkeypatch.setitem(sys.modules, "pynvml", simulated)  # type: ignore[arg-type]
    return simulated


def record(tmp_path: Any, indices: tuple[int, ...], for_s: float) -> PolicyFolder:
    async def run(recorder: RunRecorder) -> None:
        clock = RunClock()
        clock.start()
        async with asyncio.TaskGroup() as tasks:
            recording = tasks.create_task(record_gpus(indices, recorder, clock, 10.0))
            await asyncio.sleep(for_s)
            recording.cancel()

    with RunRecorder(tmp_path / "p") as recorder, asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run(recorder))
    return PolicyFolder(name="p", path=tmp_path / "p")


def test_every_gpu_is_read_at_every_tick_and_nvml_is_closed(nvml, tmp_path):
    read = record(tmp_path, (0, 1), 25.0).gpus()
    assert read["at_s"].round(6).tolist() == [0.0, 0.0, 10.0, 10.0, 20.0, 20.0]
    assert read["gpu"].tolist() == [0, 1] * 3
    assert read["power_w"].tolist() == [100.0, 200.0] * 3
    assert read["utilisation"].tolist() == [0.0, 0.5] * 3
    assert read["energy_j"].isna().all(), "what a GPU does not tell is null, not 0"
    assert nvml.open == 0


def test_nvml_is_not_closed_while_it_is_read(nvml, tmp_path):
    open_after = []

    def slow(gpu: int) -> int:
        threading.Event().wait(0.05)
        open_after.append(nvml.open)
        return 100_000

    nvml.nvmlDeviceGetPowerUsage = slow
    record(tmp_path, (0,), 0.0)
    assert open_after == [1]
    assert nvml.open == 0


def test_a_gpu_that_nvml_does_not_have_is_left_out(nvml, tmp_path):
    assert set(record(tmp_path, (1, 7), 5.0).gpus()["gpu"]) == {1}
    assert nvml.open == 0


def test_where_gpus_are_imagined_or_nvml_is_missing_nothing_is_recorded(nvml, tmp_path, monkeypatch):
    assert record(tmp_path / "imagined", (), 25.0).gpus().empty
    monkeypatch.setitem(sys.modules, "pynvml", None)
    missing = record(tmp_path / "missing", (0,), 25.0).gpus()
    assert missing.empty
    assert gpu_group(missing, 25.0) is None


def test_readings_are_drawn_gpu_by_gpu(nvml, tmp_path):
    group = gpu_group(record(tmp_path, (0, 1), 25.0).gpus(), 25.0)
    assert group is not None
    assert [mark.label for mark in group.legend] == ["GPU 0", "GPU 1"]
    assert [chart.title for chart in group.charts] == ["Power, W", "Utilisation", "Memory used, GiB"]
