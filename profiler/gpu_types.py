"""Public figures of GPU types, as their vendor prints them."""

import re
from dataclasses import dataclass
from difflib import get_close_matches

MIB = 1024**2
CPU = "cpu"
"""The type of a server without a GPU, in profiles and scenarios: it runs on vLLM's CPU build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuType:
    """`flops_per_s`: dense bf16. `memory_bytes`: nvidia-smi's total. `link_bytes_per_s`: NVLink, one way."""

    name: str
    flops_per_s: float
    memory_bytes_per_s: float
    memory_bytes: int
    link_bytes_per_s: float
    tdp_w: float
    source: str


A100_80GB = GpuType(
    name="a100-80gb",
    flops_per_s=312e12,
    memory_bytes_per_s=2.039e12,
    memory_bytes=81920 * MIB,
    link_bytes_per_s=300e9,
    tdp_w=400.0,
    source="NVIDIA A100 Tensor Core GPU datasheet, SXM 80GB column",
)
# The H100 and H200 datasheets print FLOP/s with sparsity, twice the dense figure.
H100 = GpuType(
    name="h100",
    flops_per_s=989.5e12,
    memory_bytes_per_s=3.35e12,
    memory_bytes=81559 * MIB,
    link_bytes_per_s=450e9,
    tdp_w=700.0,
    source="NVIDIA H100 Tensor Core GPU datasheet, SXM column",
)
H200 = GpuType(
    name="h200",
    flops_per_s=989.5e12,
    memory_bytes_per_s=4.8e12,
    memory_bytes=143771 * MIB,
    link_bytes_per_s=450e9,
    tdp_w=700.0,
    source="NVIDIA H200 Tensor Core GPU datasheet, SXM column",
)

GPU_TYPES: dict[str, GpuType] = {gpu.name: gpu for gpu in (A100_80GB, H100, H200)}


def gpu_type(name: str) -> GpuType:
    """The type called `name`, upper or lower case. Raises ValueError naming the nearest ones."""
    gpu = GPU_TYPES.get(name.lower())
    if gpu is None:
        near = get_close_matches(name.lower(), GPU_TYPES, n=3, cutoff=0.3) or sorted(GPU_TYPES)
        raise ValueError(f"GPU type {name!r} is not known; the nearest are {', '.join(near)}")
    return gpu


def gpu_type_name(nvml_name: str) -> str:
    """The short name of what NVML calls `nvml_name`: "h200" for "NVIDIA H200"; one not known gets a plain form."""
    words = re.findall(r"[a-z0-9]+", nvml_name.lower())
    for name in sorted(GPU_TYPES, key=len, reverse=True):
        if all(part in words for part in name.split("-")):
            return name
    return "-".join(word for word in words if word != "nvidia") or "gpu"
