"""Hardware, coefficients and lifecycle for BLIS (inference-sim): pages/blis.md says what they mean."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from profiler.exports.blis_basis import BlisBasis
from profiler.exports.export import Export
from profiler.exports.linear_fit import fit_linear, in_words
from profiler.exports.one_request import OneRequest, one_request
from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.fit_quality import errors_of
from profiler.model_shapes import element_bytes
from profiler.profile import ServerProfile
from profiler.profile_parts import Errors

_GIB = 1024**3


def write_blis(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """hardware_config.json with an entry per profile; for each a model folder, a lifecycle policy and a command."""
    hardware: dict[str, dict[str, float]] = {}
    notes: list[str] = []
    written: list[Path] = [folder / "hardware_config.json"]
    for profile in profiles:
        times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
        grid = _Grid(times, one_request(times, settings))
        dimensions = settings.dimensions(profile)
        basis = BlisBasis(
            dimensions=dimensions,
            element_bytes=element_bytes(profile.engine.dtype),
            tensor_parallel_size=profile.engine.tensor_parallel_size,
        )
        peak_flops_per_s, _ = settings.peaks(profile)
        calibration, roofline_errors = _roofline(grid, basis, peak_flops_per_s)
        calibration["MemoryGiB"] = (profile.gpu.memory_bytes or 0) / _GIB
        hardware[profile.name] = calibration
        betas, trained_errors = _betas(grid, basis, calibration)
        better = "roofline" if roofline_errors.mape <= trained_errors.mape else "trained-physics"
        notes.append(
            f"{profile.name}: over {grid.in_words()}: roofline, {in_words(roofline_errors)};"
            f" trained-physics, {in_words(trained_errors)}; {better} is in run-{profile.name}.args"
        )
        config = folder / "models" / profile.name / "config.json"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(json.dumps(dimensions.config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        command = folder / f"run-{profile.name}.args"
        command.write_text(_arguments(profile, None if better == "roofline" else betas), encoding="utf-8")
        written += [config, command]
        if profile.lifecycle.cold_start_s is not None:
            policy = folder / f"lifecycle-{profile.name}.yaml"
            policy.write_text(_lifecycle(profile.lifecycle.cold_start_s), encoding="utf-8")
            written.append(policy)
        else:
            notes.append(f"{profile.name}: no lifecycle file, its cold start was not measured")
    written[0].write_text(json.dumps(hardware, indent=2) + "\n", encoding="utf-8")
    return Export(files=tuple(written), notes=tuple(notes))


class _Grid:
    """Where the coefficients are fitted: prompts of one iteration, and decodes around the request's context."""

    def __init__(self, times: StepTimes, request: OneRequest) -> None:
        longest = min(times.largest_prompt_tokens, times.largest_batch_tokens)
        self.times = times
        self.prompts = geometric(max(1, min(request.prompt_tokens, longest) // 8), longest, 2)
        contexts = geometric(max(1, request.context_tokens // 4), request.context_tokens, 1)
        self.decodes = [
            (seqs, context) for context in contexts for seqs in geometric(1, times.largest_seqs(context), 1)
        ]
        self.prefill_s = [times.prefill_s(tokens) for tokens in self.prompts]
        self.decode_s = [times.decode_s(*point) for point in self.decodes]

    def in_words(self) -> str:
        """The ranges, for a note."""
        return (
            f"prompts of {self.prompts[0]} to {self.prompts[-1]} tokens and 1 to"
            f" {max(seqs for seqs, _ in self.decodes)} sequences of {self.decodes[0][1]} to"
            f" {self.decodes[-1][1]} tokens"
        )


def _roofline(grid: _Grid, basis: BlisBasis, peak_flops_per_s: float) -> tuple[dict[str, float], Errors]:
    """The larger of operations and bytes over a rate; each rate is fitted where it should bind."""
    flops = [basis.roofline_flops(tokens, 0) for tokens in grid.prompts]
    read = [
        basis.roofline_weight_bytes() + seqs * basis.roofline_request_bytes(1, context)
        for seqs, context in grid.decodes
    ]
    (s_per_flop,), _ = fit_linear([flops], grid.prefill_s)
    (s_per_byte,), _ = fit_linear([read], grid.decode_s)
    weights = basis.roofline_weight_bytes()
    predicted = [
        max(s_per_flop * count, s_per_byte * (weights + basis.roofline_request_bytes(tokens, 0)))
        for tokens, count in zip(grid.prompts, flops, strict=True)
    ] + [
        max(s_per_byte * count, s_per_flop * seqs * basis.roofline_flops(1, context))
        for (seqs, context), count in zip(grid.decodes, read, strict=True)
    ]
    observed = [*grid.prefill_s, *grid.decode_s]
    errors = errors_of(np.asarray(predicted, dtype=np.float64) / np.asarray(observed, dtype=np.float64) - 1.0)
    mfu = 1.0 / (s_per_flop * peak_flops_per_s)
    calibration = {
        "TFlopsPeak": peak_flops_per_s / 1e12,
        "TFlopsFP8": 0,
        "BwPeakTBs": 1.0 / s_per_byte / 1e12,
        "mfuPrefill": mfu,
        "mfuDecode": mfu,
    }
    return calibration, errors


def _betas(grid: _Grid, basis: BlisBasis, calibration: dict[str, float]) -> tuple[list[float], Errors]:
    """The ten coefficients of trained-physics; a term that the fit does not want is 0. Times in microseconds."""
    rows = [basis.trained_terms(prompt=tokens, seqs=0, context=0) for tokens in grid.prompts]
    rows += [basis.trained_terms(prompt=0, seqs=seqs, context=context) for seqs, context in grid.decodes]
    requests = [1.0] * len(grid.prompts) + [float(seqs) for seqs, _ in grid.decodes]
    flops_per_us, bytes_per_us = calibration["TFlopsPeak"] * 1e6, calibration["BwPeakTBs"] * 1e6
    columns = [
        [row["prefill_flops"] / flops_per_us for row in rows],
        [row["weight_bytes"] / bytes_per_us for row in rows],
        [row["all_reduce_bytes"] / bytes_per_us for row in rows],
        requests,
        [1.0] * len(rows),
        [row["prefill_bytes"] / bytes_per_us for row in rows],
        [row["decode_bytes"] / bytes_per_us for row in rows],
    ]
    observed = [1e6 * seconds for seconds in (*grid.prefill_s, *grid.decode_s)]
    (compute, weights, reduce, request, step, prompt_kv, decode_kv), errors = fit_linear(columns, observed)
    # Order of BLIS: prefill compute, decode compute, weights, all-reduce, per layer, per request, per step, per MoE
    # layer, prefill KV, decode KV. Per layer and decode compute say nothing that the others do not.
    return [compute, 0.0, weights, reduce, 0.0, request, step, 0.0, prompt_kv, decode_kv], errors


def _arguments(profile: ServerProfile, betas: Sequence[float] | None) -> str:
    """Arguments of `blis run`, one to a line; without `betas` for its roofline, which takes no coefficients."""
    arguments: dict[str, object] = {
        "--model": profile.model.name,
        "--model-config-folder": f"models/{profile.name}",
        "--hardware-config": "hardware_config.json",
        "--hardware": profile.name,
        "--tp": profile.engine.tensor_parallel_size,
        "--latency-model": "roofline" if betas is None else "trained-physics",
        "--total-kv-blocks": profile.kv_cache.num_gpu_blocks,
        "--block-size-in-tokens": profile.kv_cache.block_size,
        "--max-num-seqs": profile.engine.max_num_seqs,
        "--max-num-batched-tokens": profile.engine.max_num_batched_tokens,
        "--max-model-len": profile.engine.max_model_len or profile.kv_cache.max_tokens,
    }
    if betas is not None:
        overhead_us = 1e6 * (profile.request_overhead_s or 0.0)
        arguments["--alpha-coeffs"] = f"{overhead_us:.6g},0,0"
        arguments["--beta-coeffs"] = ",".join(f"{beta:.8g}" for beta in betas)
    return "".join(f"{name}={value}\n" for name, value in arguments.items())


def _lifecycle(cold_start_s: float) -> str:
    content = {
        "instance_lifecycle": {
            "loading_delay": {"mean": cold_start_s, "stddev": 0.0},
            "warm_start_initial_instances": True,
        }
    }
    return yaml.safe_dump(content, sort_keys=False)
