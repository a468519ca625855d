"""A server profile as tables: what it is, holds, costs, and how sure that is. What was not measured says so."""

from collections.abc import Sequence

from profiler.idle_latency import Beyond, batch_is_beyond, first_token_s, inter_token_s, prompt_is_beyond
from profiler.profile import ServerProfile
from profiler.profile_parts import Errors, Lifecycle
from profiler.step_time import StepTimeModel
from results.load_tables import load_tables, power_table, theta_table
from results.quantities import count, data_size, duration, percent, three_figures
from results.text_table import NOT_MEASURED, NOT_STATED, TextTable

KIND_IN_WORDS = {
    "measured": "measured on the hardware named here",
    "extrapolated from layers": "measured on copies of the model cut to fewer layers, and extended to all of them",
    "imported": "taken over from another tool's file",
    "fitted from published figures": "fitted to figures that others published; not measured here",
    "analytical": "a roofline from public figures and assumptions; nothing of it was measured",
}
PROMPT_TOKENS = (128, 512, 2048, 8192)
DECODE_SEQS = (1, 8, 32, 128, 256)
CONTEXT_TOKENS = (512, 2048)
_BEYOND: dict[Beyond, str] = {"domain": "outside", "server": "does not fit"}


def profile_tables(profile: ServerProfile) -> tuple[TextTable, ...]:
    """All there is to say, most general first."""
    return (
        _identity(profile),
        _origin(profile),
        _kv_cache(profile),
        _lifecycle(profile),
        _memory(profile),
        _step_time(profile),
        *_crowded_requests(profile),
        _fit(profile),
        _domain(profile),
        *_predictions(profile),
        theta_table(profile),
        *load_tables(profile),
        power_table(profile),
    )


def identity(profile: ServerProfile) -> dict[str, str]:
    """What makes two profiles different things, by name; in the order in which one asks."""
    engine, made = profile.engine, profile.provenance
    memory = profile.gpu.memory_bytes
    version = " ".join(part for part in (made.engine, made.engine_version) if part)
    return {
        "model": profile.model.name,
        "GPU": f"{profile.gpu.count} x {profile.gpu.type}" + (f", {data_size(memory)} each" if memory else ""),
        "engine": version or NOT_STATED,
        "dtype": engine.dtype,
        "weights": made.weights or NOT_STATED,
        "kind": profile.kind,
        "tensor_parallel_size": count(engine.tensor_parallel_size),
        "max_num_seqs": count(engine.max_num_seqs),
        "max_num_batched_tokens": count(engine.max_num_batched_tokens),
        "max_model_len": _or_default(engine.max_model_len),
        "gpu_memory_utilization": _or_default(engine.gpu_memory_utilization),
        "kv_cache_memory_bytes": _or_default(engine.kv_cache_memory_bytes),
        "model config": (profile.model.config_sha256 or NOT_STATED)[:12],
        "driver": made.driver or NOT_STATED,
        "date": made.date or NOT_STATED,
    }


def _lifecycle(profile: ServerProfile) -> TextTable:
    """How long each change of state takes."""
    rows = tuple((name, _seconds(value)) for name, value in lifecycle_times(profile.lifecycle).items())
    return TextTable(title="Lifecycle", columns=("", ""), rows=rows)


def lifecycle_times(life: Lifecycle) -> dict[str, float | None]:
    """Seconds by name of the change of state."""
    times = {"cold start": life.cold_start_s, "warm start": life.warm_start_s}
    times |= {"drain": life.drain_s, "stop": life.stop_s}
    for number in (1, 2):
        level = next((level for level in life.sleep if level.level == number), None)
        times[f"sleep, level {number}"] = level.sleep_s if level else None
        times[f"wake, level {number}"] = level.wake_s if level else None
    return times


