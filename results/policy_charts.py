"""The series and figures of one policy: demand against forecast and capacity, servers by state, GPUs by region."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from controller.types import Forecast, Pool
from results.decisions import DecisionLog
from results.demand import bin_edges, interactive, non_interactive, token_stream
from results.figures import demand_and_servers, stacked_over_time
from results.standing import STANDING, mean_standing, server_intervals

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure and its title; `legend` names what is stacked, in the order of the palette."""

    title: str
    svg: str
    legend: tuple[str, ...] = ()


def model_charts(completions: pd.DataFrame, servers: pd.DataFrame, log: DecisionLog, end_s: float) -> tuple[Chart, ...]:
    """One chart per model that was asked for or served, most tokens first."""
    edges = bin_edges(end_s)
    intervals = server_intervals(servers, end_s)
    tokens = (
        (completions["prompt_tokens"] + completions["output_tokens"]).groupby(completions["model"].astype(str)).sum()
    )
    models = list(tokens.sort_values(ascending=False, kind="stable").index)
    models += sorted(set(intervals["model"].astype(str)) - set(models))
    return tuple(
        Chart(
            title=model,
            svg=demand_and_servers(
                edges,
                _demand(
                    completions[completions["model"] == model],
                    intervals[intervals["model"] == model],
                    log,
                    model,
                    edges,
                ),
                _states(intervals[intervals["model"] == model], edges),
                model,
            ),
        )
        for model in models
    )


def gpu_charts(servers: pd.DataFrame, end_s: float) -> tuple[Chart, ...]:
    """GPUs held over time by region, and by model."""
    edges = bin_edges(end_s)
    intervals = server_intervals(servers, end_s)
    charts = []
    for column in ("region", "model"):
        names = sorted(intervals[column].astype(str).unique())
        series = {}
        for name in names:
            rows = intervals[intervals[column] == name]
            series[name] = mean_standing(rows, edges, rows["gpus"].to_numpy(np.float64))
        title = f"GPUs held by {column}"
        charts.append(Chart(title=title, svg=stacked_over_time(edges, series, "GPUs", title), legend=tuple(names)))
    return tuple(charts)


def _demand(
    asked: pd.DataFrame, intervals: pd.DataFrame, log: DecisionLog, model: str, edges: Floats
) -> dict[str, Floats]:
    series = {
        "observed, NIW": token_stream(non_interactive(asked)).per_s(edges),
        "observed, interactive": token_stream(interactive(asked)).per_s(edges),
    }
    forecasts = [(pool, forecast) for pool, forecast in log.forecasts() if pool.model == model]
    if forecasts:
        series["forecast, mean"] = forecast_over_time(forecasts, edges, upper=False)
        series["forecast, upper"] = forecast_over_time(forecasts, edges, upper=True)
    ready = intervals[intervals["state"] == "READY"]
    theta = [log.theta_tokens_per_s.get((model, str(gpu_type))) for gpu_type in ready["gpu_type"]]
    if ready.empty or None not in theta:
        series["capacity of READY servers"] = mean_standing(ready, edges, [value or 0.0 for value in theta])
    return series


def _states(intervals: pd.DataFrame, edges: Floats) -> dict[str, Floats]:
    order = ("READY", *(state for state in STANDING if state != "READY"))
    return {state: mean_standing(intervals[intervals["state"] == state], edges) for state in order}


def forecast_over_time(forecasts: Sequence[tuple[Pool, Forecast]], edges_s: Floats, *, upper: bool) -> Floats:
    """Forecast tokens/s in the middle of each bin, summed over pools; NaN where no pool had a forecast.

    Where forecasts overlap the newest counts, as it did for the policy.
    """
    middles = (edges_s[:-1] + edges_s[1:]) / 2
    by_pool: dict[Pool, Floats] = {}
    for pool, forecast in forecasts:
        values = np.asarray(forecast.upper_tokens_per_s if upper else forecast.mean_tokens_per_s)
        step = np.floor((middles - forecast.from_s) / forecast.step_s).astype(np.int64)
        covered = (step >= 0) & (step < len(values))
        line = by_pool.setdefault(pool, np.full(len(middles), np.nan))
        line[covered] = values[step[covered]]
    lines = np.array(list(by_pool.values()))
    return np.where(np.isnan(lines).all(axis=0), np.nan, np.nansum(lines, axis=0))
