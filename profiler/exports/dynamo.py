"""Interpolation data of Dynamo's planner: pages/dynamo.md says what they mean."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiler.exports.export import Export
from profiler.exports.settings import ExportError, ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.profile import ServerProfile

_FEWEST_ISL = 4
"""A cubic through fewer points is none."""


def write_dynamo(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """Two files for a profile; several profiles get a folder each."""
    written: list[Path] = []
    for profile in profiles:
        times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
        into = folder / profile.name if len(profiles) > 1 else folder
        written.append(_save(into / "selected_prefill_interpolation", _prefill(times)))
        written.append(_save(into / "selected_decode_interpolation", _decode(times)))
    return Export(files=tuple(written))


def _save(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "raw_data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the arrays for its own flag
    return path


def _prefill(times: StepTimes) -> dict[str, np.ndarray]:
    longest = times.largest_prompt_tokens
    tokens = geometric(min(32, max(1, longest // 8)), longest, 6)
    if len(tokens) < _FEWEST_ISL:
        raise ExportError(
            f"profile {times.profile.name} covers prompts of up to {longest} tokens, too few for a cubic;"
            " measure longer prompts, or extrapolate"
        )
    overhead_s = times.profile.request_overhead_s or 0.0
    ttft_s = np.array([times.prefill_s(isl) + overhead_s for isl in tokens])
    isl = np.array(tokens, dtype=np.int64)
    return {
        "prefill_isl": isl,
        "prefill_ttft": ttft_s * 1e3,
        "prefill_thpt_per_gpu": isl / ttft_s / times.profile.gpu.count,
    }


def _decode(times: StepTimes) -> dict[str, np.ndarray]:
    held = times.profile.kv_cache.max_tokens
    longest = times.largest_context_tokens
    points = [
        (seqs * context / held, context, times.decode_s(seqs, context), seqs)
        for context in geometric(min(16, max(1, longest // 8)), longest, 2)
        for seqs in geometric(1, times.largest_seqs(context), 3)
    ]
    usage, contexts, itl_s, seqs = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    return {
        "x_kv_usage": usage,
        "y_context_length": contexts,
        "z_itl": itl_s * 1e3,
        "z_thpt_per_gpu": seqs / itl_s / times.profile.gpu.count,
        "max_kv_tokens": np.array([held], dtype=np.int64),
    }
