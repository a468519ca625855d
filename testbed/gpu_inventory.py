"""The machine's NVIDIA GPUs, through NVML."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as NVML numbers it (by bus), which is what CUDA_DEVICE_ORDER=PCI_BUS_ID means."""

    index: int
    name: str
    memory_total_bytes: int
    memory_free_bytes: int
    driver_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInventory:
    """`reason` says why there are no `gpus`; "" when there are."""

    gpus: tuple[Gpu, ...]
    reason: str = ""


def gpu_inventory() -> GpuInventory:
    """What NVML sees now. Never raises: a machine without GPUs is no fault."""
    try:
        import pynvml
    except ImportError:
        return GpuInventory(gpus=(), reason="the Python package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return GpuInventory(gpus=(), reason=f"NVML does not start: {error}")
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            gpus.append(
                Gpu(
                    index=index,
                    name=_text(pynvml.nvmlDeviceGetName(handle)),
                    memory_total_bytes=int(memory.total),
                    memory_free_bytes=int(memory.free),
                    driver_version=driver,
                )
            )
    except pynvml.NVMLError as error:
        return GpuInventory(gpus=(), reason=f"NVML cannot read the GPUs: {error}")
    finally:
        pynvml.nvmlShutdown()
    return GpuInventory(gpus=tuple(gpus), reason="" if gpus else "NVML sees no GPU")


def gpus_of_server(inventory: GpuInventory, indices: Sequence[int]) -> tuple[Gpu, ...]:
    """The GPUs `indices` that one server is to take together, in that order.

    Raises ValueError when one is not there or named twice, or when they are not all of one model.
    """
    by_index = {gpu.index: gpu for gpu in inventory.gpus}
    if missing := [index for index in indices if index not in by_index]:
        have = f"have {', '.join(map(str, by_index))}" if by_index else f"there is none ({inventory.reason})"
        raise ValueError(f"GPU {missing[0]}: no such GPU; {have}")
    if len(set(indices)) < len(indices):
        raise ValueError(f"GPUs {', '.join(map(str, indices))}: one is named twice; name each once")
    chosen = tuple(by_index[index] for index in indices)
    if len(models := sorted({gpu.name for gpu in chosen})) > 1:
        raise ValueError(f"a server takes GPUs of one model, given {' and '.join(models)}; choose other indices")
    return chosen


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
