"""The figures of a report: inline SVG that takes its ink from the page, so that one figure suits light and dark.

Legends and titles are the page's (HTML keeps them readable on a narrow screen); colours are shared by name.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from results.quantities import seconds

Floats = npt.NDArray[np.float64]

# Middle tones: readable on white and on near-black alike.
PALETTE = ("#3b82f6", "#e8833a", "#2ea36b", "#9b6ef3", "#e05252", "#1fa5a5", "#b8860b", "#d1579f", "#8a919e")
STATE_COLOURS = {
    "READY": "#2ea36b",
    "STARTING": "#d9a21b",
    "SLEEPING": "#6d8fc7",
    "DRAINING": "#e8833a",
    "STOPPING": "#e05252",
}
DEMAND_COLOURS = {
    "observed, interactive": "#3b82f6",
    "observed, NIW": "#8a919e",
    "forecast, mean": "#9b6ef3",
    "forecast, upper": "#d1579f",
    "capacity of READY servers": "#2ea36b",
}

# The tail is what an SLO is about: it gets a third of the points.
CDF_SHARES = np.concatenate((np.linspace(0, 0.95, 96), np.linspace(0.951, 1, 50)))

# Drawn in this colour, written as currentColor.
INK = "#0a0b0c"
_PATH = re.compile(r' d="[^"]*"')
_FINER = re.compile(r"(\.\d)\d+")
_OWN_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sageserve-testbed",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a model's name is no formula
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.5,
}


def demand_and_servers(edges_s: Floats, demand: Mapping[str, Floats], states: Mapping[str, Floats], name: str) -> str:
    """Tokens/s by name of DEMAND_COLOURS above, servers by state (stacked) below; one value per bin of `edges_s`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.7))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, 1), gridspec_kw={"hspace": 0.12})
        figure.subplots_adjust(left=0.12, right=0.975, top=0.98, bottom=0.12)
        scale, unit = _time_unit(edges_s[-1])
        edges = edges_s / scale
        for label, series in demand.items():
            colour = DEMAND_COLOURS[label]
            corners, heights = _steps(edges, series)
            if label == "observed, interactive":
                upper.fill_between(corners, heights, color=colour, alpha=0.25, linewidth=0)
            dashed = label.startswith("forecast")
            upper.plot(corners, heights, color=colour, linewidth=1.1, linestyle="--" if dashed else "-")
        _from_zero(upper, "tokens/s")
        _stack(lower, edges, states, [STATE_COLOURS[state] for state in states])
        _from_zero(lower, "servers")
        lower.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        lower.set_xlabel(f"time of the run, {unit}")
        lower.set_xlim(edges[0], edges[-1])
        return inline_svg(figure, f"Demand, forecast, capacity and servers of {name} over time")


def stacked_over_time(edges_s: Floats, series: Mapping[str, Floats], ylabel: str, name: str) -> str:
    """Named series stacked in the colours of PALETTE; one value per bin of `edges_s`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 2.3))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.12, right=0.975, top=0.97, bottom=0.2)
        scale, unit = _time_unit(edges_s[-1])
        _stack(axes, edges_s / scale, series, [PALETTE[i % len(PALETTE)] for i in range(len(series))])
        _from_zero(axes, ylabel)
        axes.set_xlabel(f"time of the run, {unit}")
        axes.set_xlim(0, edges_s[-1] / scale)
        return inline_svg(figure, name)


def latency_cdfs(curves: Sequence[Floats], limit_s: float | None, xlabel: str) -> str:
    """The share of requests at or below each latency, one curve per policy in the colours of PALETTE, on a log axis;
    the SLO as a dotted line. A curve holds the quantiles at CDF_SHARES; an empty one is left out, and a latency below
    1 ms is drawn at 1 ms."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 2.5))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.12, right=0.97, top=0.97, bottom=0.2)
        for index, values in enumerate(curves):
            if len(values):
                axes.plot(
                    np.maximum(values, 1e-3), CDF_SHARES * 100, color=PALETTE[index % len(PALETTE)], linewidth=1.4
                )
        if limit_s is not None:
            axes.axvline(limit_s, color=INK, linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=8))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 101)
        axes.set_ylabel("% of requests")
        axes.set_xlabel(xlabel)
        return inline_svg(figure, xlabel)


def gpu_hours_bars(policies: Sequence[str], by_state: Mapping[str, Sequence[float]]) -> str:
    """GPU-hours of each policy as one bar, by state."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 0.75 + 0.34 * len(policies)))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.2, right=0.97, top=0.97, bottom=0.45 / figure.get_figheight())
        left = np.zeros(len(policies))
        for state, values in by_state.items():
            axes.barh(np.arange(len(policies)), values, left=left, height=0.62, color=STATE_COLOURS[state])
            left += np.asarray(values)
        axes.set_yticks(np.arange(len(policies)), [_shortened(name) for name in policies])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("GPU-hours")
        return inline_svg(figure, "GPU-hours by policy and state")


def _stack(axes: Axes, edges: Floats, series: Mapping[str, Floats], colours: Sequence[str]) -> None:
    below = np.zeros(len(edges) - 1)
    for values, colour in zip(series.values(), colours, strict=True):
        above = below + values
        if values.any():
            corners, heights = _steps(edges, above)
            axes.fill_between(corners, _steps(edges, below)[1], heights, color=colour, alpha=0.75, linewidth=0)
        below = above


def _steps(edges: Floats, values: Floats) -> tuple[Floats, Floats]:
    # matplotlib's own stairs measure every edge as a Bezier curve, which costs more than all the rest.
    return np.repeat(edges, 2)[1:-1], np.repeat(values, 2)


def _from_zero(axes: Axes, ylabel: str) -> None:
    axes.set_ylim(bottom=0)
    axes.set_ylabel(ylabel)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def plain(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if abs(value) >= 1e3 else f"{value:g}"


def _shortened(name: str, most: int = 14) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _time_unit(end_s: float) -> tuple[float, str]:
    return (3600.0, "h") if end_s > 3 * 3600 else (60.0, "min") if end_s > 300 else (1.0, "s")


def inline_svg(figure: Figure, label: str) -> str:
    text = io.StringIO()
    canvas: Any = FigureCanvasSVG(figure)
    canvas.print_svg(text, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue().replace(INK, "currentColor")
    svg = svg[svg.index("<svg") :]
    # A tenth of a point is finer than any screen: half the bytes of a path.
    svg = _PATH.sub(lambda path: _FINER.sub(r"\1", path[0]).replace(" \n", ""), svg)
    svg = _OWN_STYLE.sub("", svg)
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1)
