"""Everything that a profile holds, a value to a row: pages/csv.md says what the columns mean."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from profiler.exports.export import Export
from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.profile import ServerProfile
from profiler.profile_parts import LoadPoint, Percentiles

COLUMNS = (
    "profile",
    "model",
    "gpu",
    "gpu_count",
    "quantity",
    "statistic",
    "prompt_tokens",
    "output_tokens",
    "decode_seqs",
    "context_tokens",
    "load",
    "value",
    "unit",
    "n",
)
_PER_OCTAVE = 2
_PERCENTILES = ("p50", "p90", "p95", "p99", "mean")

Row = dict[str, object]


def write_tidy_csv(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """profiles.csv with the rows of all profiles."""
    path = folder / "profiles.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for profile in profiles:
            of = {
                "profile": profile.name,
                "model": profile.model.name,
                "gpu": profile.gpu.type,
                "gpu_count": profile.gpu.count,
            }
            writer.writerows({**of, **row} for row in _rows(profile, settings) if row["value"] is not None)
    return Export(files=(path,))


def _rows(profile: ServerProfile, settings: ExportSettings) -> Iterator[Row]:
    yield from _step_times(profile, settings)
    yield {"quantity": "kv_cache_max_tokens", "value": profile.kv_cache.max_tokens, "unit": "tokens"}
    yield {"quantity": "kv_cache_blocks", "value": profile.kv_cache.num_gpu_blocks, "unit": "blocks"}
    yield {"quantity": "request_overhead", "value": profile.request_overhead_s, "unit": "s"}
    for crowd in profile.crowded_requests:
        of = {"decode_seqs": crowd.decode_seqs, "n": crowd.n}
        yield {"quantity": "request_overhead", **of, "value": crowd.overhead_s, "unit": "s"}
    for name in ("cold_start", "warm_start", "drain", "stop"):
        yield {"quantity": name, "value": getattr(profile.lifecycle, f"{name}_s"), "unit": "s"}
    for level in profile.lifecycle.sleep:
        yield {"quantity": f"sleep level {level.level}", "value": level.sleep_s, "unit": "s"}
        yield {"quantity": f"wake level {level.level}", "value": level.wake_s, "unit": "s"}
    for held in profile.lifecycle.memory:
        yield {"quantity": f"gpu_memory {held.state}", "value": held.gpu_bytes, "unit": "bytes"}
        yield {"quantity": f"host_memory {held.state}", "value": held.host_bytes, "unit": "bytes"}
    if profile.power is not None:
        for field, value in profile.power.model_dump().items():
            name, unit = field.rsplit("_", 1)
            yield {
                "quantity": f"power_{name}" if unit == "w" else f"energy_{name}",
                "value": value,
                "unit": unit.upper(),
            }
    for point in profile.points:
        yield from _load_point(point)
    for theta in profile.theta:
        yield {
            "quantity": "theta",
            "prompt_tokens": theta.prompt_tokens_mean,
            "output_tokens": theta.output_tokens_mean,
            "load": f"open {theta.requests_per_s:g}",
            "value": theta.tokens_per_s,
            "unit": "tokens/s",
            "n": theta.n,
        }


def _step_times(profile: ServerProfile, settings: ExportSettings) -> Iterator[Row]:
    times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
    n = profile.provenance.n
    for tokens in geometric(1, times.largest_prompt_tokens, _PER_OCTAVE):
        yield {
            "quantity": "prefill",
            "statistic": "fitted",
            "prompt_tokens": tokens,
            "value": times.prefill_s(tokens),
            "unit": "s",
            "n": n,
        }
    longest = times.largest_context_tokens
    for context in geometric(min(64, longest), longest, _PER_OCTAVE):
        for seqs in geometric(1, times.largest_seqs(context), _PER_OCTAVE):
            yield {
                "quantity": "decode_iteration",
                "statistic": "fitted",
                "decode_seqs": seqs,
                "context_tokens": context,
                "value": times.decode_s(seqs, context),
                "unit": "s",
                "n": n,
            }


def _load_point(point: LoadPoint) -> Iterator[Row]:
    load = f"closed {point.concurrency}" if point.concurrency is not None else f"open {point.requests_per_s:g}"
    at: Row = {"prompt_tokens": point.prompt_tokens, "output_tokens": point.output_tokens, "load": load}
    for name in ("ttft", "tpot", "e2e"):
        percentiles: Percentiles | None = getattr(point, f"{name}_s")
        if percentiles is not None:
            for statistic in _PERCENTILES:
                value = getattr(percentiles, statistic)
                yield {**at, "quantity": name, "statistic": statistic, "value": value, "unit": "s", "n": percentiles.n}
    for field, unit in (
        ("completed_per_s", "requests/s"),
        ("prompt_tokens_per_s", "tokens/s"),
        ("output_tokens_per_s", "tokens/s"),
        ("goodput_per_s", "requests/s"),
        ("slo_attainment", "fraction"),
    ):
        yield {
            **at,
            "quantity": field.removesuffix("_per_s"),
            "value": getattr(point, field),
            "unit": unit,
            "n": point.completed,
        }
    if point.energy is not None:
        yield {**at, "quantity": "power_mean", "value": point.energy.mean_w, "unit": "W", "n": point.completed}
