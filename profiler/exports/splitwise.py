"""The table and configs of SplitwiseSim and SageServe: pages/splitwise.md says what they mean."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from profiler.exports.export import Export
from profiler.exports.one_request import one_request
from profiler.exports.settings import ExportError, ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.model_shapes import element_bytes
from profiler.profile import ServerProfile
from profiler.step_time import prefill_pairs

COLUMNS = (
    "model",
    "hardware",
    "prompt_size",
    "batch_size",
    "token_size",
    "peak_power",
    "average_power",
    "prompt_time",
    "token_time",
    "e2e_time",
    "tensor_parallel",
)
_MODELS = {"llama-2-70b": "llama2-70b"}
_HARDWARE = {"h100": "h100-80gb"}
_GPUS_PER_SERVER = 8
_PER_OCTAVE = 6


def write_splitwise(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """One table for all profiles in data/, and configs of each GPU type and model."""
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    written: list[Path] = []
    for profile in profiles:
        times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
        if settings.canonical:
            rows += [_row(profile, settings, *point) for point in _true_axes(times)]
        else:
            context = one_request(times, settings).context_tokens
            rows += [_row(profile, settings, *point) for point in _iteration_axis(times, context)]
            notes.append(
                f"{profile.name}: token_time at x is for x sequences of {context} tokens of context,"
                f" taking turns beyond {times.largest_seqs(context)}"
            )
        written += _configs(profile, folder, settings, notes)
    table = folder / "data" / "perf_model.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Export(files=(table, *dict.fromkeys(written)), notes=tuple(notes))


Point = tuple[int, int, int, float, float]
"""prompt_size, batch_size, token_size, seconds to prefill, seconds per output token."""


def _iteration_axis(times: StepTimes, context: int) -> Iterator[Point]:
    """batch_size 1, prompt_size = tokens of an iteration: the axis on which the loaders interpolate."""
    batch = times.profile.engine.max_num_batched_tokens
    most = max(times.largest_prompt_tokens, times.largest_batch_tokens)
    # A token more than a full batch is another iteration: both sides of the step.
    steps = [at for full in range(batch, most, batch) for at in (full, full + 1)]
    seqs = times.largest_seqs(context)
    for tokens in sorted({*geometric(1, most, _PER_OCTAVE), *times.bends(), *steps, seqs}):
        if tokens > most or not times.covers_prefill(tokens):
            continue
        turns = max(1.0, tokens / seqs)
        yield tokens, 1, 1, times.prefill_s(tokens), turns * times.decode_s(min(tokens, seqs), context)


def _true_axes(times: StepTimes) -> Iterator[Point]:
    """Every prompt size, batch and answer length that fits; token_time is the mean over the answer."""
    longest = times.largest_context_tokens
    lengths = geometric(min(128, max(1, longest // 4)), longest, 1)
    for prompt in lengths:
        for batch in geometric(1, times.largest_seqs(prompt + 2), 1):
            for output in lengths:
                context = prompt + (output + 1) // 2
                fits = prompt + output <= longest and batch <= times.largest_seqs(prompt + output)
                if not fits or prompt > times.largest_prompt_tokens:
                    continue
                iterations = list(_batch_iterations(times, prompt, batch))
                if all(times.covers(new, pairs, 0, 0) for new, pairs in iterations):
                    prefill_s = sum(times.step_s(new, pairs, 0, 0) for new, pairs in iterations)
                    # The mean of an affine function is its value in the middle.
                    yield prompt, batch, output, prefill_s, times.decode_s(batch, context)


def _batch_iterations(times: StepTimes, prompt: int, batch: int) -> Iterator[tuple[int, float]]:
    """Iterations of prompts of one length: as many to each as it holds whole, a longer one cut."""
    whole = times.largest_batch_tokens // prompt
    if whole < 2:
        for _ in range(batch):
            yield from times.iterations(prompt)
        return
    for first in range(0, batch, whole):
        count = min(whole, batch - first)
        yield count * prompt, count * prefill_pairs(prompt)


def _row(
    profile: ServerProfile,
    settings: ExportSettings,
    prompt: int,
    batch: int,
    output: int,
    prefill_s: float,
    token_s: float,
) -> dict[str, object]:
    power = profile.power
    limit_w = power.limit_w if power else None
    peak = power.peak_w / limit_w if power and power.peak_w is not None and limit_w else None
    mean = power.decode_w / limit_w if power and power.decode_w is not None and limit_w else None
    return {
        "model": settings.consumer_model(profile, _MODELS),
        "hardware": _hardware(profile),
        "prompt_size": prompt,
        "batch_size": batch,
        "token_size": output,
        "peak_power": peak,
        "average_power": mean,
        "prompt_time": prefill_s * 1e3,
        "token_time": token_s * 1e3,
        "e2e_time": (prefill_s + (output - 1) * token_s) * 1e3,
        "tensor_parallel": profile.engine.tensor_parallel_size,
    }


def _hardware(profile: ServerProfile) -> str:
    return _HARDWARE.get(profile.gpu.type.lower(), profile.gpu.type.lower())


def _configs(profile: ServerProfile, folder: Path, settings: ExportSettings, notes: list[str]) -> list[Path]:
    hardware, model = _hardware(profile), settings.model_file(profile, _MODELS)
    configs = folder / "configs"
    memory = profile.gpu.memory_bytes
    if memory is None:
        notes.append(f"{profile.name}: no hardware and size configs, the memory of {profile.gpu.type} is not known")
        return []
    written = [
        _yaml(
            configs / "hardware_repo" / "processors" / f"{hardware}.yaml",
            {"_target_": "processor.GPU", "name": hardware, "memory_size": memory},
        )
    ]
    limit_w = profile.power.limit_w if profile.power else None
    written.append(
        _yaml(
            configs / "hardware_repo" / "skus" / f"{hardware}-x{_GPUS_PER_SERVER}.yaml",
            {
                "_target_": "server.Server",
                "name": f"{hardware}-x{_GPUS_PER_SERVER}",
                "tdp": round(limit_w / profile.gpu.count * _GPUS_PER_SERVER) if limit_w else 0,
                "processors": [{"name": hardware, "count": _GPUS_PER_SERVER}],
                "interconnects": {},
            },
        )
    )
    try:
        dimensions = settings.dimensions(profile)
    except ExportError as error:
        notes.append(f"no model configs: {error}")
        return written
    kv_bytes = profile.kv_cache.max_tokens * dimensions.kv_bytes_per_token(profile.engine.dtype)
    written.append(
        _yaml(
            configs / "model_repo" / "architectures" / f"{model}.yaml",
            {
                "_target_": "model.LLMArchitecture",
                "name": model,
                "num_layers": dimensions.layers,
                "hidden_size": dimensions.kv_heads * dimensions.head_dim,
                "num_heads": dimensions.heads,
            },
        )
    )
    written.append(
        _yaml(
            configs / "model_repo" / "sizes" / f"{profile.name}.yaml",
            {
                "_target_": "model.ModelSize",
                "weights": max(0, memory * profile.gpu.count - kv_bytes),
                "dtype_size": element_bytes(profile.engine.dtype),
            },
        )
    )
    return written


def _yaml(path: Path, content: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
