"""TTFT, TPOT and E2E of one policy against their SLO: how they are distributed, and how they moved."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from results.arrays import Floats
from results.charts import Chart, ChartGroup, colour, marks
from results.drawing import Mark
from results.figures import CDF_SHARES
from results.metrics import limits_s
from results.plot import Plot
from results.quantities import seconds
from results.request_columns import RequestColumns
from results.scales import Scale, decades, percentages, run_time
from results.sorted_values import SortedValues
from workloads.request import Tier
from workloads.slo import Slo

# Shorter is drawn here: a logarithmic axis has no 0.
LEAST_S = 1e-3

_MEDIAN = Mark(label="p50 of all models", colour="ink", kind="line")
_SLO = Mark(label="SLO", colour="ink", kind="dotted")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyCurves:
    """One latency of one tier. `cdf`: quantiles at CDF_SHARES by model (rows) and of all (the last row); `p95` by model
    and bin, `p50` by bin of arrival. NaN where nothing completed."""

    tier: Tier
    name: str
    limit_s: float | None
    cdf: Floats
    p95: Floats
    p50: Floats

    @property
    def title(self) -> str:
        return f"{self.name} of {self.tier.value}"


def latency_curves(requests: RequestColumns, slos: Mapping[Tier, Slo]) -> tuple[LatencyCurves, ...]:
    """Of every tier that was asked; TTFT of NIW is left out: nobody waits for its first token."""
    models, bins = len(requests.models), requests.bins
    by_tier = requests.tier
    by_model = by_tier * models + requests.model
    found = []
    tiers = list(Tier)
    for name, values in requests.taken.by_name.items():
        ordered = SortedValues(values)
        all_models = ordered.quantiles(by_tier, len(tiers), CDF_SHARES)
        each_model = ordered.quantiles(by_model, len(tiers) * models, CDF_SHARES)
        p95 = ordered.quantiles(by_model * bins + requests.bin, len(tiers) * models * bins, (0.95,))
        p50 = ordered.quantiles(by_tier * bins + requests.bin, len(tiers) * bins, (0.5,))
        for index, tier in enumerate(tiers):
            if not requests.has_tier(tier) or (name == "TTFT" and not tier.interactive):
                continue
            rows = slice(index * models, (index + 1) * models)
            found.append(
                LatencyCurves(
                    tier=tier,
                    name=name,
                    limit_s=limits_s(slos.get(tier, Slo()))[name],
                    cdf=np.vstack((each_model[rows], all_models[index])),
                    p95=p95[:, 0].reshape(len(tiers) * models, bins)[rows],
                    p50=p50[:, 0].reshape(len(tiers), bins)[index],
                )
            )
    return tuple(sorted(found, key=lambda curves: tiers.index(curves.tier)))


def latency_groups(requests: RequestColumns, curves: tuple[LatencyCurves, ...], end_s: float) -> tuple[ChartGroup, ...]:
    """Their distributions, and their course over the run."""
    if not curves:
        return ()
    models = marks(requests.models)
    return (
        ChartGroup(
            title="Latencies over time",
            charts=tuple(_over_time(requests, each, end_s) for each in curves),
            legend=(*(Mark(label=f"p95 of {m.label}", colour=m.colour, kind="line") for m in models), _MEDIAN, _SLO),
            note="Of the completed requests that arrived in each bin, counted from arrival; on a logarithmic axis.",
            shown=True,
        ),
        ChartGroup(
            title="Latencies: share of requests at or below",
            charts=tuple(_distribution(each) for each in curves),
            legend=(*models, _SLO),
            note="Of completed requests, counted from arrival; on a logarithmic axis.",
        ),
    )


def latency_scale(low_s: float, high_s: float) -> Scale:
    """A logarithmic axis of seconds around two latencies; NaN where there are none."""
    if not np.isfinite(low_s) or not np.isfinite(high_s):
        return decades(0.01, 10.0, seconds)
    low_s = max(low_s, LEAST_S)
    return decades(low_s, max(high_s, low_s), seconds)


def _over_time(requests: RequestColumns, each: LatencyCurves, end_s: float) -> Chart:
    seen = np.concatenate((each.p95.ravel(), each.p50))
    seen = seen[~np.isnan(seen)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (np.nan, np.nan)
    # A limit far above everything would press the curves together.
    near = each.limit_s is not None and each.limit_s <= 30 * high
    plot = Plot(
        f"{each.title} over time", run_time(end_s), latency_scale(low, max(high, each.limit_s or 0) if near else high)
    )
    for index, line in enumerate(each.p95):
        plot.steps(requests.edges_s, line, colour(index), width=1.2)
    plot.steps(requests.edges_s, each.p50, "currentColor", width=1.1)
    if near and each.limit_s is not None:
        plot.level(each.limit_s)
    return Chart(title=_with_limit(each), plots=(plot.svg(),))


def _distribution(each: LatencyCurves) -> Chart:
    lines = {index: line for index, line in enumerate(each.cdf[:-1]) if not np.isnan(line[0])}
    return Chart(
        title=_with_limit(each), plots=(distribution_plot(f"Distribution of {each.title}", lines, each.limit_s),)
    )


def distribution_plot(label: str, lines: Mapping[int, Floats], limit_s: float | None) -> str:
    """Quantiles at CDF_SHARES, by the index of their colour; the SLO dotted."""
    low = min((line[0] for line in lines.values()), default=np.nan)
    high = max((line[-1] for line in lines.values()), default=np.nan)
    near = limit_s is not None and limit_s <= 30 * high
    plot = Plot(label, latency_scale(low, max(high, limit_s or 0) if near else high), percentages())
    for index, line in lines.items():
        plot.line(np.maximum(line, LEAST_S), CDF_SHARES, colour(index))
    if near and limit_s is not None:
        plot.rule(limit_s)
    return plot.svg()


def _with_limit(each: LatencyCurves) -> str:
    return each.title if each.limit_s is None else f"{each.title}, SLO {seconds(each.limit_s)}"