def prediction_rows(profile: ServerProfile) -> dict[str, float | str]:
    """Seconds by name of what the step times predict; text where that is "outside" the domain or "does not fit"."""
    found: dict[str, float | str] = {}
    for prompt in PROMPT_TOKENS:
        beyond = prompt_is_beyond(profile, prompt)
        found[f"first token, prompt of {prompt:,}"] = _BEYOND[beyond] if beyond else first_token_s(profile, prompt)
    for seqs in DECODE_SEQS:
        for context in CONTEXT_TOKENS:
            beyond = batch_is_beyond(profile, seqs, context)
            seconds = _BEYOND[beyond] if beyond else inter_token_s(profile, seqs, context)
            found[f"ITL, {seqs} x {context:,}"] = seconds
    return found


def step_time_in_words(step_time: StepTimeModel) -> str:
    """ "An iteration costs 7.20 ms, plus 30.0 us per new token beyond 200." """
    slopes = [
        f"{duration(per_token_s)} {'more ' if index else ''}per new token"
        + (f" beyond {three_figures(from_tokens)}" if from_tokens else "")
        for index, (from_tokens, per_token_s) in enumerate(step_time.slopes)
    ]
    return f"An iteration costs {duration(step_time.overhead_s)}" + "".join(f", plus {slope}" for slope in slopes) + "."


def _identity(profile: ServerProfile) -> TextTable:
    named = {"profile": profile.name, **identity(profile)}
    named["kind"] = f"{profile.kind}: {KIND_IN_WORDS[profile.kind]}"
    return TextTable(title="What it is", columns=("", ""), rows=tuple(named.items()), prose=True)


def _origin(profile: ServerProfile) -> TextTable:
    made = profile.provenance
    rows = [("source", made.source), ("measurements", count(made.n) if made.n else "none")]
    layers = profile.layers
    if layers is not None:
        first, second = layers.measured_layers
        error = layers.error
        tried = f"; error on a model that fits whole: {_errors_in_words(error)}" if error else "; error not measured"
        rows.append(("layers", f"measured at {first} and {second}, extended to {layers.layers}{tried}"))
    rows += [("assumption", text) for text in made.assumptions]
    rows += [("note", text) for text in made.notes]
    return TextTable(title="Where it comes from", columns=("", ""), rows=tuple(rows), prose=True)


def _kv_cache(profile: ServerProfile) -> TextTable:
    cache, longest = profile.kv_cache, profile.engine.max_model_len
    rows = [
        ("KV cache", f"{cache.max_tokens:,} tokens"),
        ("blocks", f"{cache.num_gpu_blocks:,} of {cache.block_size} tokens"),
    ]
    if longest:
        rows.append((f"sequences of max_model_len ({longest:,})", f"{cache.max_tokens / longest:,.1f} at once"))
    return TextTable(title="Capacity", columns=("", ""), rows=tuple(rows))


def _memory(profile: ServerProfile) -> TextTable:
    def held(value: int | None) -> str:
        return NOT_MEASURED if value is None else data_size(value)

    return TextTable(
        title="Memory held",
        columns=("state", "GPU", "host"),
        rows=tuple((state.state, held(state.gpu_bytes), held(state.host_bytes)) for state in profile.lifecycle.memory),
        lead="" if profile.lifecycle.memory else f"{NOT_MEASURED.capitalize()}.",
    )


def _step_time(profile: ServerProfile) -> TextTable:
    step = profile.step_time
    overhead_s = profile.request_overhead_s
    rows = [
        ("every iteration", duration(step.overhead_s)),
        *(
            (f"each new token beyond {three_figures(start)}" if start else "each new token", duration(per_token_s))
            for start, per_token_s in step.slopes
        ),
        ("each decoding sequence", duration(step.per_sequence_s)),
        ("1,000 KV tokens read", duration(1e3 * step.per_kv_token_s)),
        ("a million query-key pairs of prompts", duration(1e6 * step.per_prefill_pair_s)),
        ("a prompt in the batch", duration(step.prefill_overhead_s)),
        ("each request, outside of iterations", NOT_MEASURED if overhead_s is None else duration(overhead_s)),
    ]
    return TextTable(
        title="Step time",
        columns=("", "costs"),
        rows=tuple(rows),
        lead=step_time_in_words(step),
        notes=(
            "New tokens: those of prompts, and one of each decoding sequence."
            + (" Each slope comes on top of those before it." if len(step.slopes) > 1 else ""),
        ),
    )


