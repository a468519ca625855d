"""The policies of a run over each other: what they cost and how fast they answered."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from results.charts import Chart, ChartGroup, marks
from results.demand_charts import STATE_LEGEND, STATE_ORDER
from results.figures import STATE_COLOURS
from results.latency_charts import distribution_plot
from results.plot import Plot, shortened
from results.policy_section import PolicySection
from results.quantities import seconds
from results.scales import Scale, from_zero


def overview_groups(sections: Sequence[PolicySection]) -> tuple[ChartGroup, ...]:
    """GPU-hours by state and the latencies of the strictest tier, then all other latencies; () without policies."""
    if not sections:
        return ()
    names = [section.name for section in sections]
    charts = [_gpu_hours(sections)]
    titles = list(dict.fromkeys(curves.title for section in sections for curves in section.curves))
    for title in titles:
        of = {
            index: curves
            for index, section in enumerate(sections)
            for curves in section.curves
            if curves.title == title and not np.isnan(curves.cdf[-1, 0])
        }
        if of:
            limit_s = next(iter(of.values())).limit_s
            plot = distribution_plot(title, {index: curves.cdf[-1] for index, curves in of.items()}, limit_s)
            name = title if limit_s is None else f"{title}, SLO {seconds(limit_s)}"
            charts.append(Chart(title=name, plots=(plot,)))
    note = (
        "Latencies: share of completed requests at or below, counted from arrival; dotted: the SLO. Where policies are "
        "alike the last covers the others."
    )
    groups = (
        ChartGroup(title="Policies over each other", charts=tuple(charts[:3]), legend=marks(names), note=note),
        ChartGroup(title="All latencies, policies over each other", charts=tuple(charts[3:]), legend=marks(names)),
    )
    return tuple(group for group in groups if group.charts)


def _gpu_hours(sections: Sequence[PolicySection]) -> Chart:
    """One bar per policy, its states beside each other."""
    by_state = [section.summary.gpu_hours_by.state for section in sections]
    lanes = len(sections)
    y = Scale(
        low=-0.5,
        high=lanes - 0.5,
        ticks=tuple((lanes - 1.0 - index, shortened(section.name)) for index, section in enumerate(sections)),
    )
    x = replace(from_zero(max(sum(each.values()) for each in by_state)), title="GPU-hours")
    plot = Plot("GPU-hours by policy and state", x, y, height=max(40, 24 * lanes))
    held = [state for state in STATE_ORDER if any(each.get(state) for each in by_state)]
    for index, each in enumerate(by_state):
        left = 0.0
        for state in held:
            right = left + each.get(state, 0.0)
            plot.block(left, right, lanes - 1.35 - index, lanes - 0.65 - index, STATE_COLOURS[state])
            left = right
    legend = tuple(mark for mark in STATE_LEGEND if mark.label in held)
    return Chart(title="GPU-hours by state", plots=(plot.svg(),), legend=legend)
