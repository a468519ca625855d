"""Demand against forecast and capacity, with the servers beneath, by model and by pool."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from controller.types import Pool
from results.arrays import Floats
from results.charts import Chart, ChartGroup
from results.decisions import DecisionLog
from results.demand import interactive, non_interactive, token_stream
from results.drawing import Mark
from results.figures import STATE_COLOURS
from results.forecast_lines import ForecastLine, forecast_lines, summed
from results.plot import NARROW_PX, WIDE_PX, Plot
from results.scales import from_zero, run_time
from results.standing import STANDING, mean_standing
from results.time_bins import time_bins

STATE_ORDER = ("READY", *(state for state in STANDING if state != "READY"))
_INTERACTIVE, _NIW, _FORECAST, _CAPACITY = "#3b82f6", "#8a919e", "#9b6ef3", "#2ea36b"
_LEGEND = (
    Mark(label="interactive, observed", colour=_INTERACTIVE, kind="band"),
    Mark(label="NIW, observed", colour=_NIW, kind="line"),
    Mark(label="capacity of READY servers", colour=_CAPACITY, kind="line"),
)
_FORECAST_LEGEND = (
    Mark(label="forecast of interactive, mean", colour=_FORECAST, kind="dashed"),
    Mark(label="up to its upper quantile", colour=_FORECAST, kind="band"),
)
STATE_LEGEND = tuple(Mark(label=state, colour=STATE_COLOURS[state], kind="square") for state in STATE_ORDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSeries:
    """Tokens/s per bin of one pool; `capacity` None where a server's theta is not known. `states`: servers by state."""

    interactive: Floats
    niw: Floats
    capacity: Floats | None
    states: dict[str, Floats]
    forecast: ForecastLine | None


def pool_series(
    completions: pd.DataFrame, intervals: pd.DataFrame, log: DecisionLog, models: Sequence[str], end_s: float
) -> dict[Pool, PoolSeries]:
    """Of every pool that was asked or served; models in the order given. `intervals` as results.standing has them."""
    edges = time_bins(end_s)
    asked, spare = _streams(interactive(completions), edges), _streams(non_interactive(completions), edges)
    standing = {
        Pool(str(model), str(region)): rows
        for (model, region), rows in intervals.groupby(["model", "region"], observed=True)
    }
    forecasts = forecast_lines(log.forecasts(), edges)
    pools = {*asked, *spare, *standing, *forecasts}
    nothing = np.zeros(len(edges) - 1)
    place = {model: index for index, model in enumerate(models)}
    return {
        pool: PoolSeries(
            interactive=asked.get(pool, nothing),
            niw=spare.get(pool, nothing),
            capacity=_capacity(standing.get(pool, intervals[:0]), log, edges),
            states=states(standing.get(pool, intervals[:0]), edges),
            forecast=forecasts.get(pool),
        )
        for pool in sorted(pools, key=lambda pool: (place.get(pool.model, len(place)), pool))
    }


def states(intervals: pd.DataFrame, edges: Floats) -> dict[str, Floats]:
    """Servers by state, averages over each bin."""
    return {state: mean_standing(intervals[intervals["state"] == state], edges) for state in STATE_ORDER}


