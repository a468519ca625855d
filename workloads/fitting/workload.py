"""A synthetic workload learned from a trace: what `make` draws from it has the trace's statistics."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.fitting.dispersion_match import matched_cv
from workloads.fitting.lengths import is_clipped, quantile_table, unclipped
from workloads.fitting.requests_by_minute import MinuteCounts, fitted_bursts, minute_counts
from workloads.fitting.tenants import Tenants, fitted_client_gaps, fitted_tenants
from workloads.fitting.week_rhythm import Rhythm, fitted_level, fitted_rhythm
from workloads.hourly_load import HOURS_PER_DAY, HOURS_PER_WEEK, hourly_load, whole_hours
from workloads.level_changes import largest_change
from workloads.model_workload import ModelWorkload
from workloads.output_correlation import output_correlations
from workloads.request import Tier
from workloads.shapes import LoadShape
from workloads.synthetic_workload import LevelStep, RegionOrigin, SyntheticWorkload, Weekday
from workloads.trace import Trace
from workloads.trace_checks import TraceError

Rows = npt.NDArray[np.bool_]

LEAST_REQUESTS = 100
LEAST_PHASE_H = 0.25  # below, regions peak together
STEP = 1.5
NO_NIW = 1e9
CORRELATED = 0.1
LEAST_SHARE = 1e-9  # of a model that only NIW asks for


class FitError(TraceError):
    """A trace that nothing can be learned from; one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedWorkload:
    """`notes` tell what the trace does not show and was assumed, and what of it a synthetic trace will not have."""

    workload: SyntheticWorkload
    digest: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What is learned of the interactive tiers, or of NIW."""

    shape: LoadShape
    steps: tuple[LevelStep, ...]
    notes: tuple[str, ...]


def fit_workload(trace: Trace) -> FittedWorkload:
    """Rates by hour and weekday, regions, models, tiers, levels, steps, bursts, tenants, gaps and lengths of `trace`.

    The run of the workload covers what the trace covers. A shape that the trace is too short to show is flat, and a
    note says so. Raises FitError for a trace with fewer than 100 requests or that covers no time.
    """
    if len(trace) < LEAST_REQUESTS or trace.horizon_s <= 0:
        raise FitError(f"{len(trace)} requests in {trace.horizon_s:g} s; at least {LEAST_REQUESTS} are needed to learn")
    notes = []
    calendar = trace.metadata.calendar
    if calendar is None:
        notes.append("the weekday of time 0 is not known: taken as Monday 00:00")
    start_h, day_s = (0.0, 86400.0) if calendar is None else (calendar.start_hour_of_week, calendar.day_s)
    offsets = _phase_offsets(trace)
    interactive = _part(trace, trace.interactive, "interactive", offsets)
    niw = _part(trace, ~trace.interactive, "niw", dict.fromkeys(offsets, 0.0))
    tenants, gaps = fitted_tenants(trace), fitted_client_gaps(trace)
    if tenants is None:
        notes.append("the trace does not say whose the requests are: one tenant")
    for name, value in output_correlations(trace).items():
        rows = trace.labels("model").rows(name)
        clipped = is_clipped(trace.numbers("prompt_tokens")[rows], trace.numbers("output_tokens")[rows])
        if abs(value) > CORRELATED and not clipped:
            notes.append(f"{name}: prompt and output lengths correlate by {value:.2f}; synthetic ones are independent")
    tenants = tenants or Tenants(count=1, skew=0.0)
    workload = SyntheticWorkload(
        mean_requests_per_s=_rounded(len(trace) / trace.horizon_s),
        horizon_h=trace.horizon_s * 24.0 / day_s,
        day_s=day_s,
        start_weekday=list(Weekday)[int(start_h // 24)],
        start_hour=start_h % 24,
        models=_models(trace),
        shares_of="requests",
        max_model_len_cap=max(2, int(trace.total_tokens.max())),
        regions=_regions(trace, offsets),
        interactive_per_niw=_interactive_per_niw(trace),
        iw_f_share_of_interactive=_iw_f_share(trace),
        interactive=interactive.shape,
        niw=niw.shape,
        level_steps=(*interactive.steps, *niw.steps),
        interarrival_cv={tier: _rounded(gaps.cv.get(tier, 1.0)) if gaps else 1.0 for tier in Tier},
        tenants=tenants.count,
        tenant_skew=tenants.skew,
        tenant_cv_sd=_rounded(gaps.cv_sd) if gaps else 0.0,
        weibull_share=_rounded(gaps.weibull_share) if gaps else 0.0,
        niw_deadline_h=_deadline_h(trace, day_s),
    )
    cv = {tier: _rounded(value) for tier, value in matched_cv(workload, trace).items()}
    return FittedWorkload(
        workload=workload.model_copy(update={"interarrival_cv": cv}),
        digest=trace.digest(),
        notes=(*notes, *interactive.notes, *niw.notes),
    )


def _part(trace: Trace, rows: Rows, name: str, offsets: dict[str, float]) -> _Part:
    hours = whole_hours(trace)
    flat = LoadShape(peak_to_trough=1.0, weekend_to_weekday=1.0, level_sd=0.0, bursts_per_day=0.0)
    if not rows.any():
        return _Part(shape=flat, steps=(), notes=())
    if hours.count < 2:
        note = f"{name}: the trace covers no two whole hours: an even rate, no bursts"
        return _Part(shape=flat, steps=(), notes=(note,))
    hour_of_week = np.arange(hours.count) % HOURS_PER_WEEK if hours.hour_of_week is None else hours.hour_of_week
    counts = minute_counts(trace, rows)
    steps, unstepped = _steps(trace, counts, name)
    rhythm = fitted_rhythm(unstepped.sum(axis=0), hour_of_week)
    at = rhythm.at(hour_of_week)
    expected = unstepped.mean(axis=1, keepdims=True) * at / at.mean() if at.mean() > 0 else np.zeros_like(unstepped)
    level = fitted_level(unstepped, expected, _hourly_dispersion(counts))
    bursts = fitted_bursts(counts)
    notes = []
    if np.isnan(rhythm.by_hour).any():
        notes.append(f"{name}: the trace does not cover every hour of a day: the others get the mean rate")
    if np.isnan(rhythm.by_weekday).any():
        notes.append(f"{name}: the trace does not cover every day of a week: the others get the mean rate")
    if not counts.eligible.any():
        notes.append(f"{name}: too few requests in a minute to tell a burst from chance: no bursts")
    shape = LoadShape(
        by_hour=tuple(_rounded(value) for value in _local(rhythm, trace, rows, offsets).tolist()),
        by_weekday=tuple(_rounded(value) for value in np.nan_to_num(rhythm.by_weekday, nan=1.0).tolist()),
        level_sd=_rounded(level.sd),
        level_correlation_h=_rounded(level.correlation_h),
        bursts_per_day=_rounded(bursts.per_day),
        burst_minutes=bursts.minutes,
        burst_factor_low=_rounded(bursts.factor_low),
        burst_factor_high=_rounded(bursts.factor_high),
    )
    return _Part(shape=shape, steps=steps, notes=tuple(notes))


def _steps(trace: Trace, counts: MinuteCounts, name: str) -> tuple[tuple[LevelStep, ...], npt.NDArray[np.float64]]:
    """The largest step of each model if it is one of 1.5 or more, and hourly requests without them."""
    hourly, hours, models = counts.hourly, whole_hours(trace), trace.labels("model").names
    unstepped, steps = hourly.copy(), []
    total = hourly.sum(axis=0)
    for number, model in enumerate(models if len(models) > 1 else ()):
        change = largest_change(hourly[number], total - hourly[number])
        if change is None or max(change.factor, 1 / change.factor) < STEP:
            continue
        at_h = hours.start_h + change.at
        steps.append({"model": model, "at_h": _rounded(at_h), "factor": _rounded(change.factor), "part": name})
        unstepped[number, change.at :] /= change.factor
    return tuple(LevelStep.model_validate(step) for step in steps), unstepped


def _hourly_dispersion(counts: MinuteCounts) -> float:
    """Variance over mean of requests in an hour by the chance of arrivals, from how much minutes in a row differ.

    Differences of neighbours are free of what moves within the hour; minutes are taken as independent.
    """
    difference = np.diff(counts.smooth, axis=2)
    mean = float(counts.smooth.mean())
    return float((difference**2).mean()) / 2 / mean if mean > 0 else 1.0


def _phase_offsets(trace: Trace) -> dict[str, float]:
    """How many hours each region's daily rhythm is ahead of that of all, from the interactive tiers (0: not known)."""
    region, interactive = trace.labels("region"), trace.interactive
    whole = hourly_load(trace, interactive).phase_h().value
    offsets = {}
    for name in region.names:
        own = hourly_load(trace, interactive & region.rows(name)).phase_h().value
        ahead = 0.0 if own is None or whole is None else (whole - own + 12.0) % 24.0 - 12.0
        offsets[name] = round(ahead, 2) if abs(ahead) >= LEAST_PHASE_H else 0.0
    return offsets


