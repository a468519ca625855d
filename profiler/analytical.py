"""A profile computed from public figures: what a model should do on a GPU type that nobody here has measured.

`python -m profiler.analytical` writes the bundled ones again.
"""

from pathlib import Path
from typing import NamedTuple

from profiler.gpu_types import A100_80GB, H100, GpuType
from profiler.model_folder import config_sha256
from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, LLAMA_3_1_8B, LLAMA_3_2_3B, ModelShape, element_bytes
from profiler.profile import ServerProfile
from profiler.profile_parts import EngineArgs, KvCache, Lifecycle, Power, ProfiledGpu, ProfiledModel, Provenance
from profiler.step_time import StepTimeModel

GIB = 1024**3
BLOCK_SIZE = 16  # vLLM's default


class Assumptions(NamedTuple):
    """What public figures do not say. The defaults are round values from common experience, not measurements."""

    flops_efficiency: float = 0.55
    attention_flops_efficiency: float = 0.5
    memory_efficiency: float = 0.75
    link_efficiency: float = 0.7
    overhead_s: float = 1.0e-3
    per_sequence_s: float = 8e-6
    all_reduce_latency_s: float = 10e-6
    reserve_bytes: int = 2 * GIB
    load_bytes_per_s: float = 1e9
    cached_load_bytes_per_s: float = 4e9
    cold_init_s: float = 55.0
    warm_init_s: float = 30.0
    group_init_s: float = 10.0
    stop_s: float = 5.0

    def in_words(self) -> tuple[str, ...]:
        """Each assumption with its reason, for the provenance of a profile."""
        return (
            f"matrix products run at {self.flops_efficiency:.0%} of dense peak: large prefill GEMMs reach 50-65%",
            f"prefill attention runs at {self.attention_flops_efficiency:.0%} of dense peak: softmax shares the units",
            f"weights and KV are read at {self.memory_efficiency:.0%} of peak bandwidth: streaming reaches 70-85%",
            f"{self.overhead_s * 1e3:g} ms per iteration on the host: scheduling and launch, CUDA graphs on",
            f"{self.per_sequence_s * 1e6:g} us per decoding sequence on the host: sampling, detokenisation, streaming",
            f"two all-reduces per layer of {self.all_reduce_latency_s * 1e6:g} us plus their bytes at "
            f"{self.link_efficiency:.0%} of NVLink's one-way rate",
            f"{self.reserve_bytes / GIB:g} GiB per GPU beside weights and activations: CUDA context, NCCL, graphs",
            f"weights load at {self.load_bytes_per_s / 1e9:g} GB/s from a local disk, "
            f"{self.cached_load_bytes_per_s / 1e9:g} GB/s from the page cache",
            f"start-up beside loading: {self.cold_init_s:g} s cold (imports, compilation, graph capture), "
            f"{self.warm_init_s:g} s warm, {self.group_init_s:g} s more for a tensor-parallel group",
            f"{self.stop_s:g} s to stop; sleeping and waking are not modelled",
        )


DEFAULT_ASSUMPTIONS = Assumptions()


def analytical_profile(
    shape: ModelShape,
    gpu: GpuType,
    tensor_parallel_size: int,
    *,
    dtype: str = "bfloat16",
    max_num_seqs: int = 256,
    max_num_batched_tokens: int = 8192,
    max_model_len: int | None = None,
    gpu_memory_utilization: float = 0.9,
    assume: Assumptions = DEFAULT_ASSUMPTIONS,
) -> ServerProfile:
    """The roofline of `shape` on `tensor_parallel_size` GPUs; `max_model_len` None takes all of the model's positions.

    Raises ValueError when the heads cannot be split, or when weights leave no room for one longest sequence.
    """
    if shape.heads % tensor_parallel_size:
        raise ValueError(
            f"{shape.name} has {shape.heads} heads; tensor_parallel_size={tensor_parallel_size} must divide them"
        )
    engine = EngineArgs(
        tensor_parallel_size=tensor_parallel_size,
        dtype=dtype,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        max_model_len=max_model_len or shape.max_positions,
        gpu_memory_utilization=gpu_memory_utilization,
    )
    return ServerProfile(
        name=f"{shape.name}-{gpu.name}" + (f"-tp{tensor_parallel_size}" if tensor_parallel_size > 1 else ""),
        kind="analytical",
        model=ProfiledModel(name=shape.name, config_sha256=config_sha256(shape)),
        gpu=ProfiledGpu(type=gpu.name, count=tensor_parallel_size, memory_bytes=gpu.memory_bytes),
        engine=engine,
        kv_cache=_kv_cache(shape, gpu, engine, gpu_memory_utilization, assume),
        step_time=_step_time(shape, gpu, engine, assume),
        lifecycle=_lifecycle(shape, engine, assume),
        power=Power(limit_w=gpu.tdp_w * tensor_parallel_size),
        provenance=Provenance(
            source=f"roofline from the model's config and: {gpu.source}", assumptions=assume.in_words()
        ),
    )


