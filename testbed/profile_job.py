"""What `testbed profile MODEL` is to measure: a model, how it is served, on what."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from profiler.gpu_types import CPU, gpu_type_name
from profiler.measure import Subject
from profiler.plan import MeasurementPlan
from profiler.profile_parts import EngineArgs, ProfiledGpu
from testbed.bad_input import BadInput
from testbed.cpu_build import cpu_defaults
from testbed.gpu_inventory import Gpu, GpuInventory, gpu_inventory, gpus_of_server
from testbed.model_argument import ModelToProfile, Weights
from testbed.server import ServerSpec

# On vLLM's CPU build, where nothing else was asked for: what two cores get through in minutes.
_CPU_MAX_NUM_SEQS, _CPU_MAX_NUM_BATCHED_TOKENS, _CPU_MAX_MODEL_LEN = 64, 2048, 2048
# On GPUs, where nothing else was asked for.
MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS = 256, 8192
DTYPE = "bfloat16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a model is to be served, in vLLM's argument names; None leaves the profiler's default. `env`: variables that
    the server is given beside."""

    tensor_parallel_size: int = 1
    dtype: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    extra_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileJob:
    """One server to measure. `gpus` empty: the CPU build. `name` None: made of model, GPU and tensor parallelism."""

    model: ModelToProfile
    gpus: tuple[Gpu, ...]
    serving: Serving
    weights: Weights
    plan: MeasurementPlan
    name: str | None = None

    @property
    def gpu_type(self) -> str:
        return gpu_type_of(self.gpus)

    def spec(self) -> ServerSpec:
        """The server to start."""
        serving = self.serving
        cpu = not self.gpus
        spec = ServerSpec(
            model=self.model.name,
            region="profile",
            gpu_type=self.gpu_type,
            gpus=serving.tensor_parallel_size,
            model_path=self.model.path,
            tensor_parallel_size=serving.tensor_parallel_size,
            max_model_len=serving.max_model_len or (_CPU_MAX_MODEL_LEN if cpu else None),
            max_num_seqs=serving.max_num_seqs or (_CPU_MAX_NUM_SEQS if cpu else MAX_NUM_SEQS),
            max_num_batched_tokens=serving.max_num_batched_tokens
            or (_CPU_MAX_NUM_BATCHED_TOKENS if cpu else MAX_NUM_BATCHED_TOKENS),
            gpu_memory_utilization=serving.gpu_memory_utilization,
            kv_cache_memory_bytes=serving.kv_cache_memory_bytes,
            dtype=serving.dtype,
            load_format="dummy" if self.weights == "dummy" else "auto",
            extra_args=serving.extra_args,
            env=dict(serving.env),
        )
        return cpu_defaults(spec) if cpu else replace(spec, dtype=spec.dtype or DTYPE)

    def subject(self) -> Subject:
        """What the profile will say of the server, as far as it is known before it runs."""
        spec = self.spec()
        gpus = spec.tensor_parallel_size
        suffix = f"-tp{gpus}" if gpus > 1 else ""
        return Subject(
            name=self.name or f"{self.model.name.replace('/', '--')}-{self.gpu_type}{suffix}",
            model=self.model.name,
            gpu=ProfiledGpu(
                type=self.gpu_type,
                count=gpus,
                memory_bytes=self.gpus[0].memory_total_bytes if self.gpus else None,
            ),
            engine=EngineArgs(
                tensor_parallel_size=gpus,
                dtype=spec.dtype or "auto",
                max_num_seqs=spec.max_num_seqs,
                max_num_batched_tokens=spec.max_num_batched_tokens,
                max_model_len=spec.max_model_len,
                gpu_memory_utilization=spec.gpu_memory_utilization,
                kv_cache_memory_bytes=spec.kv_cache_memory_bytes,
                extra_args=spec.extra_args,
                env=spec.env,
            ),
            weights=self.weights,
            config_sha256=self.model.config_sha256,
            driver=self.gpus[0].driver_version if self.gpus else None,
            date=f"{datetime.now(UTC):%Y-%m-%d}",
        )


def gpu_type_of(gpus: Sequence[Gpu]) -> str:
    """The short name of the GPUs' type; "cpu" without any."""
    return gpu_type_name(gpus[0].name) if gpus else CPU


def chosen_gpus(asked: str | None, tensor_parallel_size: int) -> tuple[Gpu, ...]:
    """The GPUs that `--gpus` asks for; none for "cpu", or when nothing was asked for and the machine has none.

    Raises BadInput for numbers that are not there, or not as many as `tensor_parallel_size`.
    """
    inventory = gpu_inventory()
    if asked == CPU or (asked is None and not inventory.gpus):
        if tensor_parallel_size > 1:
            raise BadInput(f"--tensor-parallel-size {tensor_parallel_size} wants as many GPUs; there is none to use")
        return ()
    parts = asked.split(",") if asked is not None else _first_visible(inventory, tensor_parallel_size)
    if not all(part.strip().isdigit() for part in parts):
        raise BadInput(f"--gpus {asked}; must be numbers, as in 0,1, or cpu")
    if len(parts) != tensor_parallel_size:
        raise BadInput(f"--gpus: {len(parts)} GPUs for --tensor-parallel-size {tensor_parallel_size}; give as many")
    try:
        return gpus_of_server(inventory, [int(part) for part in parts])
    except ValueError as error:
        raise BadInput(f"--gpus: {error}") from error


def _first_visible(inventory: GpuInventory, count: int) -> list[str]:
    """The first GPUs of those that CUDA_VISIBLE_DEVICES leaves to us: the others may be somebody else's."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [str(gpu.index) for gpu in inventory.gpus[:count]]
    parts = [part.strip() for part in visible.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise BadInput(f"CUDA_VISIBLE_DEVICES={visible!r} names no GPU by its number; choose with --gpus")
    return parts[:count]


def work_folder(out: Path) -> Path:
    """Where a profile that will be written to `out` keeps what it has found so far."""
    return out.with_name(out.stem + ".work")