def _local(rhythm: Rhythm, trace: Trace, rows: Rows, offsets: dict[str, float]) -> npt.NDArray[np.float64]:
    """Relative rate by hour of local time, shape (24,): each region's own rhythm moved by its offset, then their mean.

    Where the trace lacks an hour of the day, or regions peak together, it is the rhythm in the trace's time.
    """
    by_hour = np.nan_to_num(rhythm.by_hour, nan=1.0)
    if not any(offsets.values()) or np.isnan(rhythm.by_hour).any():
        return by_hour
    hours, region = whole_hours(trace), trace.labels("region")
    hour_of_week = np.arange(hours.count) % HOURS_PER_WEEK if hours.hour_of_week is None else hours.hour_of_week
    total, hour = np.zeros(HOURS_PER_DAY), np.arange(HOURS_PER_DAY)
    for name in region.names:
        own = minute_counts(trace, rows & region.rows(name)).hourly.sum(axis=0)
        own_rhythm = fitted_rhythm(own, hour_of_week).by_hour * own.sum()
        total += np.interp(hour - offsets[name], hour, own_rhythm, period=HOURS_PER_DAY)
    return np.asarray(total / total.mean())


def _models(trace: Trace) -> dict[str, ModelWorkload]:
    model, region = trace.labels("model"), trace.labels("region")
    prompt, output, total = trace.numbers("prompt_tokens"), trace.numbers("output_tokens"), trace.total_tokens
    interactive = trace.interactive
    found = {}
    for name in model.names:
        rows = model.rows(name)
        of_region = np.bincount(region.codes[rows], minlength=len(region.names))
        of_interactive, of_niw = _share(rows, interactive), _share(rows, ~interactive)
        found[name] = ModelWorkload(
            share=max(of_interactive if interactive.any() else of_niw, LEAST_SHARE),
            niw_share=of_niw if not interactive.all() else None,
            max_model_len=max(2, int(total[rows].max())),
            prompt_tokens=quantile_table(unclipped(prompt[rows], output[rows])),
            output_tokens=quantile_table(output[rows]),
            region_shares={
                each: _rounded(count / rows.sum()) for each, count in zip(region.names, of_region.tolist(), strict=True)
            },
        )
    return found


