"""Operator tables of Vidur: pages/vidur.md says what they mean."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from profiler.exports.dimensions import Dimensions
from profiler.exports.export import Export
from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.profile import ServerProfile
from profiler.step_time import prefill_pairs

_MODELS = {"llama-2-70b": "meta-llama/Llama-2-70b-hf", "llama-3.1-8b": "meta-llama/Meta-Llama-3-8B"}
# Vidur's Llama 2 configs say 32768, and it keeps only rows that agree with them.
_VOCABULARIES = {"meta-llama/Llama-2-70b-hf": 32768}
_DEVICES = {"a100-80gb": "a100"}
_MLP = ("attn_pre_proj", "attn_rope", "attn_post_proj", "mlp_up_proj", "mlp_act", "mlp_down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm", "add")
_ATTENTION = ("attn_kv_cache_save", "attn_prefill", "attn_decode")
_KV_STEP = 64
_TOKEN_STEP = 8
"""Vidur rounds the tokens of a batch up to a multiple of 8 and a KV cache to one of 64."""

Rows = dict[Path, list[dict[str, object]]]


def write_vidur(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """mlp.csv and attention.csv per device and model, all_reduce.csv with zeros for tensor parallel servers."""
    rows: Rows = {}
    for profile in profiles:
        times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
        dimensions = settings.dimensions(profile)
        model = settings.model_file(profile, _MODELS)
        device = _DEVICES.get(profile.gpu.type.lower(), profile.gpu.type.lower())
        compute = folder / "compute" / device / model
        vocabulary = _VOCABULARIES.get(model, dimensions.vocab_size)
        rows.setdefault(compute / "mlp.csv", []).extend(_mlp_rows(times, dimensions, vocabulary))
        rows.setdefault(compute / "attention.csv", []).extend(_attention_rows(times, dimensions))
        if profile.engine.tensor_parallel_size > 1:
            network = folder / "network" / device / "all_reduce.csv"
            rows.setdefault(network, []).extend(_all_reduce_rows(times, dimensions))
    for path, content in rows.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(content[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(content)
    return Export(files=tuple(rows))


def _mlp_rows(times: StepTimes, dimensions: Dimensions, vocab_size: int) -> Iterator[dict[str, object]]:
    most = max(times.largest_batch_tokens, times.largest_seqs(1))
    fine = range(_TOKEN_STEP, min(most, 4096) + 1, _TOKEN_STEP)
    coarse = range(4096 + _KV_STEP, most + 1, _KV_STEP)
    for tokens in sorted({1, *fine, *coarse, most}):
        operators = dict.fromkeys((*_MLP, *_NORMS), 0.0) | {"mlp_up_proj": _layers_s(times, tokens)}
        yield {
            **_milliseconds(operators, dimensions.layers),
            "n_head": dimensions.heads,
            "n_kv_head": dimensions.kv_heads,
            "n_embd": dimensions.hidden_size,
            "n_expanded_embd": dimensions.intermediate_size,
            "vocab_size": vocab_size,
            "use_gated_mlp": dimensions.gated,
            "num_tokens": tokens,
            "num_tensor_parallel_workers": times.profile.engine.tensor_parallel_size,
        }


def _layers_s(times: StepTimes, tokens: int) -> float:
    """What an iteration of `tokens` costs without attention and without what only prompts or only decodes cost."""
    step_time = times.profile.step_time
    if tokens <= times.largest_batch_tokens:
        return times.step_s(tokens, 0, 0, 0) - step_time.prefill_overhead_s
    return times.step_s(0, 0, tokens, 0) - step_time.per_sequence_s * tokens


def _attention_rows(times: StepTimes, dimensions: Dimensions) -> Iterator[dict[str, object]]:
    longest = times.largest_prompt_tokens
    chunks = geometric(1, min(longest, times.largest_batch_tokens), 8)
    for cached in [0, *_multiples(_KV_STEP, longest)]:
        for chunk in chunks:
            if cached + chunk <= longest:
                prefill_s = max(0.0, times.step_s(chunk, prefill_pairs(chunk, cached), 0, 0) - _layers_s(times, chunk))
                yield _attention_row(times, dimensions, {"attn_prefill": prefill_s}, 1, chunk, cached)
    for context in [0, *_multiples(_KV_STEP, times.largest_context_tokens)]:
        for seqs in geometric(1, times.largest_seqs(max(1, context)), 8):
            decode_s = max(0.0, times.decode_s(seqs, context) - _layers_s(times, seqs))
            yield _attention_row(times, dimensions, {"attn_decode": decode_s}, seqs, 0, context)


def _multiples(of: int, most: int) -> list[int]:
    """Multiples up to `most`, each the next one or 6 % more."""
    return sorted({of * round(value / of) for value in geometric(of, most // of * of, 12)}) if most >= of else []


def _attention_row(
    times: StepTimes, dimensions: Dimensions, seconds: Mapping[str, float], batch: int, chunk: int, cached: int
) -> dict[str, object]:
    profile = times.profile
    return {
        **_milliseconds(dict.fromkeys(_ATTENTION, 0.0) | dict(seconds), dimensions.layers),
        "n_embd": dimensions.hidden_size,
        "n_q_head": dimensions.heads,
        "n_kv_head": dimensions.kv_heads,
        "block_size": profile.kv_cache.block_size,
        "num_tensor_parallel_workers": profile.engine.tensor_parallel_size,
        "max_model_len": profile.engine.max_model_len or profile.kv_cache.max_tokens,
        "batch_size": batch,
        "prefill_chunk_size": chunk,
        "kv_cache_size": cached,
        "is_prefill": chunk > 0,
        "attention_backend": "AttentionBackend.FLASHINFER",
    }


def _all_reduce_rows(times: StepTimes, dimensions: Dimensions) -> Iterator[dict[str, object]]:
    """Zeros: the measured iterations hold their all-reduces already."""
    workers = times.profile.engine.tensor_parallel_size
    for tokens in geometric(1, times.largest_batch_tokens, 2):
        yield {
            **_milliseconds({"all_reduce": 0.0}, 1),
            "rank": 0,
            "num_workers": workers,
            "size": tokens * dimensions.hidden_size * 2,
            "collective": "all_reduce",
            "devices_per_node": workers,
            "max_devices_per_node": workers,
        }


def _milliseconds(seconds: Mapping[str, float], layers: int) -> dict[str, float]:
    return {f"time_stats.{operator}.median": value * 1e3 / layers for operator, value in seconds.items()}
