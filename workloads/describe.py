"""Describe a trace: the statistics by which production traces are told from toys."""

from math import isclose

import numpy as np
import numpy.typing as npt

from workloads.description import GroupTotals, LengthDescription, LoadDescription, Statistic, TraceDescription
from workloads.dispersion import index_of_dispersion, interarrival_cv
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import NO_TENANT
from workloads.trace_metadata import Calendar

Rows = npt.NDArray[np.bool_]
Series = npt.NDArray[np.float64]

HOURS_PER_DAY = 24
WEEKDAYS = 5
MINUTE_S = 60.0
MINUTES_PER_HOUR = 60


def describe(trace: Trace) -> TraceDescription:
    """Statistics of `trace`; one whose window is longer than the trace is None with a reason."""
    interactive = trace.interactive
    niw_requests = len(trace) - int(interactive.sum())
    return TraceDescription(
        requests=len(trace),
        horizon_s=trace.horizon_s,
        tiers=_groups(trace, "tier"),
        models=_groups(trace, "model"),
        regions=_groups(trace, "region"),
        interactive_per_niw=Statistic(value=float(interactive.sum()) / niw_requests)
        if niw_requests
        else Statistic(value=None, reason="no NIW requests"),
        top_10_tenants_share=_top_tenants(trace, 10),
        loads={
            "all": _load(trace, np.ones(len(trace), dtype=np.bool_)),
            "interactive": _load(trace, interactive),
            Tier.NIW.value.lower(): _load(trace, ~interactive),
        },
        prompt_lengths=_lengths(trace, "prompt_tokens"),
        output_lengths=_lengths(trace, "output_tokens"),
    )


def _groups(trace: Trace, column: str) -> dict[str, GroupTotals]:
    labels = trace.labels(column)
    size = len(labels.names)
    requests = np.bincount(labels.codes, minlength=size)
    prompt = np.bincount(labels.codes, weights=trace.numbers("prompt_tokens"), minlength=size)
    output = np.bincount(labels.codes, weights=trace.numbers("output_tokens"), minlength=size)
    tokens = float((prompt + output).sum())
    return {
        name: GroupTotals(
            requests=int(requests[i]),
            prompt_tokens=int(prompt[i]),
            output_tokens=int(output[i]),
            request_share=float(requests[i]) / len(trace),
            token_share=float(prompt[i] + output[i]) / tokens,
        )
        for i, name in enumerate(labels.names)
    }


def _lengths(trace: Trace, column: str) -> dict[str, LengthDescription]:
    model, tokens = trace.labels("model"), trace.numbers(column)
    found = {}
    for name in model.names:
        of_model = tokens[model.rows(name)]
        p50, p90, p98, p99 = (float(value) for value in np.percentile(of_model, [50, 90, 98, 99]))
        found[name] = LengthDescription(
            mean=float(of_model.mean()), p50=p50, p90=p90, p98=p98, p99=p99, most=float(of_model.max())
        )
    return found


def _top_tenants(trace: Trace, count: int) -> Statistic:
    tenant = trace.numbers("tenant")
    if not len(tenant) or (tenant == NO_TENANT).any():
        return Statistic(value=None, reason="the trace does not say whose the requests are")
    sizes = np.sort(np.unique(tenant, return_counts=True)[1])[::-1]
    return Statistic(value=float(sizes[:count].sum()) / len(trace))


def _load(trace: Trace, rows: Rows) -> LoadDescription:
    arrival_s, tokens = trace.numbers("arrival_s")[rows], trace.total_tokens[rows].astype(np.float64)
    horizon_s = trace.horizon_s
    # Without a calendar hours are hours, and every day may be any day: weekday statistics are refused below.
    calendar = trace.metadata.calendar
    hour_s = (calendar or Calendar(start_hour_of_week=0.0)).day_s / HOURS_PER_DAY
    hourly, hour_of_week = _hourly(arrival_s, tokens, horizon_s, hour_s, calendar)
    empty = Statistic(value=None, reason="the trace covers no time")
    dispersion = index_of_dispersion(arrival_s, horizon_s)
    cv = interarrival_cv(arrival_s)
    return LoadDescription(
        requests_per_s=Statistic(value=len(arrival_s) / horizon_s) if horizon_s else empty,
        tokens_per_s=Statistic(value=float(tokens.sum()) / horizon_s) if horizon_s else empty,
        peak_to_trough=_peak_to_trough(hourly, hour_of_week, 1),
        peak_to_trough_4h=_peak_to_trough(hourly, hour_of_week, 4),
        autocorrelation_24h=_autocorrelation(hourly, hour_of_week),
        weekend_to_weekday=_weekend(hourly, hour_of_week),
        minute_p99_to_hour_median=_minute_peaks(arrival_s, horizon_s),
        interarrival_cv=_or(cv, "no minute with more than 10 arrivals"),
        index_of_dispersion_10s=_or(dispersion, "no whole minute with an arrival"),
    )