def _share(rows: Rows, within: Rows) -> float:
    return _rounded(float((rows & within).sum()) / max(1, int(within.sum())))


def _regions(trace: Trace, offsets: dict[str, float]) -> dict[str, RegionOrigin]:
    region = trace.labels("region")
    shares = np.bincount(region.codes, minlength=len(region.names)) / len(trace)
    return {
        name: RegionOrigin(share=_rounded(share), phase_offset_h=offsets[name])
        for name, share in zip(region.names, shares.tolist(), strict=True)
    }


def _interactive_per_niw(trace: Trace) -> float:
    interactive = int(trace.interactive.sum())
    niw = len(trace) - interactive
    return _rounded(interactive / niw) if niw else NO_NIW


def _iw_f_share(trace: Trace) -> float:
    interactive = int(trace.interactive.sum())
    return _rounded(int(trace.labels("tier").rows(Tier.IW_F).sum()) / interactive) if interactive else 0.5


def _deadline_h(trace: Trace, day_s: float) -> float:
    slack_s = trace.numbers("deadline_s") - trace.numbers("arrival_s")
    slack_s = slack_s[np.isfinite(slack_s) & (slack_s > 0)]
    return _rounded(float(np.median(slack_s)) * 24.0 / day_s) if len(slack_s) else 24.0


def _rounded(value: float) -> float:
    """To five digits: what is learned from a sample is not known better."""
    return float(f"{value:.5g}")
