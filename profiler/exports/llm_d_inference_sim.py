"""Latency configs of llm-d-inference-sim: pages/llm-d-inference-sim.md says what they mean."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from profiler.exports.export import Export
from profiler.exports.linear_fit import fit_linear, in_words
from profiler.exports.one_request import one_request
from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.profile import ServerProfile

_BLOCK_SIZES = (8, 16, 32, 64, 128)
_POINTS_PER_OCTAVE = 2


def write_llm_d_inference_sim(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """NAME.yaml for each profile."""
    written: list[Path] = []
    notes: list[str] = []
    for profile in profiles:
        path = folder / f"{profile.name}.yaml"
        path.write_text(yaml.safe_dump(_config(profile, settings, notes), sort_keys=False), encoding="utf-8")
        written.append(path)
    return Export(files=tuple(written), notes=tuple(notes))


def _config(profile: ServerProfile, settings: ExportSettings, notes: list[str]) -> dict[str, object]:
    times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
    request = one_request(times, settings)
    overhead_s = profile.request_overhead_s or 0.0
    prompts = geometric(max(1, request.prompt_tokens // 8), _twice(request.prompt_tokens, times), _POINTS_PER_OCTAVE)
    (fixed_s, per_token_s), ttft_errors = fit_linear(
        [[1.0] * len(prompts), prompts], [overhead_s + times.prefill_s(tokens) for tokens in prompts]
    )
    most = times.largest_seqs(request.context_tokens)
    seqs = geometric(1, most, _POINTS_PER_OCTAVE)
    # ITL grows linearly from 1 request to max-num-seqs: so does the consumer's factor under load.
    (idle_s, per_other_s), itl_errors = fit_linear(
        [[1.0] * len(seqs), [count - 1.0 for count in seqs]],
        [times.decode_s(count, request.context_tokens) for count in seqs],
    )
    notes.append(
        f"{profile.name}: TTFT of prompts of {prompts[0]} to {prompts[-1]} tokens, {in_words(ttft_errors)};"
        f" ITL of 1 to {most} sequences of {request.context_tokens} tokens, {in_words(itl_errors)}"
    )
    config: dict[str, object] = {
        "model": settings.consumer_model(profile, {}),
        "mode": "random",
        "max-num-seqs": most,
        "max-model-len": profile.engine.max_model_len or profile.kv_cache.max_tokens,
        "tensor-parallel-size": profile.engine.tensor_parallel_size,
        "latency-calculator": "per-token",
        "prefill-overhead": _duration(fixed_s),
        "prefill-time-per-token": _duration(per_token_s),
        "inter-token-latency": _duration(idle_s),
        "time-factor-under-load": round(1.0 + per_other_s * (most - 1) / idle_s, 4),
        "kv-cache-size": profile.kv_cache.num_gpu_blocks,
    }
    if profile.kv_cache.block_size in _BLOCK_SIZES:
        config["block-size"] = profile.kv_cache.block_size
    else:
        config["kv-cache-size"] = profile.kv_cache.max_tokens // 16
        notes.append(f"{profile.name}: blocks of {profile.kv_cache.block_size} are unknown there; counted in 16s")
    if profile.lifecycle.cold_start_s is not None:
        config["startup-duration"] = _duration(profile.lifecycle.cold_start_s)
    else:
        notes.append(f"{profile.name}: no startup-duration, its cold start was not measured")
    return config


def _twice(tokens: int, times: StepTimes) -> int:
    return min(2 * tokens, times.largest_prompt_tokens)


def _duration(seconds: float) -> str:
    """Go's notation, to the nanosecond."""
    return f"{seconds * 1e6:.3f}us"