def _or(value: float | None, reason: str) -> Statistic:
    return Statistic(value=value, reason=reason if value is None else "")


def _hourly(
    arrival_s: Series, weights: Series, horizon_s: float, hour_s: float, calendar: Calendar | None
) -> tuple[Series, npt.NDArray[np.int64] | None]:
    """Load in the whole clock hours of the trace, and for each its hour of the week (None without a calendar)."""
    start_h = calendar.start_hour_of_week if calendar else 0.0
    first_s = (np.ceil(start_h - 1e-9) - start_h) * hour_s
    hours = max(0, int((horizon_s - first_s) / hour_s + 1e-9))
    place = np.floor((arrival_s - first_s) / hour_s).astype(np.int64)
    inside = (place >= 0) & (place < hours)
    hourly = np.bincount(place[inside], weights=weights[inside], minlength=hours).astype(np.float64)
    if calendar is None:
        return hourly, None
    return hourly, (int(np.ceil(start_h - 1e-9)) + np.arange(hours)) % (7 * HOURS_PER_DAY)


def _peak_to_trough(hourly: Series, hour_of_week: npt.NDArray[np.int64] | None, hours: int) -> Statistic:
    if hour_of_week is None:
        weekday, hour_of_day = np.ones(len(hourly), dtype=np.bool_), np.arange(len(hourly)) % HOURS_PER_DAY
    else:
        weekday, hour_of_day = hour_of_week < WEEKDAYS * HOURS_PER_DAY, hour_of_week % HOURS_PER_DAY
    seen = np.bincount(hour_of_day[weekday], minlength=HOURS_PER_DAY)
    if (seen == 0).any():
        return Statistic(value=None, reason="the trace does not cover every hour of a weekday")
    profile = np.bincount(hour_of_day[weekday], weights=hourly[weekday], minlength=HOURS_PER_DAY) / seen
    profile = profile.reshape(-1, hours).mean(axis=1)
    if profile.min() <= 0:
        return Statistic(value=None, reason="an hour of the day without load")
    return Statistic(value=float(profile.max() / profile.min()))


def _autocorrelation(hourly: Series, hour_of_week: npt.NDArray[np.int64] | None) -> Statistic:
    early, late = hourly[:-HOURS_PER_DAY], hourly[HOURS_PER_DAY:]
    if hour_of_week is not None:
        weekday = hour_of_week < WEEKDAYS * HOURS_PER_DAY
        pairs = weekday[:-HOURS_PER_DAY] & weekday[HOURS_PER_DAY:]
        early, late = early[pairs], late[pairs]
    if len(early) < HOURS_PER_DAY:
        return Statistic(value=None, reason="shorter than two whole weekdays in a row")
    if isclose(float(early.std()), 0.0) or isclose(float(late.std()), 0.0):
        return Statistic(value=None, reason="the load does not change")
    return Statistic(value=float(np.corrcoef(early, late)[0, 1]))


def _weekend(hourly: Series, hour_of_week: npt.NDArray[np.int64] | None) -> Statistic:
    if hour_of_week is None:
        return Statistic(value=None, reason="the weekday of time 0 is not known")
    weekday = hour_of_week < WEEKDAYS * HOURS_PER_DAY
    if weekday.sum() < HOURS_PER_DAY or (~weekday).sum() < HOURS_PER_DAY:
        return Statistic(value=None, reason="the trace lacks a day of weekdays or a day of weekend")
    if hourly[weekday].sum() <= 0:
        return Statistic(value=None, reason="no load on weekdays")
    return Statistic(value=float(hourly[~weekday].mean() / hourly[weekday].mean()))


def _minute_peaks(arrival_s: Series, horizon_s: float) -> Statistic:
    hours = int(horizon_s // (MINUTE_S * MINUTES_PER_HOUR))
    if not hours:
        return Statistic(value=None, reason="shorter than an hour")
    place = (arrival_s / MINUTE_S).astype(np.int64)
    minutes = hours * MINUTES_PER_HOUR
    counts = np.bincount(place[place < minutes], minlength=minutes).reshape(hours, MINUTES_PER_HOUR)
    median = np.median(counts, axis=1, keepdims=True)
    busy = median[:, 0] > 0
    if not busy.any():
        return Statistic(value=None, reason="most minutes of every hour have no arrival")
    return Statistic(value=float(np.percentile(counts[busy] / median[busy], 99)))
