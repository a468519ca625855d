"""Whole-iteration data of AIConfigurator's "fpm" forward model: pages/aiconfigurator.md says what they mean."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from profiler.exports.export import Export
from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.gpu_types import GPU_TYPES
from profiler.profile import ServerProfile

SCHEMA_VERSION = 6
_MODELS = {"llama-3.1-8b": "meta-llama/Meta-Llama-3.1-8B"}
_SYSTEMS = {"a100-80gb": "a100_sxm", "h100": "h100_sxm", "h200": "h200_sxm"}
_SM_VERSIONS = {"a100-80gb": 80, "h100": 90, "h200": 90}
_OLDEST_SM_WITH_BF16 = 80
_DEFAULT_LINK_BYTES_PER_S = 32e9  # PCIe 4.0 x16, one way
_INTER_NODE_BYTES_PER_S = 25e9  # 200 Gb/s for each GPU
_P2P_LATENCY_S = 1e-5
_DEFAULT_GPU_MEMORY_UTILIZATION = 0.9
_COORDINATES = ("batch_size", "total_prefill_tokens", "total_kv_read_tokens")
_POLICY = "dynamo_native_single_sample_v1"


def write_aiconfigurator(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """A tree for `--systems-paths DIR/systems`: a YAML per system, a Parquet file and its record per engine version."""
    written: list[Path] = []
    rows: dict[tuple[str, str], list[dict[str, object]]] = {}
    for profile in profiles:
        system = _SYSTEMS.get(profile.gpu.type.lower(), re.sub(r"\W+", "_", profile.gpu.type.lower()))
        version = profile.provenance.engine_version or "testbed"
        path = folder / "systems" / f"{system}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(_system(profile, system, settings), sort_keys=False), encoding="utf-8")
        written.append(path)
        rows.setdefault((system, version), []).extend(_rows(profile, system, version, settings))
    for (system, version), content in rows.items():
        written += _write_pair(folder / "systems" / "data" / system / "vllm" / version, content, system, version)
    return Export(files=tuple(dict.fromkeys(written)))


def _write_pair(folder: Path, rows: list[dict[str, object]], system: str, version: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    table, record = folder / "fpm_forward_perf.parquet", folder / "fpm_forward_perf.metadata.json"
    pq.write_table(pa.Table.from_pylist(rows), table, compression="zstd")
    content = {
        "schema_name": "aic_fpm_forward_perf",
        "schema_version": SCHEMA_VERSION,
        "coordinate_system": "iteration_totals_balanced_v1",
        "measurement_policy": _POLICY,
        "warmup_repeats": 0,
        "measurement_repeats": 1,
        "row_count": len(rows),
        "parquet_sha256": hashlib.sha256(table.read_bytes()).hexdigest(),
        "model_paths": sorted({str(row["model_path"]) for row in rows}),
        "system": system,
        "backend": "vllm",
        "backend_version": version,
    }
    record.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return [table, record]


def _rows(profile: ServerProfile, system: str, version: str, settings: ExportSettings) -> Iterator[dict[str, object]]:
    times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
    run = hashlib.sha256(profile.model_dump_json().encode()).hexdigest()
    for kind, points in (("prefill", _prefill(times)), ("decode", _decode(times))):
        for coordinates, seconds in points:
            yield {
                "cell_id": profile.name,
                "model_path": settings.consumer_model(profile, _MODELS),
                "system": system,
                "backend": "vllm",
                "backend_version": version,
                "weight_quantization": profile.engine.dtype,
                "gemm_quant_mode": profile.engine.dtype,
                "moe_quant_mode": profile.engine.dtype,
                "fmha_quant_mode": profile.engine.dtype,
                "comm_quant_mode": "half",
                "kv_cache_dtype": profile.engine.dtype,
                "parallel_strategy": "tp",
                "tp": profile.engine.tensor_parallel_size,
                **dict.fromkeys(("pp", "dp", "moe_tp", "moe_ep", "cp"), 1),
                **dict.fromkeys(("moe_backend", "attention_backend"), "auto"),
                **dict.fromkeys(("enable_wideep", "enable_eplb"), False),
                "workload_kind": kind,
                **dict(zip(_COORDINATES, coordinates, strict=True)),
                "partition_policy": "balanced_v1",
                "kv_seed_regime": "n/a" if kind == "prefill" else "legacy",
                "latency_ms": seconds * 1e3,
                "measurement_policy": _POLICY,
                **dict.fromkeys(("source_plan_sha256", "collector_attempt_id", "runtime_run_id"), run),
                "runtime_grid_digest": run,
            }


Row = tuple[tuple[int, int, int], float]
"""Batch, new prompt tokens and KV tokens read of an iteration, and its seconds."""


def _prefill(times: StepTimes) -> Iterator[Row]:
    """Equal prompts, each after an equal context; a curve over the tokens for each (batch, context)."""
    most, longest = times.largest_batch_tokens, times.largest_prompt_tokens
    for batch in geometric(1, min(64, times.largest_seqs(1), most), 1):
        for cached in [0, *geometric(min(256, longest), longest, 1)]:
            limit = min(most, batch * (longest - cached))
            if limit < 2 * batch:
                continue
            for tokens in sorted({*geometric(batch, limit, 4), *(t for t in times.bends() if batch <= t <= limit)}):
                each = tokens / batch
                pairs = tokens * (cached + 0.5 * each)
                if times.covers(tokens, pairs, 0, 0):
                    yield (batch, tokens, batch * cached), times.step_s(tokens, pairs, 0, 0)


def _decode(times: StepTimes) -> Iterator[Row]:
    """A curve over KV tokens for each batch; pairs (b, b + 1), between which the consumer interpolates linearly."""
    most, longest = times.largest_seqs(1), times.largest_context_tokens
    held = times.largest_kv_tokens
    ladder = geometric(1, most, 2)
    batches = sorted({*ladder, *(b + 1 for b in ladder if b < most)})
    for below, batch, above in zip([1, *batches], batches, [*batches[1:], batches[-1]], strict=False):
        for kv_tokens in geometric(min(below, held), min(held, above * longest), 3):
            yield (batch, 0, kv_tokens), times.step_s(0, 0, batch, kv_tokens)


def _system(profile: ServerProfile, system: str, settings: ExportSettings) -> dict[str, object]:
    flops_per_s, bytes_per_s = settings.peaks(profile)
    gpu = GPU_TYPES.get(profile.gpu.type.lower())
    memory = profile.gpu.memory_bytes or 0
    limit_w = profile.power.limit_w if profile.power else None
    link = gpu.link_bytes_per_s if gpu else _DEFAULT_LINK_BYTES_PER_S
    utilization = profile.engine.gpu_memory_utilization or _DEFAULT_GPU_MEMORY_UTILIZATION
    return {
        "data_dir": f"data/{system}",
        "gpu": {
            "mem_bw": round(bytes_per_s),
            "mem_bw_empirical_scaling_factor": 0.8,
            "mem_empirical_constant_latency": 0.000003,
            "mem_capacity": memory,
            "bfloat16_tc_flops": round(flops_per_s),
            "power": round(limit_w / profile.gpu.count) if limit_w else 0,
            "sm_version": _SM_VERSIONS.get(profile.gpu.type.lower(), _OLDEST_SM_WITH_BF16),
        },
        "node": {
            "num_gpus_per_node": max(8, profile.gpu.count),
            "inter_node_bw": round(_INTER_NODE_BYTES_PER_S),
            "intra_node_bw": round(link),
            "pcie_bw": round(_DEFAULT_LINK_BYTES_PER_S),
            "p2p_latency": _P2P_LATENCY_S,
        },
        "misc": {
            "nccl_mem": dict.fromkeys((1, 2, 4, 8), 0),
            "other_mem": round(memory * (1 - utilization)),
        },
    }
