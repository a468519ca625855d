"""Requests per second offered, and of them those that met their SLO, by tier and by model."""

import numpy as np

from results.arrays import Mask
from results.charts import Chart, ChartGroup
from results.drawing import Mark
from results.plot import Plot
from results.request_columns import RequestColumns
from results.scales import from_zero, run_time
from workloads.request import Tier

_MET = Mark(label="met every limit of its SLO", colour="#2ea36b", kind="square")
_MISSED = Mark(label="missed one, was rejected or failed", colour="#e05252", kind="square")


def goodput_group(requests: RequestColumns, end_s: float) -> ChartGroup | None:
    """By the bin in which requests arrived; None when there were none."""
    if not len(requests.bin):
        return None
    charts = [
        _chart(tier.value, requests, requests.tier == index, end_s)
        for index, tier in enumerate(Tier)
        if requests.has_tier(tier)
    ]
    charts += [_chart(model, requests, requests.model == index, end_s) for index, model in enumerate(requests.models)]
    return ChartGroup(
        title="Goodput",
        charts=tuple(charts),
        legend=(_MET, _MISSED),
        note="Requests/s by the time of their arrival, first by tier, then by model.",
    )


def _chart(name: str, requests: RequestColumns, of: Mask, end_s: float) -> Chart:
    widths = np.diff(requests.edges_s)
    met = np.bincount(requests.bin[of & requests.met], minlength=requests.bins) / widths
    missed = np.bincount(requests.bin[of & ~requests.met], minlength=requests.bins) / widths
    plot = Plot(f"Goodput of {name}", run_time(end_s), from_zero(float((met + missed).max(initial=0.0))))
    plot.stack(requests.edges_s, [met, missed], [_MET.colour, _MISSED.colour])
    return Chart(title=name, plots=(plot.svg(),))
