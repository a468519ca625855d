"""Server profiles side by side: what they differ in, then what each does, with ratios to the first."""

from collections.abc import Callable, Sequence

from profiler.profile import ServerProfile
from profiler.profile_parts import Power
from results.load_points import joules_per_token, load_name
from results.profile_tables import identity, lifecycle_times, prediction_rows
from results.quantities import duration, three_figures
from results.reference_load import ReferenceLoad, measured_at, predicted_theta
from results.text_table import NOT_MEASURED, TextTable

# A quantity, or why there is none.
Value = float | str


def profile_labels(profiles: Sequence[ServerProfile]) -> tuple[str, ...]:
    """A name for each, told apart where two have the same."""
    names = [profile.name for profile in profiles]
    seen: dict[str, int] = {}
    labels = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        labels.append(f"{name} ({seen[name]})" if names.count(name) > 1 else name)
    return tuple(labels)


def comparison_tables(profiles: Sequence[ServerProfile], load: ReferenceLoad) -> tuple[TextTable, ...]:
    """Differences first. A ratio is to the first profile, where both have the quantity."""
    return (
        _differences(profiles),
        _capacity(profiles),
        _lifecycle(profiles),
        _predictions(profiles),
        _theta(profiles, load),
        _energy(profiles),
    )


def _differences(profiles: Sequence[ServerProfile]) -> TextTable:
    identities = [identity(profile) for profile in profiles]
    rows, shared = [], []
    for name in identities[0]:
        values = [one[name] for one in identities]
        if len(set(values)) > 1:
            rows.append((name, *values))
        else:
            shared.append(f"{name} {values[0]}")
    kinds = {profile.kind for profile in profiles}
    warning = "Not all of these were measured the same way: see their kinds. " if len(kinds) > 1 else ""
    return TextTable(
        title="What differs",
        columns=("", *profile_labels(profiles)),
        rows=tuple(rows),
        lead=warning + ("" if rows else "Nothing: model, GPU, engine, arguments and weights are the same."),
        notes=(f"The same in all: {', '.join(shared)}.",) if shared else (),
        prose=True,
    )


def _beside(values: Sequence[Value], as_text: Callable[[float], str]) -> list[str]:
    """Each value as text, with its ratio to the first where both are numbers."""
    first = values[0]
    cells = []
    for index, value in enumerate(values):
        cell = value if isinstance(value, str) else as_text(value)
        if index and not isinstance(first, str) and not isinstance(value, str) and first:
            cell += f" ({value / first:#.3g}x)"
        cells.append(cell)
    return cells


def _predictions(profiles: Sequence[ServerProfile]) -> TextTable:
    found = [prediction_rows(profile) for profile in profiles]
    rows = [(name, *_beside([one[name] for one in found], duration)) for name in found[0]]
    return TextTable(
        title="Predicted by the step times",
        columns=("", *profile_labels(profiles)),
        rows=tuple(rows),
        notes=(
            "First token: on an idle server, the request's own overhead included where it was measured."
            " ITL: sequences x context tokens of each. Outside: beyond what the profile measured.",
        ),
    )


def _theta(profiles: Sequence[ServerProfile], load: ReferenceLoad) -> TextTable:
    predicted = [predicted_theta(profile, load) for profile in profiles]
    measured = [measured_at(profile, load) for profile in profiles]
    labels = profile_labels(profiles)
    reasons = {label: theta for label, theta in zip(labels, predicted, strict=True) if isinstance(theta, str)}
    return TextTable(
        title="theta: tokens/s within an SLO",
        columns=("", *labels),
        rows=(
            ("measured", *_beside([theta.tokens_per_s if theta else NOT_MEASURED for theta in measured], _per_s)),
            ("n", *(f"{theta.n:,}" if theta else "" for theta in measured)),
            (
                "predicted",
                *_beside(
                    ["none" if isinstance(theta, str) else theta.theta_tokens_per_s for theta in predicted], _per_s
                ),
            ),
            ("bound by", *("" if isinstance(theta, str) else theta.binds for theta in predicted)),
        ),
        lead=f"Requests of {load}.",
        notes=tuple(f"{label}: none predicted: {why}." for label, why in reasons.items()),
    )


def _energy(profiles: Sequence[ServerProfile]) -> TextTable:
    """Fitted joules per token, and those of the load at which a token took fewest."""
    powers = [profile.power or Power() for profile in profiles]
    best = [
        min(
            ((joules, load_name(point)) for point in profile.points if (joules := joules_per_token(point)) is not None),
            default=None,
        )
        for profile in profiles
    ]
    return TextTable(
        title="Energy",
        columns=("", *profile_labels(profiles)),
        rows=(
            ("per prompt token", *_beside([_known(power.prompt_token_j) for power in powers], _joules)),
            ("per output token", *_beside([_known(power.output_token_j) for power in powers], _joules)),
            ("per token, at the best load", *_beside([b[0] if b else NOT_MEASURED for b in best], _joules)),
            ("which is", *(b[1] if b else "" for b in best)),
        ),
    )


def _lifecycle(profiles: Sequence[ServerProfile]) -> TextTable:
    times = [lifecycle_times(profile.lifecycle) for profile in profiles]
    return TextTable(
        title="Lifecycle",
        columns=("", *profile_labels(profiles)),
        rows=tuple((name, *_beside([_known(one[name]) for one in times], duration)) for name in times[0]),
    )


def _capacity(profiles: Sequence[ServerProfile]) -> TextTable:
    caches = [profile.kv_cache for profile in profiles]
    return TextTable(
        title="KV cache",
        columns=("", *profile_labels(profiles)),
        rows=(
            ("tokens", *_beside([float(cache.max_tokens) for cache in caches], lambda tokens: f"{tokens:,.0f}")),
            ("blocks", *(f"{cache.num_gpu_blocks:,} of {cache.block_size}" for cache in caches)),
        ),
    )


def _known(value: float | None) -> Value:
    return NOT_MEASURED if value is None else value


def _per_s(value: float) -> str:
    return f"{three_figures(value)}/s"


def _joules(value: float) -> str:
    return f"{three_figures(value)} J"
