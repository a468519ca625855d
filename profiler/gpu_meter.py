"""Power, energy, temperature, clocks and memory of GPUs, through NVML.

What a device does not support is None, never 0. NVML's calls take up to some ms each, so that whoever measures
latencies meanwhile should make them in a thread, as EnergyWindow does.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from profiler.profile_parts import Energy
from profiler.side_tasks import side_tasks

SAMPLE_EVERY_S = 0.5
# The energy counter moves every 20 to 100 ms: over a shorter window its steps are more than 5% of the whole.
SHORTEST_WINDOW_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """All GPUs of a server at one moment.

    Energy (counted since the driver was loaded), power and memory are sums; temperature is that of the hottest,
    the SM clock that of the slowest, utilization (0..1, the share of time in which a kernel ran) the mean. NVML's power
    is the mean over about the last second on GPUs since Ampere. A field is None unless every GPU supports it.
    """

    at_s: float
    energy_j: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_used_bytes: int | None = None
    utilization: float | None = None


class NoNvmlError(RuntimeError):
    """This machine has no NVML; the message says why."""


class NvmlMeter:
    """Reads the GPUs `indices` (NVML's numbers) together; a context manager.

    Raises ValueError for no indices, and when entered NoNvmlError, or ValueError for an index that NVML does not have.
    """

    def __init__(self, indices: Sequence[int]) -> None:
        if not indices:
            raise ValueError("NvmlMeter was given no GPU; name at least one")
        self._indices = tuple(indices)
        self._handles: tuple[Any, ...] = ()
        self._faults: dict[str, None] = {}

    def __enter__(self) -> Self:
        try:
            import pynvml

            pynvml.nvmlInit()
        except ImportError as error:
            raise NoNvmlError("the Python package nvidia-ml-py is not installed") from error
        except pynvml.NVMLError as error:
            raise NoNvmlError(f"NVML does not start: {error}") from error
        self._nvml: Any = pynvml
        try:
            self._handles = tuple(self._handle(index) for index in self._indices)
        except BaseException:
            pynvml.nvmlShutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    @property
    def faults(self) -> tuple[str, ...]:
        """Why readings are missing, one line each, where the reason is not that the device does not support them."""
        return tuple(self._faults)

    def read(self, at_s: float) -> GpuReading:
        """Read everything now; `at_s` is now. A GPU that is lost makes fields None and `faults` longer."""
        nvml = self._nvml
        # First: it is the one whose moment matters most.
        energy_mj = self._each("energy", nvml.nvmlDeviceGetTotalEnergyConsumption)
        power_mw = self._each("power", nvml.nvmlDeviceGetPowerUsage)
        temperature_c = self._each(
            "temperature", lambda gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
        )
        clock_mhz = self._each("SM clock", lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM))
        percent = self._each("utilization", lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        return GpuReading(
            at_s=at_s,
            energy_j=None if energy_mj is None else sum(energy_mj) / 1e3,
            power_w=None if power_mw is None else sum(power_mw) / 1e3,
            temperature_c=None if temperature_c is None else max(temperature_c),
            sm_clock_mhz=None if clock_mhz is None else min(clock_mhz),
            memory_used_bytes=self.memory_used_bytes(),
            utilization=None if percent is None else sum(percent) / len(percent) / 100,
        )

    def memory_used_bytes(self) -> int | None:
        """Of all GPUs together, whoever uses it."""
        used = self._each("memory", lambda gpu: self._nvml.nvmlDeviceGetMemoryInfo(gpu).used)
        return None if used is None else int(sum(used))

    def limit_w(self) -> float | None:
        """The power limit that is enforced now, of all GPUs together."""
        limit_mw = self._each("power limit", self._nvml.nvmlDeviceGetEnforcedPowerLimit)
        return None if limit_mw is None else sum(limit_mw) / 1e3

    def _handle(self, index: int) -> Any:
        try:
            return self._nvml.nvmlDeviceGetHandleByIndex(index)
        except self._nvml.NVMLError as error:
            raise ValueError(f"GPU {index} cannot be read ({error}); `testbed doctor` tells which there are") from error

    def _each(self, name: str, read: Callable[[Any], float]) -> list[float] | None:
        """One value per GPU; None when one of them has none."""
        nvml = self._nvml
        values = []
        for index, handle in zip(self._indices, self._handles, strict=True):
            try:
                values.append(float(read(handle)))
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
                return None
            except nvml.NVMLError as error:
                self._faults[f"GPU {index}: no {name}: {error}"] = None
                return None
        return values


@contextmanager
def open_meter(indices: Sequence[int]) -> Iterator[NvmlMeter | None]:
    """A meter of the GPUs `indices` for as long as the context lasts; None without indices or without NVML.

    Raises ValueError for an index that NVML does not have.
    """
    with ExitStack() as held:
        meter = None
        if indices:
            with suppress(NoNvmlError):
                meter = held.enter_context(NvmlMeter(indices))
        yield meter


class EnergyWindow:
    """What the GPUs of `meter` took from the beginning of the context to its end, sampled every `every_s` meanwhile.

    An async context manager; `clock` gives seconds. `energy` is there after the context.
    """

    def __init__(self, meter: NvmlMeter | None, clock: Callable[[], float], *, every_s: float = SAMPLE_EVERY_S) -> None:
        self._meter = meter
        self._clock = clock
        self._every_s = every_s
        self._readings: list[GpuReading] = []
        self._open = AsyncExitStack()
        self._sampling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._meter is not None:
            await self._sample(self._meter)
            tasks = await self._open.enter_async_context(side_tasks())
            self._sampling = tasks.create_task(self._keep_sampling(self._meter), name="energy window")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
        await self._open.__aexit__(kind, error, trace)
        if self._meter is not None and error is None:
            await self._sample(self._meter)

    @property
    def readings(self) -> tuple[GpuReading, ...]:
        """In the order of time; the first and the last are those of the window's ends."""
        return tuple(self._readings)

    @property
    def energy(self) -> Energy | None:
        """None without a meter, without an energy counter, or when the window was shorter than 2 s."""
        return energy_between(self._readings)

    async def _keep_sampling(self, meter: NvmlMeter) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._sample(meter)

    async def _sample(self, meter: NvmlMeter) -> None:
        self._readings.append(await asyncio.to_thread(meter.read, self._clock()))


def energy_between(readings: Sequence[GpuReading]) -> Energy | None:
    """The energy from the first reading to the last; None when they are under 2 s apart or the counter was not read.

    Power and utilization of the first reading are left out: they tell of the time before it.
    """
    if len(readings) < 2:
        return None
    first, last = readings[0], readings[-1]
    window_s = last.at_s - first.at_s
    if window_s < SHORTEST_WINDOW_S or first.energy_j is None or last.energy_j is None:
        return None
    energy_j = last.energy_j - first.energy_j
    if energy_j < 0:  # the driver was loaded anew
        return None
    within = readings[1:]
    power_w = [reading.power_w for reading in within if reading.power_w is not None]
    busy = [reading.utilization for reading in within if reading.utilization is not None]
    return Energy(
        window_s=window_s,
        energy_j=energy_j,
        mean_w=energy_j / window_s,
        max_w=max(power_w, default=None),
        temperature_c=_range([reading.temperature_c for reading in readings]),
        sm_clock_mhz=_range([reading.sm_clock_mhz for reading in readings]),
        utilization=sum(busy) / len(busy) if busy else None,
    )


def _range(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None
