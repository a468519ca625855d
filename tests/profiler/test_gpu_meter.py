"""The meter on simulated GPUs: a module in pynvml's place, and a counter that follows the loop's virtual clock."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.gpu_meter import EnergyWindow, GpuReading, NoNvmlError, NvmlMeter, energy_between, open_meter
from profiler.profile_parts import Energy
from testbed.virtual_time import VirtualTimeLoop


class NvmlError(Exception):
    pass


class NotSupported(NvmlError):
    pass


class FunctionNotFound(NvmlError):
    pass


class GpuIsLost(NvmlError):
    def __str__(self) -> str:
        return "GPU is lost"


def refuse(error: type[NvmlError]) -> Callable[[int], Any]:
    def read(_gpu: int) -> Any:
        raise error

    return read


class SimulatedNvml:
    """Two GPUs of 300 W from 10 s on and of 100 W before; the counter moves every 100 ms."""

    NVMLError = NvmlError
    NVMLError_NotSupported = NotSupported
    NVMLError_FunctionNotFound = FunctionNotFound
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1

    def __init__(self) -> None:
        self.started = 0
        self.now_s: Callable[[], float] = lambda: 20.0
        self.gpus = 2
        self.nvmlDeviceGetEnforcedPowerLimit: Callable[[int], int] = lambda gpu: 700_000
        self.nvmlDeviceGetTotalEnergyConsumption: Callable[[int], int] = self._energy_mj
        self.nvmlDeviceGetPowerUsage: Callable[[int], int] = self._power_mw

    def nvmlInit(self) -> None:
        self.started += 1

    def nvmlShutdown(self) -> None:
        self.started -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= self.gpus:
            raise NvmlError("Invalid Argument")
        return index

    def _energy_mj(self, gpu: int) -> int:
        at_s = int(self.now_s() * 10) / 10
        return int(1e6 + 1e3 * (100 * min(at_s, 10) + 300 * max(0, at_s - 10)))

    def _power_mw(self, gpu: int) -> int:
        return 100_000 if self.now_s() <= 10 else 300_000

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return 40 + 10 * gpu + int(self.now_s() / 10)

    def nvmlDeviceGetClockInfo(self, gpu: int, kind: int) -> int:
        return 1980 - 30 * gpu

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(used=(gpu + 1) * 2**30)

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=50 + 50 * gpu)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimulatedNvml:
    simulated = SimulatedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", simulated)  # type: ignore[arg-type]
    return simulated


def virtually(nvml: SimulatedNvml, coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        nvml.now_s = runner.get_loop().time
        return runner.run(coroutine)


async def window(meter: NvmlMeter | None, from_s: float, to_s: float) -> EnergyWindow:
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(from_s)
    async with EnergyWindow(meter, clock) as opened:
        await asyncio.sleep(to_s - from_s)
    assert len(asyncio.all_tasks()) == 1, "the sampler outlives its window"
    return opened


def test_a_reading_adds_up_what_adds_up_and_takes_the_hottest_and_the_slowest(nvml: SimulatedNvml) -> None:
    with NvmlMeter([0, 1]) as meter:
        assert meter.read(20.0) == GpuReading(
            at_s=20.0,
            energy_j=2 * (1000 + 1000 + 3000),
            power_w=600.0,
            temperature_c=52.0,
            sm_clock_mhz=1950.0,
            memory_used_bytes=3 * 2**30,
            utilization=0.75,
        )
        assert meter.limit_w() == 1400.0
    assert nvml.started == 0


def test_what_one_gpu_does_not_support_is_absent_and_no_fault(nvml: SimulatedNvml) -> None:
    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse(NotSupported)
    nvml.nvmlDeviceGetEnforcedPowerLimit = refuse(FunctionNotFound)
    nvml.nvmlDeviceGetPowerUsage = lambda gpu: refuse(NotSupported)(gpu) if gpu == 1 else 100_000
    with NvmlMeter([0, 1]) as meter:
        reading = meter.read(0.0)
        assert (reading.energy_j, reading.power_w, meter.limit_w()) == (None, None, None)
        assert reading.temperature_c is not None
        assert meter.faults == ()
    assert virtually(nvml, in_meter([0, 1], 0.0, 10.0)).energy is None


async def in_meter(indices: list[int], from_s: float, to_s: float) -> EnergyWindow:
    with open_meter(indices) as meter:
        return await window(meter, from_s, to_s)


def test_a_window_holds_the_energy_of_its_own_time_alone(nvml: SimulatedNvml) -> None:
    opened = virtually(nvml, in_meter([0, 1], 10.0, 30.0))
    energy = opened.energy
    assert energy is not None
    assert energy.window_s == pytest.approx(20.0)
    assert energy.energy_j == pytest.approx(2 * 300 * 20, rel=0.01)
    assert energy.mean_w == pytest.approx(600, rel=0.01)
    assert energy.max_w == 600.0
    assert energy.temperature_c == (51.0, 53.0)
    assert energy.sm_clock_mhz == (1950.0, 1950.0)
    assert energy.utilization == pytest.approx(0.75)
    assert len(opened.readings) >= 40


def test_power_read_as_the_window_opens_tells_of_the_time_before(nvml: SimulatedNvml) -> None:
    nvml.nvmlDeviceGetPowerUsage = lambda gpu: 900_000 if nvml.now_s() == 3.0 else 100_000
    energy = virtually(nvml, in_meter([0], 3.0, 8.0)).energy
    assert energy is not None and energy.max_w == 100.0


def test_a_window_too_short_for_the_counter_says_nothing(nvml: SimulatedNvml) -> None:
    assert virtually(nvml, in_meter([0], 0.0, 1.9)).energy is None
    assert isinstance(virtually(nvml, in_meter([0], 0.0, 2.1)).energy, Energy)


def test_without_a_meter_there_is_no_energy(nvml: SimulatedNvml) -> None:
    opened = virtually(nvml, in_meter([], 0.0, 10.0))
    assert (opened.energy, opened.readings) == (None, ())


def test_a_gpu_lost_in_the_window_costs_its_energy_and_is_named(nvml: SimulatedNvml) -> None:
    counter = nvml.nvmlDeviceGetTotalEnergyConsumption
    nvml.nvmlDeviceGetTotalEnergyConsumption = lambda gpu: (
        refuse(GpuIsLost)(gpu) if gpu == 1 and nvml.now_s() > 5 else counter(gpu)
    )

    async def measured() -> tuple[EnergyWindow, tuple[str, ...]]:
        with open_meter([0, 1]) as meter:
            assert meter is not None
            return await window(meter, 0.0, 10.0), meter.faults

    opened, faults = virtually(nvml, measured())
    assert opened.energy is None
    assert faults == ("GPU 1: no energy: GPU is lost",)


def test_a_driver_loaded_anew_in_the_window_costs_its_energy() -> None:
    before, after = GpuReading(at_s=0.0, energy_j=5e6), GpuReading(at_s=10.0, energy_j=7.0)
    assert energy_between([before, after]) is None
    assert energy_between([before]) is None


def test_what_fails_in_a_window_comes_out_as_itself(nvml: SimulatedNvml) -> None:
    async def failing() -> None:
        with open_meter([0]) as meter:
            async with EnergyWindow(meter, asyncio.get_running_loop().time):
                await asyncio.sleep(3)
                raise LookupError("of the body")

    with pytest.raises(LookupError, match="of the body"):
        virtually(nvml, failing())


def test_a_window_can_be_cancelled(nvml: SimulatedNvml) -> None:
    async def cancelled() -> float:
        with open_meter([0]) as meter, pytest.raises(TimeoutError):
            async with asyncio.timeout(3), EnergyWindow(meter, asyncio.get_running_loop().time):
                await asyncio.sleep(100)
        assert len(asyncio.all_tasks()) == 1
        return asyncio.get_running_loop().time()

    assert virtually(nvml, cancelled()) == 3.0


def test_a_machine_whose_nvml_does_not_start_has_no_meter_and_says_why(
    nvml: SimulatedNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise NvmlError("Driver Not Loaded")

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    with open_meter([0]) as meter:
        assert meter is None
    with pytest.raises(NoNvmlError, match="NVML does not start: Driver Not Loaded"), NvmlMeter([0]):
        pass
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with open_meter([0]) as meter:
        assert meter is None


def test_a_gpu_that_is_not_there_is_named(nvml: SimulatedNvml) -> None:
    with pytest.raises(ValueError, match=r"GPU 7 cannot be read \(Invalid Argument\)"), open_meter([0, 7]):
        pass
    assert nvml.started == 0
    with pytest.raises(ValueError, match="given no GPU"):
        NvmlMeter([])


def test_every_name_of_the_simulated_module_is_one_of_pynvml() -> None:
    pynvml = pytest.importorskip("pynvml")
    names = {name for name in (*dir(SimulatedNvml), *vars(SimulatedNvml())) if name.lower().startswith("nvml")}
    assert len(names) > 12
    assert [name for name in sorted(names) if not hasattr(pynvml, name)] == []
