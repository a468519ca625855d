"""A run's record of the GPUs it uses, read through NVML while it goes on."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from profiler.gpu_meter import GpuReading, NvmlMeter, open_meter
from results.recorder import RunRecorder
from testbed.live_events import GpuGauge, Listener
from workloads.clock import RunClock


async def record_gpus(
    indices: Sequence[int], recorder: RunRecorder, clock: RunClock, every_s: float, listener: Listener | None = None
) -> None:
    """Read every GPU of `indices` (NVML's numbers) at each multiple of `every_s`, until cancelled.

    Without indices or without NVML there is nothing to record. A GPU that NVML does not have is left out: its servers
    cannot have started. NVML takes up to some ms for each value, so it is read in a thread.
    """
    with ExitStack() as held:
        meters = {}
        for index in indices:
            with suppress(ValueError):
                meters[index] = held.enter_context(open_meter((index,)))
        tick = int(clock.now_s() / every_s)
        while any(meter is not None for meter in meters.values()):
            for index, meter in meters.items():
                if meter is not None:
                    read = await _read(meter, clock.now_s())
                    recorder.gpu_gauge(
                        at_s=read.at_s,
                        gpu=index,
                        power_w=read.power_w,
                        utilisation=read.utilization,
                        memory_used_bytes=read.memory_used_bytes,
                        temperature_c=read.temperature_c,
                        sm_clock_mhz=read.sm_clock_mhz,
                        energy_j=read.energy_j,
                    )
                    if listener is not None:
                        listener(GpuGauge(gpu=index, reading=read))
            tick += 1
            await clock.sleep_until(tick * every_s)


async def _read(meter: NvmlMeter, at_s: float) -> GpuReading:
    """In a thread, which is over when this is, cancelled or not: NVML is not closed under it."""
    reading = asyncio.get_running_loop().run_in_executor(None, meter.read, at_s)
    try:
        return await asyncio.shield(reading)
    finally:
        await asyncio.wait((reading,))
