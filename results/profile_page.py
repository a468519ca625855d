"""One self-contained page on a profile, or on several side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.profile import ServerProfile
from profiler.profile_parts import StepSample
from results.drawing import Drawing
from results.pages import filled
from results.profile_comparison import comparison_tables, profile_labels
from results.profile_figures import comparison_drawings, profile_drawings
from results.profile_tables import KIND_IN_WORDS, profile_tables, step_time_in_words
from results.quantities import duration, three_figures
from results.reference_load import ReferenceLoad, load_of, predicted_theta
from results.text_table import NOT_MEASURED, TextTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One number to read first."""

    title: str
    value: str
    unit: str
    note: str


def profile_page(profile: ServerProfile, samples: Sequence[StepSample] = (), remark: str = "") -> str:
    """HTML of one profile. `remark` stands above the figures: why there are no samples in them, for instance."""
    return _page(
        title=profile.name,
        subtitle=f"{profile.model.name} on {profile.gpu.count} x {profile.gpu.type}",
        banner="" if profile.kind == "measured" else f"{profile.kind}: {KIND_IN_WORDS[profile.kind]}.".capitalize(),
        remark=remark,
        cards=_cards(profile),
        top=2,
        tables=profile_tables(profile),
        drawings=profile_drawings(profile, samples),
    )


def comparison_page(profiles: Sequence[ServerProfile], load: ReferenceLoad) -> str:
    """HTML of several profiles side by side."""
    labelled: Mapping[str, ServerProfile] = dict(zip(profile_labels(profiles), profiles, strict=True))
    return _page(
        title="Server profiles compared",
        subtitle=", ".join(labelled),
        banner="",
        remark="",
        cards=(),
        top=1,
        tables=comparison_tables(profiles, load),
        drawings=comparison_drawings(labelled),
    )


def _cards(profile: ServerProfile) -> tuple[Card, ...]:
    """What one asks first: how much, how fast, how soon."""
    measured = profile.theta[0] if profile.theta else None
    load = load_of(measured) if measured else ReferenceLoad()
    predicted = predicted_theta(profile, load)
    if measured:
        theta = Card(
            title="theta, measured", value=three_figures(measured.tokens_per_s), unit="tokens/s", note=str(load)
        )
    elif isinstance(predicted, str):
        theta = Card(title="theta", value="none", unit="", note=predicted)
    else:
        value = three_figures(predicted.theta_tokens_per_s)
        theta = Card(title="theta, predicted", value=value, unit="tokens/s", note=str(load))
    life = profile.lifecycle
    warm = NOT_MEASURED if life.warm_start_s is None else duration(life.warm_start_s)
    cold_value, cold_unit = (NOT_MEASURED, "") if life.cold_start_s is None else duration(life.cold_start_s).split(" ")
    step_value, step_unit = duration(profile.step_time.overhead_s).split(" ")
    return (
        theta,
        Card(title="KV cache", value=f"{profile.kv_cache.max_tokens:,}", unit="tokens", note="all sequences together"),
        Card(title="An iteration", value=step_value, unit=step_unit, note=step_time_in_words(profile.step_time)),
        Card(title="Cold start", value=cold_value, unit=cold_unit, note=f"warm: {warm}"),
    )


def _page(
    *,
    title: str,
    subtitle: str,
    banner: str,
    remark: str,
    cards: Sequence[Card],
    top: int,
    tables: Sequence[TextTable],
    drawings: Sequence[Drawing],
) -> str:
    return filled(
        "profile.html.j2",
        title=title,
        subtitle=subtitle,
        banner=banner,
        remark=remark,
        cards=cards,
        top=tables[:top],
        tables=tables[top:],
        drawings=drawings,
    )