def demand_groups(series: dict[Pool, PoolSeries], end_s: float) -> tuple[ChartGroup, ...]:
    """By model over all regions, then pool by pool."""
    edges = time_bins(end_s)
    models = list(dict.fromkeys(pool.model for pool in series))
    has_forecasts = any(each.forecast is not None for each in series.values())
    legend = _LEGEND + (_FORECAST_LEGEND if has_forecasts else ())
    by_model = tuple(
        _chart(model, _sum([each for pool, each in series.items() if pool.model == model]), edges, end_s, WIDE_PX)
        for model in models
    )
    by_pool = tuple(_chart(str(pool), each, edges, end_s, NARROW_PX) for pool, each in series.items())
    counted = "prompt tokens when a request arrived, output tokens when its answer ended; averages over each bin"
    return (
        ChartGroup(
            title="Demand, forecast, capacity and servers by model",
            charts=by_model,
            legend=(*legend, *STATE_LEGEND),
            note=f"Above: tokens/s, {counted}; forecasts are summed over regions, the newest where they overlap"
            f"{'' if has_forecasts else ' (this policy made none)'}. Capacity: READY servers times the theta that the "
            "run began with. Below: servers; those asleep hold no GPU.",
            shown=True,
        ),
        ChartGroup(
            title=f"The same by pool: {len(by_pool)} of a model and a region",
            charts=by_pool,
            legend=(*legend, *STATE_LEGEND),
            note="Demand by region of origin, capacity by region of the servers: one region may serve another's.",
            small=True,
        ),
    )


def _streams(completions: pd.DataFrame, edges: Floats) -> dict[Pool, Floats]:
    groups = completions.groupby(["model", "region"], observed=True)
    return {Pool(str(model), str(region)): token_stream(rows).per_s(edges) for (model, region), rows in groups}


def _capacity(intervals: pd.DataFrame, log: DecisionLog, edges: Floats) -> Floats | None:
    ready = intervals[intervals["state"] == "READY"]
    kinds = zip(ready["model"].astype(str), ready["gpu_type"].astype(str), strict=True)
    theta = [log.theta_tokens_per_s.get(kind) for kind in kinds]
    return None if None in theta else mean_standing(ready, edges, [value or 0.0 for value in theta])


def _sum(of: Sequence[PoolSeries]) -> PoolSeries:
    known = [each.capacity for each in of if each.capacity is not None]
    forecasts = [each.forecast for each in of if each.forecast is not None]
    return PoolSeries(
        interactive=np.sum([each.interactive for each in of], axis=0),
        niw=np.sum([each.niw for each in of], axis=0),
        capacity=np.sum(known, axis=0) if len(known) == len(of) else None,
        states={state: np.sum([each.states[state] for each in of], axis=0) for state in STATE_ORDER},
        forecast=summed(forecasts) if forecasts else None,
    )


def _chart(name: str, each: PoolSeries, edges: Floats, end_s: float, width: int) -> Chart:
    levels = [each.interactive, each.niw, *(() if each.capacity is None else (each.capacity,))]
    if each.forecast is not None:
        levels.append(each.forecast.upper)
    most = max(float(np.nanmax(level, initial=0.0)) for level in levels)
    time = run_time(end_s, ticks=7 if width == WIDE_PX else 5)
    upper = Plot(f"Tokens/s of {name} over time", time.untitled, from_zero(most), width=width)
    upper.area(edges, np.zeros(len(edges) - 1), each.interactive, _INTERACTIVE, 0.35)
    if each.forecast is not None:
        upper.area(edges, each.forecast.mean, each.forecast.upper, _FORECAST, 0.22)
        upper.steps(edges, each.forecast.mean, _FORECAST, "dashed")
    upper.steps(edges, each.niw, _NIW, width=1.1)
    if each.capacity is not None:
        upper.steps(edges, each.capacity, _CAPACITY)
    lower = servers_plot(f"Servers of {name} over time", each.states, edges, end_s, width)
    return Chart(title=name, plots=(upper.svg(), lower))


def servers_plot(label: str, of: dict[str, Floats], edges: Floats, end_s: float, width: int, height: int = 60) -> str:
    """Servers by state, stacked."""
    shown = {state: values for state, values in of.items() if values.any()}
    most = float(np.sum(list(of.values()), axis=0).max(initial=0.0))
    plot = Plot(
        label, run_time(end_s, ticks=7 if width == WIDE_PX else 5), from_zero(most, ticks=3), width=width, height=height
    )
    plot.stack(edges, list(shown.values()), [STATE_COLOURS[state] for state in shown])
    return plot.svg()
