"""GPUs as NVML saw them during a run: power, utilisation and memory of each."""

import numpy as np
import pandas as pd

from results.arrays import Floats
from results.charts import Chart, ChartGroup, colour, marks
from results.plot import Plot
from results.scales import Scale, from_zero, percentages, run_time
from results.time_bins import binned_mean, time_bins


def gpu_group(gpus: pd.DataFrame, end_s: float) -> ChartGroup | None:
    """From rows of results.schema.GPUS; None where nothing was read."""
    if gpus.empty:
        return None
    edges = time_bins(end_s)
    names = sorted(gpus["gpu"].unique())
    charts = []
    for column, title, scale in (
        ("power_w", "Power, W", 1.0),
        ("utilisation", "Utilisation", 1.0),
        ("memory_used_bytes", "Memory used, GiB", 2.0**30),
    ):
        lines = [_mean(gpus[gpus["gpu"] == name], column, edges) / scale for name in names]
        if all(np.isnan(line).all() for line in lines):
            continue
        most = max(float(np.nanmax(line, initial=0.0)) for line in lines)
        y: Scale = percentages() if column == "utilisation" else from_zero(most)
        plot = Plot(title, run_time(end_s), y)
        for index, line in enumerate(lines):
            plot.steps(edges, line, colour(index), width=1.2)
        charts.append(Chart(title=title, plots=(plot.svg(),)))
    if not charts:
        return None
    return ChartGroup(
        title="GPUs as NVML saw them",
        charts=tuple(charts),
        legend=marks([f"GPU {name}" for name in names]),
        note="Averages of the readings in each bin, whoever used the GPU; a gap where there was none.",
    )


def _mean(rows: pd.DataFrame, column: str, edges: Floats) -> Floats:
    return binned_mean(rows["at_s"].to_numpy(np.float64), rows[column].to_numpy(np.float64), edges)
