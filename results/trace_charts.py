"""A trace drawn: rates by tier, region and model, lengths, burstiness, rhythm."""

from collections.abc import Mapping

import numpy as np

from results.arrays import Floats, Mask
from results.charts import Chart, ChartGroup, colour, marks
from results.drawing import Mark
from results.figures import CDF_SHARES
from results.plot import Plot
from results.scales import Scale, decades, from_zero, percentages, plain, run_time
from results.time_bins import bin_of, time_bins
from workloads.dispersion import HOUR_S, index_of_dispersion, minute_to_hour_median
from workloads.hourly_load import HOURS_PER_DAY, hourly_load, whole_hours
from workloads.trace import Trace

_LONGEST_LAG_H = 7 * HOURS_PER_DAY
_LEAST_RATIO, _MOST_RATIO = 0.01, 100.0


def trace_groups(trace: Trace) -> tuple[ChartGroup, ...]:
    """Everything that is drawn of a trace with at least one request."""
    return (_rates(trace), _lengths(trace), _burstiness(trace), _rhythm(trace))


def _rates(trace: Trace) -> ChartGroup:
    edges = time_bins(trace.horizon_s)
    at = bin_of(trace.numbers("arrival_s"), edges)
    charts = []
    for column in ("tier", "region", "model"):
        labels = trace.labels(column)
        for unit, weights in (("requests/s", None), ("tokens/s", trace.total_tokens)):
            place = labels.codes.astype(np.int64) * (len(edges) - 1) + at
            counted = np.bincount(place, weights=weights, minlength=len(labels.names) * (len(edges) - 1))
            series = counted.reshape(len(labels.names), -1) / np.diff(edges)
            title = f"{unit.capitalize()} by {column}"
            plot = Plot(title, _time(trace), from_zero(float(series.sum(axis=0).max())))
            plot.stack(edges, list(series), [colour(index) for index in range(len(series))])
            charts.append(Chart(title=title, plots=(plot.svg(),), legend=marks(labels.names, "square")))
    return ChartGroup(
        title="Rate over time",
        charts=tuple(charts),
        note="Averages over each bin, by arrival; tokens are those of the prompt and of the answer.",
        shown=True,
    )


def _lengths(trace: Trace) -> ChartGroup:
    models = trace.labels("model")
    charts = []
    for column, title in (("prompt_tokens", "Prompt tokens"), ("output_tokens", "Output tokens")):
        lines = {
            index: np.quantile(trace.numbers(column)[models.codes == index], CDF_SHARES)
            for index in range(len(models.names))
        }
        x = decades(1.0, max(float(line[-1]) for line in lines.values()), plain)
        charts.append(_distribution(title, lines, x))
    return ChartGroup(
        title="Lengths: share of requests at or below",
        charts=tuple(charts),
        legend=marks(models.names),
        note="On a logarithmic axis.",
        shown=True,
    )


def _burstiness(trace: Trace) -> ChartGroup:
    classes = _classes(trace)
    arrivals = {name: trace.numbers("arrival_s")[rows] for name, rows in classes.items()}
    peaks = {
        index: np.quantile(np.clip(ratios, _LEAST_RATIO, _MOST_RATIO), CDF_SHARES)
        for index, times in enumerate(arrivals.values())
        if (ratios := minute_to_hour_median(times, trace.horizon_s)).size
    }
    charts = []
    if peaks:
        x = decades(0.1, max(10.0, *(float(line[-1]) for line in peaks.values())), plain)
        charts.append(_distribution("Requests of a minute over the median minute of its hour", peaks, x))
    hours = np.arange(int(trace.horizon_s // HOUR_S) + 1, dtype=np.float64) * float(HOUR_S)
    if len(hours) > 1:
        lines = [_dispersion(times, hours) for times in arrivals.values()]
        most = max(float(np.nanmax(line, initial=1.0)) for line in lines)
        title = "Index of dispersion of 10 s counts, hour by hour"
        plot = Plot(title, _time(trace), from_zero(most))
        for index, line in enumerate(lines):
            plot.steps(hours, line, colour(index), width=1.2)
        plot.level(1.0)
        charts.append(Chart(title=title, plots=(plot.svg(),)))
    return ChartGroup(
        title="Burstiness",
        charts=tuple(charts),
        legend=(*marks(tuple(classes)), Mark(label="Poisson arrivals", colour="ink", kind="dotted")),
        note="Dispersion within minutes, so that the daily curve is not in it."
        if charts
        else "The trace is shorter than an hour.",
        shown=True,
    )


def _rhythm(trace: Trace) -> ChartGroup:
    classes = _classes(trace)
    lines = {name: _autocorrelation(hourly_load(trace, rows).load) for name, rows in classes.items()}
    longest = max(len(line) for line in lines.values())
    charts = []
    if longest:
        title = "Autocorrelation of hourly load by lag"
        ticks = tuple((value, f"{value:g}") for value in (-1.0, -0.5, 0.0, 0.5, 1.0))
        hour_s = whole_hours(trace).hour_s
        x = run_time(longest * hour_s, title="lag")
        plot = Plot(title, x, Scale(low=-1.0, high=1.0, ticks=ticks))
        for index, line in enumerate(lines.values()):
            plot.line(np.arange(1, len(line) + 1, dtype=np.float64) * float(hour_s), line, colour(index))
        charts.append(Chart(title=title, plots=(plot.svg(),)))
    return ChartGroup(
        title="Rhythm",
        charts=tuple(charts),
        legend=marks(tuple(classes)),
        note="Of tokens per hour, all days; a lag of a day has a peak where days are alike."
        if charts
        else "The trace has fewer than four whole hours.",
        shown=True,
    )


def _classes(trace: Trace) -> Mapping[str, Mask]:
    interactive = trace.interactive
    found = {"interactive": interactive, "NIW": ~interactive}
    return {name: rows for name, rows in found.items() if rows.any()}


def _time(trace: Trace) -> Scale:
    return run_time(trace.horizon_s, title="time of the trace")


def _distribution(title: str, lines: Mapping[int, Floats], x: Scale) -> Chart:
    plot = Plot(title, x, percentages())
    for index, line in lines.items():
        plot.line(line, CDF_SHARES, colour(index))
    return Chart(title=title, plots=(plot.svg(),))


def _dispersion(arrival_s: Floats, hours: Floats) -> Floats:
    found = np.full(len(hours) - 1, np.nan)
    for index, (first, last) in enumerate(zip(*np.searchsorted(arrival_s, (hours[:-1], hours[1:])), strict=True)):
        value = index_of_dispersion(arrival_s[first:last] - hours[index], HOUR_S)
        found[index] = np.nan if value is None else value
    return found


def _autocorrelation(load: Floats) -> Floats:
    """Correlation of the hours with those `lag` hours later, for lags up to half of the trace and a week."""
    lags = min(len(load) // 2, _LONGEST_LAG_H)
    found = np.full(max(lags, 0), np.nan)
    for lag in range(1, lags + 1):
        before, after = load[:-lag], load[lag:]
        if before.std() > 0 and after.std() > 0:
            found[lag - 1] = np.corrcoef(before, after)[0, 1]
    return found if lags >= 2 else found[:0]