def _kv_bytes_per_token_and_gpu(shape: ModelShape, engine: EngineArgs) -> float:
    # With fewer KV heads than GPUs, every GPU still holds one.
    heads_per_gpu = max(1.0, shape.kv_heads / engine.tensor_parallel_size)
    return shape.kv_bytes_per_token(engine.dtype) * heads_per_gpu / shape.kv_heads


def _step_time(shape: ModelShape, gpu: GpuType, engine: EngineArgs, assume: Assumptions) -> StepTimeModel:
    gpus = engine.tensor_parallel_size
    flops_per_s = gpu.flops_per_s * assume.flops_efficiency * gpus
    read_bytes_per_s = gpu.memory_bytes_per_s * assume.memory_efficiency
    # Attention's output and the MLP's each need a sum over the GPUs; a ring moves 2 (n-1)/n of the activations
    # (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69(2), 2009), and nothing on one GPU.
    all_reduces = 2 * shape.layers if gpus > 1 else 0
    activation_bytes = shape.hidden_size * element_bytes(engine.dtype)
    link_s = all_reduces * activation_bytes * 2 * (gpus - 1) / gpus / (gpu.link_bytes_per_s * assume.link_efficiency)
    return StepTimeModel.roofline(
        overhead_s=assume.overhead_s + all_reduces * assume.all_reduce_latency_s,
        weights_s=shape.read_bytes_per_step(engine.dtype) / gpus / read_bytes_per_s,
        per_token_s=shape.flops_per_token() / flops_per_s + link_s,
        per_sequence_s=assume.per_sequence_s + shape.flops_per_logits() / flops_per_s,
        per_kv_token_s=_kv_bytes_per_token_and_gpu(shape, engine) / read_bytes_per_s,
        per_prefill_pair_s=shape.flops_per_attention_pair()
        / (gpu.flops_per_s * assume.attention_flops_efficiency * gpus),
    )


def _kv_cache(
    shape: ModelShape, gpu: GpuType, engine: EngineArgs, gpu_memory_utilization: float, assume: Assumptions
) -> KvCache:
    gpus = engine.tensor_parallel_size
    weights = shape.weight_bytes(engine.dtype) / gpus
    # The widest moment of a full prefill batch: the MLP's two halves beside a few copies of the residual stream.
    widths = 2 * shape.intermediate_size / gpus + 4 * shape.hidden_size
    activations = engine.max_num_batched_tokens * widths * element_bytes(engine.dtype)
    logits = 2 * 4 * engine.max_num_seqs * shape.vocab_size  # float32, and a copy for sampling
    free = gpu.memory_bytes * gpu_memory_utilization - weights - activations - logits - assume.reserve_bytes
    blocks = int(free // (BLOCK_SIZE * _kv_bytes_per_token_and_gpu(shape, engine)))
    longest = engine.max_model_len or shape.max_positions
    if blocks * BLOCK_SIZE < longest:
        raise ValueError(
            f"{shape.name} on {gpus} x {gpu.name} leaves {max(0, blocks) * BLOCK_SIZE} tokens of KV cache, fewer than "
            f"max_model_len={longest}; take more GPUs or a shorter context"
        )
    return KvCache(num_gpu_blocks=blocks, block_size=BLOCK_SIZE, max_tokens=blocks * BLOCK_SIZE)


def _lifecycle(shape: ModelShape, engine: EngineArgs, assume: Assumptions) -> Lifecycle:
    weights = shape.weight_bytes(engine.dtype)
    group_s = assume.group_init_s if engine.tensor_parallel_size > 1 else 0.0
    return Lifecycle(
        cold_start_s=round(assume.cold_init_s + group_s + weights / assume.load_bytes_per_s, 1),
        warm_start_s=round(assume.warm_init_s + group_s + weights / assume.cached_load_bytes_per_s, 1),
        stop_s=assume.stop_s,
    )


def bundled_analytical_profiles() -> tuple[ServerProfile, ...]:
    """The analytical profiles that come with this package: four models on two GPU types."""
    return tuple(
        analytical_profile(shape, gpu, gpus)
        for shape, gpus in ((LLAMA_2_70B, 4), (BLOOM_176B, 8), (LLAMA_3_1_8B, 1), (LLAMA_3_2_3B, 1))
        for gpu in (A100_80GB, H100)
    )


if __name__ == "__main__":
    for profile in bundled_analytical_profiles():
        profile.save(Path(__file__).parent / "profiles" / f"{profile.name}.json")
