"""The figures of a profile, of several over each other, and of predictions against the samples they were fitted to."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from profiler.point_medians import PointMedians, point_medians
from profiler.profile import ServerProfile
from profiler.profile_parts import StepSample
from results.crowd_figure import crowd_drawing
from results.drawing import Drawing, Mark
from results.figures import INK, PALETTE
from results.gap_map import gap_map_drawing
from results.latency_axes import duration_axis, log_scales, predicted_first_tokens, predicted_gaps, scatter
from results.load_figures import energy_drawing, load_drawing

CONTEXTS = (64, 512, 2048, 8192, 32768)
COMPARED_CONTEXT = 512
KIND_COLOURS = {"prefill": PALETTE[0], "decode": PALETTE[1], "mixed": PALETTE[2]}

_WITHIN = Mark(label="model", colour="ink", kind="line")
_BEYOND = Mark(label="beyond the domain", colour="ink", kind="dotted")
_FITTED = Mark(label="measured", colour="ink", kind="dot")
_HELD_OUT = Mark(label="measured, held out of the fit", colour="ink", kind="ring")


def profile_drawings(profile: ServerProfile, samples: Sequence[StepSample] = ()) -> tuple[Drawing, ...]:
    """What can be drawn of a profile; `samples` are its raw ones, where they are at hand."""
    fitted = point_medians([sample for sample in samples if not sample.held_out])
    held_out = point_medians([sample for sample in samples if sample.held_out])
    drawings = [
        _first_tokens(profile, fitted, held_out),
        _gaps(profile, fitted, held_out),
        gap_map_drawing(profile, fitted, held_out),
    ]
    if len(fitted) + len(held_out):
        drawings.append(_residuals(profile, fitted, held_out))
    if profile.crowded_requests:
        drawings.append(crowd_drawing(profile))
    return (*drawings, *_under_load({profile.name: profile}))


def comparison_drawings(profiles: Mapping[str, ServerProfile]) -> tuple[Drawing, ...]:
    """Several profiles, by label, over each other: a colour for each."""
    colours = {label: PALETTE[index % len(PALETTE)] for index, label in enumerate(profiles)}
    marks = tuple(Mark(label=label, colour=colour, kind="line") for label, colour in colours.items())
    if any(profile.domain for profile in profiles.values()):
        marks += (_BEYOND,)

    def first_tokens(figure: Figure) -> None:
        axes = figure.subplots()
        for label, profile in profiles.items():
            predicted_first_tokens(axes, profile, colours[label])
        log_scales(axes, "prompt tokens", "first token")

    def gaps(figure: Figure) -> None:
        axes = figure.subplots()
        for label, profile in profiles.items():
            predicted_gaps(axes, profile, COMPARED_CONTEXT, colours[label])
        log_scales(axes, "sequences that decode", "time between tokens")

    return (
        Drawing(
            name="first-token",
            title="First token on an idle server",
            caption="From sending a prompt to its first token, as the step times predict it.",
            legend=marks,
            draw=first_tokens,
        ),
        Drawing(
            name="between-tokens",
            title="Time between tokens",
            caption=f"Of sequences with {COMPARED_CONTEXT} tokens of context each, as the step times predict it.",
            legend=marks,
            draw=gaps,
        ),
        *_under_load(profiles),
    )


def _under_load(profiles: Mapping[str, ServerProfile]) -> list[Drawing]:
    points = [point for profile in profiles.values() for point in profile.points]
    drawings = [load_drawing(profiles)] if any(point.ttft_s for point in points) else []
    if any(point.energy is not None for point in points):
        drawings.append(energy_drawing(profiles))
    return drawings


def _first_tokens(profile: ServerProfile, fitted: PointMedians, held_out: PointMedians) -> Drawing:
    colour = KIND_COLOURS["prefill"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        predicted_first_tokens(axes, profile, colour)
        for points, filled in ((fitted, True), (held_out, False)):
            prompts = points.take(points.kinds == "prefill")
            scatter(axes, prompts.steps * prompts.prefill_tokens, prompts.observed_s, colour, filled=filled)
        log_scales(axes, "prompt tokens", "first token")

    return Drawing(
        name="first-token",
        title="First token on an idle server",
        caption="From sending a prompt to its first token: its prefill and what the request itself costs.",
        legend=_legend(profile, fitted, held_out),
        draw=draw,
    )


def _gaps(profile: ServerProfile, fitted: PointMedians, held_out: PointMedians) -> Drawing:
    longest = profile.engine.max_model_len or profile.kv_cache.max_tokens
    contexts = [context for context in CONTEXTS if context <= longest] or [longest]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for context, colour in zip(contexts, PALETTE, strict=False):
            predicted_gaps(axes, profile, context, colour)
        for points, filled in ((fitted, True), (held_out, False)):
            decode = points.take(points.kinds == "decode")
            predicted_s = decode.predicted_s(profile.step_time, 0.0) / decode.steps
            observed_s = decode.observed_s / decode.steps
            # A stick to what the model says: a point's own context lies between those of the lines.
            axes.vlines(decode.decode_seqs, observed_s, predicted_s, color=INK, linewidth=0.7)
            away = np.log(decode.kv_tokens / decode.decode_seqs)[:, None] - np.log(contexts)
            nearest = np.abs(away).argmin(axis=1)
            for index in range(len(contexts)):
                chosen = nearest == index
                scatter(axes, decode.decode_seqs[chosen], observed_s[chosen], PALETTE[index], filled=filled)
        log_scales(axes, "sequences that decode", "time between tokens")

    with_points = bool(len(fitted) + len(held_out))
    return Drawing(
        name="between-tokens",
        title="Time between tokens",
        caption="By tokens of context per sequence."
        + (
            " A point has the colour of the nearest context; a stick leads to what the model says for its own."
            if with_points
            else ""
        ),
        legend=(
            *(
                Mark(label=f"{c:,} tokens", colour=colour, kind="line")
                for c, colour in zip(contexts, PALETTE, strict=False)
            ),
            *_legend(profile, fitted, held_out)[1:],
        ),
        draw=draw,
    )


def _residuals(profile: ServerProfile, fitted: PointMedians, held_out: PointMedians) -> Drawing:
    overhead_s = profile.request_overhead_s or 0.0
    kinds = [kind for kind in KIND_COLOURS if kind in {*fitted.kinds.tolist(), *held_out.kinds.tolist()}]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
        for points, filled in ((fitted, True), (held_out, False)):
            observed_s = points.observed_s / points.steps
            predicted_s = points.predicted_s(profile.step_time, overhead_s) / points.steps
            for kind in kinds:
                chosen = points.kinds == kind
                x, y = observed_s[chosen], predicted_s[chosen]
                scatter(upper, x, y, KIND_COLOURS[kind], filled=filled)
                scatter(lower, x, 100 * (y / x - 1), KIND_COLOURS[kind], filled=filled)
        ends = [
            f(points.observed_s / points.steps)
            for f in (np.min, np.max)
            for points in (fitted, held_out)
            if len(points)
        ]
        upper.plot([min(ends), max(ends)], [min(ends), max(ends)], color=INK, linewidth=0.8)
        lower.axhline(0, color=INK, linewidth=0.8)
        log_scales(upper, "", "predicted")
        duration_axis(lower.xaxis, "observed, per iteration")
        lower.set_ylabel("error")
        lower.yaxis.set_major_locator(MaxNLocator(5))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g} %"))

    return Drawing(
        name="residuals",
        title="Predicted against observed",
        caption="Medians of points; a prompt's request overhead is shared out over its iterations.",
        legend=(
            *(Mark(label=kind, colour=KIND_COLOURS[kind], kind="dot") for kind in kinds),
            *((_HELD_OUT,) if len(held_out) else ()),
        ),
        draw=draw,
        height_in=4.4,
    )


def _legend(profile: ServerProfile, fitted: PointMedians, held_out: PointMedians) -> tuple[Mark, ...]:
    return (
        _WITHIN,
        *((_BEYOND,) if profile.domain else ()),
        *((_FITTED,) if len(fitted) else ()),
        *((_HELD_OUT,) if len(held_out) else ()),
    )
