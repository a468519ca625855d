"""Latencies of real and emulated requests over each other, as the shares of requests at or below each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from results.arrays import Floats
from results.drawing import Drawing, Mark
from results.figures import CDF_SHARES, PALETTE
from results.latency_axes import duration_axis
from results.metrics import Latencies, is_outcome, latencies
from workloads.completion import Outcome

_REAL, _ALONE, _SYSTEM = PALETTE[0], PALETTE[1], PALETTE[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseCurves:
    """Completions of a case: its real runs, the same requests on emulated servers alone, the emulated system."""

    real: tuple[pd.DataFrame, ...]
    alone: tuple[pd.DataFrame, ...]
    system: pd.DataFrame | None


def case_drawings(curves: CaseCurves, number: int) -> tuple[Drawing, ...]:
    """TTFT, TPOT and E2E; `number` tells one case's drawings from another's."""
    real, alone = ([_latencies(frame) for frame in frames] for frames in (curves.real, curves.alone))
    system = [] if curves.system is None else [_latencies(curves.system)]
    return (
        _drawing("ttft", number, "Time to first token", real, alone, system, lambda taken: taken.ttft_s),
        _drawing("tpot", number, "Time per output token", real, alone, system, lambda taken: taken.tpot_s),
        _drawing("e2e", number, "End to end", real, alone, system, lambda taken: taken.e2e_s),
    )


def _latencies(completions: pd.DataFrame) -> Latencies:
    return latencies(completions[is_outcome(completions, Outcome.COMPLETED)])


def _drawing(
    name: str,
    number: int,
    title: str,
    real: list[Latencies],
    alone: list[Latencies],
    system: list[Latencies],
    of: Callable[[Latencies], Floats],
) -> Drawing:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for many, colour, style in ((real, _REAL, "-"), (alone, _ALONE, "--"), (system, _SYSTEM, ":")):
            for taken in many:
                values = of(taken)
                values = values[~np.isnan(values)]
                if len(values):
                    # A latency of 0 has no place on a logarithmic axis.
                    at = np.maximum(np.quantile(values, CDF_SHARES), 1e-6)
                    axes.plot(at, CDF_SHARES * 100, color=colour, linestyle=style, linewidth=1.4)
        axes.set_xscale("log")
        duration_axis(axes.xaxis, title.lower())
        axes.set_ylim(0, 101)
        axes.set_ylabel("% of requests")

    legend = [Mark(label="real, a line per run", colour=_REAL, kind="line")]
    legend += [Mark(label="emulated, servers alone", colour=_ALONE, kind="dashed")]
    if system:
        legend += [Mark(label="emulated, whole system", colour=_SYSTEM, kind="dotted")]
    return Drawing(
        name=f"{name}-{number}",
        title=title,
        caption="Share of completed requests at or below.",
        legend=tuple(legend),
        draw=draw,
        height_in=2.6,
    )
