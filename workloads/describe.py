"""Describe a trace: the statistics by which production traces are told from toys."""

import numpy as np
import numpy.typing as npt

from workloads.description import GroupTotals, LengthDescription, LoadDescription, Statistic, TraceDescription
from workloads.dispersion import HOUR_S, index_of_dispersion, interarrival_cv, minute_to_hour_median
from workloads.hourly_load import hourly_load
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import NO_TENANT


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


def _load(trace: Trace, rows: npt.NDArray[np.bool_]) -> LoadDescription:
    arrival_s, tokens = trace.numbers("arrival_s")[rows], int(trace.total_tokens[rows].sum())
    horizon_s = trace.horizon_s
    hourly = hourly_load(trace, rows)
    empty = Statistic(value=None, reason="the trace covers no time")
    dispersion = index_of_dispersion(arrival_s, horizon_s)
    cv = interarrival_cv(arrival_s)
    return LoadDescription(
        requests_per_s=Statistic(value=len(arrival_s) / horizon_s) if horizon_s else empty,
        tokens_per_s=Statistic(value=tokens / horizon_s) if horizon_s else empty,
        peak_to_trough=hourly.peak_to_trough(1),
        peak_to_trough_4h=hourly.peak_to_trough(4),
        autocorrelation_24h=hourly.autocorrelation_24h(),
        weekend_to_weekday=hourly.weekend_to_weekday(),
        minute_p99_to_hour_median=_minute_peaks(arrival_s, horizon_s),
        interarrival_cv=_or(cv, "no minute with more than 10 arrivals"),
        index_of_dispersion_10s=_or(dispersion, "no whole minute with an arrival"),
    )


def _or(value: float | None, reason: str) -> Statistic:
    return Statistic(value=value, reason=reason if value is None else "")


def _minute_peaks(arrival_s: npt.NDArray[np.float64], horizon_s: float) -> Statistic:
    if horizon_s < HOUR_S:
        return Statistic(value=None, reason="shorter than an hour")
    ratios = minute_to_hour_median(arrival_s, horizon_s)
    if not ratios.size:
        return Statistic(value=None, reason="most minutes of every hour have no arrival")
    return Statistic(value=float(np.percentile(ratios, 99)))
