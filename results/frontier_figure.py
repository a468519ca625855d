"""The figure of a comparison: GPU-hours against the share of requests that missed their SLO, a line per policy."""

from functools import partial
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from results.drawing import Drawing, Mark
from results.figures import INK, PALETTE
from results.frontier import Frontier
from results.quantities import percent
from results.study_comparison import WorkloadComparison

# Nothing missed has no place on a logarithmic axis: it is drawn here, at its left end.
LEAST_SHARE = 1e-4
MOST_SHARE = 0.6
# A policy far out would press all others together.
MOST_TIMES_THE_LEAST = 4.0


def frontier_drawing(comparison: WorkloadComparison) -> Drawing:
    """Every setting a dot, every frontier a line; the attainment and the bound dotted."""
    colours = {each.policy: PALETTE[place % len(PALETTE)] for place, each in enumerate(comparison.frontiers)}
    marks = [
        Mark(label=policy, colour=colour, kind="dashed" if place >= len(PALETTE) else "line")
        for place, (policy, colour) in enumerate(colours.items())
    ]
    if comparison.bound is not None:
        marks.append(Mark(label="bound, and attainment compared at", colour="ink", kind="dotted"))
    return Drawing(
        name=f"frontier-{comparison.workload}",
        title=f"GPU-hours against SLO misses, {comparison.workload}",
        caption=(
            "Dots: settings of a policy's knob, mean over seeds; lines: its frontier, their lower convex hull. Lower "
            f"and further left is better. Less than {percent(LEAST_SHARE)} is drawn at the left end."
        ),
        draw=partial(_draw, comparison, colours),
        legend=tuple(marks),
        height_in=3.6,
    )


def _draw(comparison: WorkloadComparison, colours: dict[str, str], figure: Figure) -> None:
    axes = figure.subplots()
    for place, each in enumerate(comparison.frontiers):
        width = 2.6 if each.policy == comparison.claim.policy else 1.2
        _line(axes, each, colours[each.policy], "--" if place >= len(PALETTE) else "-", width)
    least = min(setting.gpu_hours for each in comparison.frontiers for setting in each.hull)
    most = max(setting.gpu_hours for each in comparison.frontiers for setting in each.hull)
    if comparison.bound is not None:
        axes.axhline(comparison.bound.lower_gpu_hours, color=INK, linewidth=1, linestyle=":")
        least = min(least, comparison.bound.lower_gpu_hours)
    axes.axvline(comparison.missed, color=INK, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlim(LEAST_SHARE / 1.3, MOST_SHARE)
    axes.set_ylim(0.9 * least, min(1.05 * most, MOST_TIMES_THE_LEAST * least))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{comparison.subject} outside their SLO")
    axes.set_ylabel("GPU-hours")


def _line(axes: Axes, each: Frontier, colour: str, style: str, width: float) -> None:
    settings = [(max(setting.missed, LEAST_SHARE), setting.gpu_hours) for setting in each.settings]
    hull = _curve(each)
    axes.plot([x for x, _ in hull], [y for _, y in hull], color=colour, linewidth=width, linestyle=style)
    axes.plot([x for x, _ in settings], [y for _, y in settings], "o", color=colour, markersize=2 + width)


def _curve(each: Frontier) -> list[tuple[float, float]]:
    """The hull as drawn: a straight line between two settings is a curve on a logarithmic axis."""
    points = []
    for low, high in pairwise(each.hull):
        for step in range(20):
            share = step / 20
            missed = (1 - share) * low.missed + share * high.missed
            points.append((max(missed, LEAST_SHARE), (1 - share) * low.gpu_hours + share * high.gpu_hours))
    last = each.hull[-1]
    return [*points, (max(last.missed, LEAST_SHARE), last.gpu_hours)]
