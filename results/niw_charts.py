"""The NIW queue: how many requests waited in it, and how long the oldest of them had."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from results.arrays import Floats
from results.charts import Chart, ChartGroup, colour, marks
from results.demand import non_interactive
from results.plot import Plot
from results.quantities import seconds
from results.scales import from_zero, run_time
from results.standing import mean_between
from results.time_bins import time_bins


def niw_group(completions: pd.DataFrame, models: Sequence[str], end_s: float) -> ChartGroup | None:
    """From arrival until a request left for a server or was given up; None without NIW requests."""
    rows = non_interactive(completions)
    if rows.empty:
        return None
    edges = time_bins(end_s)
    waiting, ages = [], []
    for model in models:
        of_model = rows[rows["model"] == model]
        from_s = of_model["arrival_s"].to_numpy(np.float64)
        to_s = np.minimum(of_model["sent_s"].to_numpy(np.float64), end_s)
        waiting.append(mean_between(from_s, to_s, edges, np.ones(len(from_s))))
        ages.append(oldest_age_s(from_s, to_s, edges))
    length = Plot("Requests in the NIW queue", run_time(end_s), from_zero(float(np.sum(waiting, axis=0).max())))
    length.stack(edges, waiting, [colour(index) for index in range(len(models))])
    oldest = max(float(age.max()) for age in ages)
    age_plot = Plot("Age of the oldest request in the NIW queue", run_time(end_s), from_zero(oldest, show=seconds))
    for index, age in enumerate(ages):
        age_plot.steps(edges, age, colour(index), width=1.2)
    return ChartGroup(
        title="NIW queue",
        charts=(
            Chart(title="Requests waiting, stacked by model", plots=(length.svg(),)),
            Chart(title="Age of the oldest by model, at the end of each bin", plots=(age_plot.svg(),)),
        ),
        legend=marks(models),
        note="From the arrival of a request until it left for a server, or was given up.",
    )


def oldest_age_s(from_s: Floats, to_s: Floats, edges_s: Floats) -> Floats:
    """At the end of each bin the time since the earliest `from_s` of those that wait then; 0 where none does."""
    # Most leave within the bin they came in: no edge sees them.
    first = np.searchsorted(edges_s, from_s, side="left")
    last = np.searchsorted(edges_s, to_s, side="left")
    seen = first < last
    from_s, to_s = from_s[seen], to_s[seen]
    ages = np.zeros(len(edges_s) - 1)
    for index, edge in enumerate(edges_s[1:]):
        there = (from_s <= edge) & (to_s > edge)
        if there.any():
            ages[index] = edge - from_s[there].min()
    return ages