def _crowded_requests(profile: ServerProfile) -> tuple[TextTable, ...]:
    """What a request costs outside of iterations among others; nothing where that was not measured."""
    if not profile.crowded_requests:
        return ()
    return (
        TextTable(
            title="A request among others",
            columns=("sequences that decode", "costs", "requests"),
            rows=tuple(
                (
                    count(point.decode_seqs),
                    duration(point.overhead_s),
                    count(point.n),
                )
                for point in profile.crowded_requests
            ),
            lead="What its first token waits for besides iterations.",
        ),
    )


def _fit(profile: ServerProfile) -> TextTable:
    fit = profile.fit
    if fit is None:
        return TextTable(title="Quality of the fit", columns=("",), lead="Not measured: nothing was fitted.")
    kinds: Sequence[tuple[str, Errors | None]] = (
        ("points of the fit", fit.residuals),
        ("each by a fit to the others", fit.leave_one_out),
        ("points held out", fit.held_out),
        *fit.regions.items(),
    )
    return TextTable(
        title="Quality of the fit",
        columns=("relative error over", "mean", "median", "largest", "points"),
        rows=tuple((name, *_errors(errors)) for name, errors in kinds),
        notes=(
            f"{fit.n_samples:,} samples. Noise of the points themselves: "
            + (
                NOT_MEASURED
                if fit.noise is None
                else f"{percent(fit.noise)} (mean relative standard error of a median)"
            )
            + ".",
        ),
    )


def _domain(profile: ServerProfile) -> TextTable:
    domain = profile.domain
    title = "Domain"
    if domain is None:
        return TextTable(
            title=title, columns=("",), lead="No limits: the step times hold by construction, not by test."
        )
    axes = (
        ("prompt tokens of an iteration", domain.prefill_tokens),
        ("query-key pairs of an iteration", domain.prefill_pairs),
        ("decoding sequences", domain.decode_seqs),
        ("KV tokens read", domain.kv_tokens),
    )
    return TextTable(
        title=title,
        columns=("axis", "from", "to"),
        rows=tuple((name, f"{low:,.0f}", f"{high:,.0f}") for name, (low, high) in axes),
        lead="What the samples covered; beyond it the profile answers only when asked to extrapolate.",
    )


def _predictions(profile: ServerProfile) -> tuple[TextTable, ...]:
    found = {
        name: value if isinstance(value, str) else duration(value) for name, value in prediction_rows(profile).items()
    }
    itl = tuple(
        (f"{seqs}", *(found[f"ITL, {seqs} x {context:,}"] for context in CONTEXT_TOKENS)) for seqs in DECODE_SEQS
    )
    return (
        TextTable(
            title="Predicted: first token on an idle server",
            columns=("prompt tokens", *(f"{prompt:,}" for prompt in PROMPT_TOKENS)),
            rows=(("TTFT", *(found[f"first token, prompt of {prompt:,}"] for prompt in PROMPT_TOKENS)),),
        ),
        TextTable(
            title="Predicted: time between tokens",
            columns=("sequences", *(f"context {context:,}" for context in CONTEXT_TOKENS)),
            rows=itl,
        ),
    )


def _errors(errors: Errors | None) -> tuple[str, str, str, str]:
    if errors is None:
        return NOT_MEASURED, "", "", "0"
    return percent(errors.mape), percent(errors.median_ape), percent(errors.max_ape), count(errors.n)


def _errors_in_words(errors: Errors) -> str:
    return f"mean {percent(errors.mape)}, largest {percent(errors.max_ape)}, n = {errors.n}"


def _seconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else duration(value)


def _or_default(value: float | None) -> str:
    return "vLLM's default" if value is None else f"{value:,.10g}"
