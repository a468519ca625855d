"""Coefficients of the inferno optimizer and its queue analyzer: pages/inferno.md says what they mean."""

import json
from collections.abc import Sequence
from pathlib import Path

from profiler.exports.export import Export
from profiler.exports.linear_fit import fit_linear, in_words
from profiler.exports.one_request import OneRequest, one_request
from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes, geometric
from profiler.profile import ServerProfile
from profiler.step_time import prefill_pairs

_POINTS_PER_OCTAVE = 2
_QUEUE_PER_BATCH = 10
"""Requests that may wait for each that runs: the consumer's own default."""


def write_inferno(profiles: Sequence[ServerProfile], folder: Path, settings: ExportSettings) -> Export:
    """model-data.json with an entry per profile, and queue-analysis-NAME.json for each."""
    entries: list[dict[str, object]] = []
    written: list[Path] = [folder / "model-data.json"]
    notes: list[str] = []
    for profile in profiles:
        times = StepTimes(profile, extrapolate=settings.extrapolate, max_context_tokens=settings.max_context_tokens)
        request = one_request(times, settings)
        most = times.largest_seqs(request.prompt_tokens + request.output_tokens)
        entries.append(_model_data(times, request, most, settings, notes))
        path = folder / f"queue-analysis-{profile.name}.json"
        _dump(path, _problem(times, request, most, notes))
        written.append(path)
    _dump(written[0], {"models": entries})
    return Export(files=tuple(written), notes=tuple(notes))


def _dump(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _model_data(
    times: StepTimes, request: OneRequest, most: int, settings: ExportSettings, notes: list[str]
) -> dict[str, object]:
    """itl = alpha + beta * batch; prefill = gamma + delta * tokens * batch; milliseconds."""
    profile = times.profile
    seqs = geometric(1, most, _POINTS_PER_OCTAVE)
    (alpha, beta), itl_errors = fit_linear(
        [[1.0] * len(seqs), seqs], [1e3 * times.decode_s(count, request.context_tokens) for count in seqs]
    )
    overhead_s = profile.request_overhead_s or 0.0
    together = geometric(1, max(1, min(most, times.largest_batch_tokens // request.prompt_tokens)), _POINTS_PER_OCTAVE)
    prompts = geometric(max(1, request.prompt_tokens // 8), request.prompt_tokens, _POINTS_PER_OCTAVE)
    batches = [
        (tokens, count)
        for tokens in prompts
        for count in together
        if times.covers(tokens * count, count * prefill_pairs(tokens), 0, 0) or count == 1
    ]
    (gamma, delta), ttft_errors = fit_linear(
        [[1.0] * len(batches), [tokens * count for tokens, count in batches]],
        [1e3 * (overhead_s + _together_s(times, tokens, count)) for tokens, count in batches],
    )
    notes.append(
        f"{profile.name}: alpha, beta over 1 to {most} sequences of {request.context_tokens} tokens,"
        f" {in_words(itl_errors)}; gamma, delta over {together[0]} to {together[-1]} prompts of {prompts[0]} to"
        f" {prompts[-1]} tokens, {in_words(ttft_errors)}"
    )
    return {
        "name": settings.consumer_model(profile, {}),
        "acc": profile.gpu.type,
        "accCount": profile.gpu.count,
        "maxBatchSize": most,
        "atTokens": request.prompt_tokens + request.output_tokens,
        "decodeParms": {"alpha": alpha, "beta": beta},
        "prefillParms": {"gamma": gamma, "delta": delta},
    }


def _together_s(times: StepTimes, tokens: int, count: int) -> float:
    """Equal prompts prefilled in one iteration, or a longer one alone in several."""
    if tokens * count > times.largest_batch_tokens:
        return count * times.prefill_s(tokens)
    return times.step_s(tokens * count, count * prefill_pairs(tokens), 0, 0)


def _problem(times: StepTimes, request: OneRequest, most: int, notes: list[str]) -> dict[str, object]:
    """iteration = alpha + beta * new tokens + gamma * KV tokens; milliseconds."""
    profile = times.profile
    rows: list[tuple[float, float, float]] = []
    for seqs in geometric(1, most, _POINTS_PER_OCTAVE):
        for context in geometric(max(1, request.context_tokens // 4), request.context_tokens, 1):
            rows.append((seqs, seqs * context, times.decode_s(seqs, context)))
    for tokens in geometric(max(1, request.prompt_tokens // 8), request.prompt_tokens, _POINTS_PER_OCTAVE):
        # The consumer charges a prompt gamma for each of its tokens once.
        rows.append((tokens, tokens, times.prefill_s(tokens)))
    (alpha, beta, gamma), errors = fit_linear(
        [[1.0] * len(rows), [new for new, _, _ in rows], [kv for _, kv, _ in rows]],
        [1e3 * seconds for _, _, seconds in rows],
    )
    notes.append(f"{profile.name}: alpha, beta, gamma of the queue analysis over the same ranges, {in_words(errors)}")
    return {
        "RPS": 1.0,
        "maxBatchSize": most,
        "avgInputTokens": request.prompt_tokens,
        "avgOutputTokens": request.output_tokens,
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "maxQueueSize": _QUEUE_PER_BATCH * most,
    }
