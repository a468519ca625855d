"""The machine's NVIDIA GPUs, through NVML."""

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


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
