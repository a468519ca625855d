"""How to start a server on vLLM's CPU build."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from testbed.server import ServerSpec

# bfloat16 kills the worker on some CPUs (AMX, when nobody asked the kernel for it).
DTYPE = "float32"
KV_CACHE_MEMORY_BYTES = 64 * 2**20
# One process per server instead of two, and no thread pool that fights with a neighbour's over the cores.
_EXECUTOR = ("--distributed-executor-backend", "uni")
_ENV: Mapping[str, str] = MappingProxyType({"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": "1"})


def cpu_defaults(spec: ServerSpec) -> ServerSpec:
    """`spec` with what the CPU build needs wherever `spec` leaves it open; what it says itself stays."""
    chosen = any(argument.partition("=")[0] == _EXECUTOR[0] for argument in spec.extra_args)
    return replace(
        spec,
        dtype=spec.dtype or DTYPE,
        kv_cache_memory_bytes=spec.kv_cache_memory_bytes or KV_CACHE_MEMORY_BYTES,
        extra_args=spec.extra_args if chosen else (*spec.extra_args, *_EXECUTOR),
        env={**_ENV, **spec.env},
    )
