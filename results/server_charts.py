"""Servers and GPUs over time: by state, by region, by model, and how much of them was in use."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from results.arrays import Floats
from results.charts import Chart, ChartGroup, colour, marks
from results.demand_charts import STATE_LEGEND, STATE_ORDER, servers_plot, states
from results.drawing import Mark
from results.figures import STATE_COLOURS
from results.plot import WIDE_PX, Plot
from results.scales import from_zero, percentages, run_time
from results.standing import mean_standing
from results.time_bins import binned_mean, time_bins

_NOT_HELD = Mark(label="not held by any server: free for others", colour="#c9ccd2", kind="square")


def server_group(intervals: pd.DataFrame, models: Sequence[str], fleet_gpus: float, end_s: float) -> ChartGroup:
    """GPUs of the whole fleet by state, GPUs by region and by model, servers of each region by state.

    `intervals` as results.standing has them; `models` in the order of their colours; `fleet_gpus`: all that the
    regions have, 0 where that is not known.
    """
    edges = time_bins(end_s)
    charts = [_fleet(intervals, fleet_gpus, edges, end_s)]
    regions = sorted(intervals["region"].astype(str).unique())
    charts.append(_held_by("region", regions, intervals, edges, end_s))
    charts.append(_held_by("model", _all_models(models, intervals), intervals, edges, end_s))
    for region in regions:
        of_region = states(intervals[intervals["region"] == region], edges)
        label = f"Servers in {region} by state"
        charts.append(Chart(title=label, plots=(servers_plot(label, of_region, edges, end_s, WIDE_PX, 110),)))
    return ChartGroup(
        title="Servers and GPUs by state, region and model",
        charts=tuple(charts),
        legend=(*STATE_LEGEND, _NOT_HELD),
        note="STARTING includes waking up. A sleeping server holds host memory and no GPU.",
        shown=True,
    )


def _fleet(intervals: pd.DataFrame, fleet_gpus: float, edges: Floats, end_s: float) -> Chart:
    series = {}
    for state in STATE_ORDER:
        rows = intervals[intervals["state"] == state]
        series[state] = mean_standing(rows, edges, rows["gpus"].to_numpy(np.float64))
    held = np.sum(list(series.values()), axis=0)
    title = "GPUs of the fleet by state"
    plot = Plot(title, run_time(end_s), from_zero(max(fleet_gpus, float(held.max(initial=0.0)))))
    shown = [(values, STATE_COLOURS[state]) for state, values in series.items() if values.any()]
    shown.append((np.maximum(fleet_gpus - held, 0.0), _NOT_HELD.colour))
    plot.stack(edges, [values for values, _ in shown], [ink for _, ink in shown])
    return Chart(title=title, plots=(plot.svg(),))


def _all_models(models: Sequence[str], rows: pd.DataFrame) -> list[str]:
    """`models`, then those that only `rows` name: so a model has one colour in all charts of a report."""
    return [*models, *sorted(set(rows["model"].astype(str)) - set(models))]


def _held_by(column: str, names: Sequence[str], intervals: pd.DataFrame, edges: Floats, end_s: float) -> Chart:
    series = []
    for name in names:
        rows = intervals[intervals[column] == name]
        series.append(mean_standing(rows, edges, rows["gpus"].to_numpy(np.float64)))
    most = float(np.sum(series, axis=0).max(initial=0.0)) if series else 0.0
    title = f"GPUs held by {column}"
    plot = Plot(title, run_time(end_s), from_zero(most))
    plot.stack(edges, series, [colour(index) for index in range(len(names))])
    return Chart(title=title, plots=(plot.svg(),), legend=marks(names, "square"))


def utilisation_group(pools: pd.DataFrame, models: Sequence[str], end_s: float) -> ChartGroup | None:
    """Effective KV utilisation of READY servers by model, a line per region; None when nothing was sampled."""
    if pools.empty:
        return None
    edges = time_bins(end_s)
    regions = sorted(pools["region"].astype(str).unique())
    charts = []
    for model in _all_models(models, pools):
        lines = [
            mean_utilisation(pools[(pools["model"] == model) & (pools["region"] == region)], edges)
            for region in regions
        ]
        most = max(float(np.nanmax(line, initial=0.0)) for line in lines)
        title = f"Utilisation of {model}"
        y = percentages() if most <= 1 else from_zero(most, show=lambda value: f"{value * 100:g} %")
        plot = Plot(title, run_time(end_s), y)
        for index, line in enumerate(lines):
            plot.steps(edges, line, colour(index), width=1.2)
        charts.append(Chart(title=model, plots=(plot.svg(),)))
    return ChartGroup(
        title="Utilisation",
        charts=tuple(charts),
        legend=marks(regions),
        note="Effective KV-cache utilisation of a pool's READY servers, as the controller sees it: above 100 % when "
        "requests wait. Averages over each bin, weighted with the servers; a gap where none was READY.",
    )


def mean_utilisation(rows: pd.DataFrame, edges: Floats) -> Floats:
    """Per bin the mean over rows of results.schema.POOLS, weighted with their READY servers; NaN where none was."""
    at_s, values, ready = (rows[name].to_numpy(np.float64) for name in ("at_s", "utilisation", "ready"))
    return binned_mean(at_s, values, edges, ready)
