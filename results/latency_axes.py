"""Predicted latencies of a profile drawn into axes: solid within its domain, dotted beyond."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from profiler.idle_latency import Beyond, batch_is_beyond, first_token_s, inter_token_s, prompt_is_beyond
from profiler.profile import ServerProfile
from results.arrays import Floats
from results.quantities import duration
from results.scales import plain

_SAMPLES_PER_CURVE = 160


def predicted_first_tokens(axes: Axes, profile: ServerProfile, colour: str) -> None:
    """TTFT on an idle server over prompt tokens, up to the longest prompt that the server takes."""
    longest = min(profile.engine.max_model_len or profile.kv_cache.max_tokens, profile.kv_cache.max_tokens) - 1
    _curve(
        axes,
        np.geomspace(min(16, longest), longest, _SAMPLES_PER_CURVE),
        lambda tokens: first_token_s(profile, tokens),
        lambda tokens: prompt_is_beyond(profile, tokens),
        colour,
    )


def predicted_gaps(axes: Axes, profile: ServerProfile, context_tokens: float, colour: str) -> None:
    """ITL over the sequences that decode at once, at one context, up to as many as the server holds."""
    _curve(
        axes,
        np.geomspace(1, profile.engine.max_num_seqs, _SAMPLES_PER_CURVE),
        lambda seqs: inter_token_s(profile, seqs, context_tokens),
        lambda seqs: batch_is_beyond(profile, seqs, context_tokens),
        colour,
    )


def log_scales(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Counts over x, seconds over y, both logarithmic."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    token_axis(axes.xaxis, xlabel)
    duration_axis(axes.yaxis, ylabel)


def token_axis(axis: Axis, label: str) -> None:
    """A logarithmic axis of counts."""
    _log_axis(axis, label, plain)


def duration_axis(axis: Axis, label: str) -> None:
    """A logarithmic axis of seconds, labelled in the units of its size."""
    _log_axis(axis, label, short_duration)


def scatter(axes: Axes, x: Floats, y: Floats, colour: str, *, filled: bool) -> None:
    """Points; hollow where they had no part in the fit."""
    axes.plot(
        x,
        y,
        linestyle="none",
        marker="o",
        markersize=4 if filled else 5,
        color=colour,
        markerfacecolor=colour if filled else "none",
        markeredgewidth=0.5 if filled else 1.2,
    )


def short_duration(value_s: float) -> str:
    """A tick: 20 ms, not 20.0 ms."""
    number, unit = duration(value_s).split(" ", 1)
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def _log_axis(axis: Axis, label: str, as_text: Callable[[float], str]) -> None:
    low, high = axis.get_view_interval()
    span = high / max(low, 1e-12)
    # As many labels as there is room for: at every power of ten, or between them too.
    subs = (1.0,) if span > 300 else (1.0, 2.0, 5.0) if span > 10 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: as_text(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)


def _curve(
    axes: Axes,
    at: Floats,
    predicted_s: Callable[[float], float],
    beyond: Callable[[float], Beyond | None],
    colour: str,
) -> None:
    where = [beyond(x) for x in at]
    values = np.array([predicted_s(x) for x in at])
    inside = np.array([place is None for place in where])
    outside = np.array([place == "domain" for place in where])
    axes.plot(at, np.where(inside, values, np.nan), color=colour, linewidth=1.4)
    axes.plot(at, np.where(outside, values, np.nan), color=colour, linewidth=1.2, linestyle=":")
