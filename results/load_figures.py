"""What load does to a server: latency and energy over the tokens/s that it carries."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from profiler.profile import ServerProfile
from profiler.profile_parts import LoadPoint, Percentiles
from results.drawing import Drawing, Mark
from results.figures import INK, PALETTE
from results.latency_axes import duration_axis
from results.load_points import joules_per_token, tokens_per_s
from results.reference_load import load_of, predicted_theta
from results.scales import plain

SLO_COLOUR = "#e05252"
# Open loops draw their lengths: means this close are the same mix.
_SAME_MIX = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Load points of one profile, one mix of lengths and one kind of loop, by rising tokens/s."""

    label: str
    colour: str
    closed: bool
    points: tuple[LoadPoint, ...]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One latency over load; `limits_s` are those of the SLOs, None among them for a free one."""

    label: str
    values: Callable[[LoadPoint], Percentiles | None]
    limits_s: set[float | None]


def load_drawing(profiles: Mapping[str, ServerProfile]) -> Drawing:
    """p95 of TTFT and of TPOT over tokens/s, of each profile by label; one load at least must have had answers."""
    series = _all_series(profiles)
    slos = [point.slo for profile in profiles.values() for point in profile.points if point.slo is not None]
    slos += [theta.slo for profile in profiles.values() for theta in profile.theta]
    thetas = _theta_lines(profiles)
    panels = [
        panel
        for panel in (
            _Panel("TTFT, p95", lambda point: point.ttft_s, {slo.ttft_s for slo in slos}),
            _Panel("TPOT, p95", lambda point: point.tpot_s, {slo.tpot_s for slo in slos}),
        )
        if any(panel.values(point) for one in series for point in one.points)
    ]

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _latencies(axes, series, panel)
            for limit in panel.limits_s - {None}:
                axes.axhline(limit, color=SLO_COLOUR, linewidth=1, linestyle=":")
            for at, style in thetas:
                axes.axvline(at, color=INK, linewidth=1, linestyle=style)
        _tokens_per_s_axis(grid[-1, 0])

    marks = _marks(series)
    if any(slo.ttft_s or slo.tpot_s for slo in slos):
        marks.append(Mark(label="SLO", colour=SLO_COLOUR, kind="dotted"))
    drawn = {style for _, style in thetas}
    theta_marks = {
        "-": Mark(label="theta, measured", colour="ink", kind="line"),
        "--": Mark(label="theta, predicted", colour="ink", kind="dashed"),
    }
    marks += [mark for style, mark in theta_marks.items() if style in drawn]
    few, many = _requests(series)
    return Drawing(
        name="load",
        title="Latency under load",
        caption=f"p95 over {few:,} to {many:,} requests each; tokens/s of the steady window.",
        legend=tuple(marks),
        draw=draw,
        height_in=0.6 + 1.8 * len(panels),
    )


def energy_drawing(profiles: Mapping[str, ServerProfile]) -> Drawing:
    """Joules per token over tokens/s, of each profile by label."""
    series = [one for one in _all_series(profiles) if any(joules_per_token(point) for point in one.points)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for one in series:
            metered = [(tokens_per_s(point), joules_per_token(point)) for point in one.points]
            _line(axes, one, [(x, y) for x, y in metered if x and y is not None])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("J per token")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _tokens_per_s_axis(axes)

    return Drawing(
        name="energy",
        title="Energy per token under load",
        caption="Mean power of all GPUs of the server over prompt and output tokens per second.",
        legend=tuple(_marks(series)),
        draw=draw,
        height_in=2.6,
    )


def _all_series(profiles: Mapping[str, ServerProfile]) -> list[_Series]:
    found: list[_Series] = []
    alone = len(profiles) == 1
    for index, (name, profile) in enumerate(profiles.items()):
        for mix, points in enumerate(_mixes(profile.points)):
            lengths = f"{points[0].prompt_tokens:.0f} + {points[0].output_tokens:.0f} tokens"
            for closed in (True, False):
                chosen = [point for point in points if (point.concurrency is not None) == closed]
                if chosen:
                    found.append(
                        _Series(
                            label=f"{'' if alone else name + ', '}{lengths}, {'closed' if closed else 'open'} loop",
                            colour=PALETTE[(mix if alone else index) % len(PALETTE)],
                            closed=closed,
                            points=tuple(sorted(chosen, key=tokens_per_s)),
                        )
                    )
    return found


def _mixes(points: Sequence[LoadPoint]) -> list[list[LoadPoint]]:
    mixes: list[list[LoadPoint]] = []
    for point in points:
        for mix in mixes:
            apart = (
                abs(math.log(point.prompt_tokens / mix[0].prompt_tokens)),
                abs(math.log(point.output_tokens / mix[0].output_tokens)),
            )
            if max(apart) < math.log(_SAME_MIX):
                mix.append(point)
                break
        else:
            mixes.append([point])
    return mixes


def _theta_lines(profiles: Mapping[str, ServerProfile]) -> list[tuple[float, str]]:
    """Tokens/s and line style of what was measured and predicted; none where several profiles share the axes."""
    if len(profiles) > 1:
        return []
    lines: list[tuple[float, str]] = []
    for profile in profiles.values():
        for measured in profile.theta:
            lines.append((measured.tokens_per_s, "-"))
            predicted = predicted_theta(profile, load_of(measured))
            if not isinstance(predicted, str):
                lines.append((predicted.theta_tokens_per_s, "--"))
    return lines


def _latencies(axes: Axes, series: Sequence[_Series], panel: _Panel) -> None:
    for one in series:
        found = [(tokens_per_s(point), panel.values(point)) for point in one.points]
        _line(axes, one, [(x, y.p95) for x, y in found if x and y is not None and y.p95])
    axes.set_yscale("log")
    duration_axis(axes.yaxis, panel.label)


def _line(axes: Axes, series: _Series, at: Sequence[tuple[float, float]]) -> None:
    marker, style = ("o", "-") if series.closed else ("s", "--")
    axes.plot(
        [x for x, _ in at],
        [y for _, y in at],
        color=series.colour,
        marker=marker,
        markersize=4,
        linewidth=1.2,
        linestyle=style,
    )


def _tokens_per_s_axis(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.set_xlabel("prompt + output tokens/s")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def _marks(series: Sequence[_Series]) -> list[Mark]:
    return [Mark(label=one.label, colour=one.colour, kind="dot" if one.closed else "square") for one in series]


def _requests(series: Sequence[_Series]) -> tuple[int, int]:
    counts = [point.ttft_s.n if point.ttft_s else 0 for one in series for point in one.points]
    return min(counts), max(counts)
