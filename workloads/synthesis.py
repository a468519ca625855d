"""Synthesis: a trace drawn from a workload's numbers and a seed.

Every (model, region, tier, tenant) has a random stream of its own for every synthetic day, counted from time 0. So the
same seed gives the same requests whatever window is asked for - the days before time 0 can be drawn as history, or not,
and the run stays the same - and a change to one stream leaves the others alone.
"""

from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from workloads.arrivals import modulated_times
from workloads.lengths import at_quantiles, clipped
from workloads.request import Tier
from workloads.seeds import generator
from workloads.shapes import MINUTES_PER_DAY, Curve, bursts, random_level, weekly_curve
from workloads.synthetic_workload import SyntheticWorkload, short_workload
from workloads.trace import TIME_DECIMALS, Labels, Trace
from workloads.trace_metadata import TraceMetadata, TraceStep

__all__ = ["SyntheticWorkload", "short_workload", "synthesise"]

Stream = tuple[str, str, Tier]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Requests of one stream and tenant on one day, not sorted between batches; arrays of one length."""

    stream: Stream
    tenant: int
    arrival_s: npt.NDArray[np.float64]
    prompt_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    cut: npt.NDArray[np.bool_]


def synthesise(workload: SyntheticWorkload, seed: int, *, from_h: float = 0.0, to_h: float | None = None) -> Trace:
    """The requests that arrive from `from_h` to before `to_h` (hours of the synthetic day; default: the whole run).

    Arrivals in the trace are seconds since `from_h`; request ids count from 0. The history of a run is
    `synthesise(workload, seed, from_h=-96, to_h=0)`; it ends where `synthesise(workload, seed)` begins and neither
    depends on the other being drawn. `metadata.steps[0]` records the workload, the window and, by model, the share of
    requests whose prompt or output had to be cut to the model's context (`cut_share`).
    Raises ValueError for a negative seed or a window that is empty.
    """
    to_h = workload.horizon_h if to_h is None else to_h
    if seed < 0:
        raise ValueError(f"seed={seed}; must be 0 or more")
    if not from_h < to_h:
        raise ValueError(f"window from_h={from_h} to_h={to_h} is empty; from_h must be below to_h")
    from_s, to_s = workload.seconds(from_h), workload.seconds(to_h)
    horizon_s = round(to_s - from_s, TIME_DECIMALS)
    batches = [_within(batch, from_s, horizon_s) for batch in _draw(workload, seed, from_h, to_h)]
    batches = [batch for batch in batches if len(batch.arrival_s)]
    step = TraceStep(
        name="synthesise",
        parameters={
            "seed": seed,
            "from_h": from_h,
            "to_h": to_h,
            "cut_share": {name: _cut_share(name, batches) for name in workload.models},
            "workload": workload.model_dump(mode="json"),
        },
    )
    metadata = TraceMetadata(horizon_s=horizon_s, seed=seed, calendar=workload.calendar.moved(from_s), steps=(step,))
    return _assembled(batches, workload, metadata)


def _draw(workload: SyntheticWorkload, seed: int, from_h: float, to_h: float) -> list[_Batch]:
    """Whole days that cover the window, stream by stream, with times counted from time 0 of the run."""
    shares = workload.request_shares()
    tenant_shares = np.arange(1, workload.tenants + 1, dtype=np.float64) ** -workload.tenant_skew
    tenant_shares /= tenant_shares.sum()
    days = range(floor(from_h / 24.0), ceil(to_h / 24.0))
    batches = []
    for stream, share in shares.items():
        scale_per_s = workload.mean_requests_per_s * share / _run_mean(workload, stream)
        for day in days:
            edges_s = day * workload.day_s + np.linspace(0.0, workload.day_s, MINUTES_PER_DAY + 1)
            rate_per_s = scale_per_s * _day_curve(workload, seed, stream, day)
            for tenant, tenant_share in enumerate(tenant_shares.tolist()):
                batch = _tenant_day(workload, seed, stream, tenant, day, edges_s, rate_per_s * tenant_share)
                if len(batch.arrival_s):
                    batches.append(batch)
    return batches


def _day_curve(workload: SyntheticWorkload, seed: int, stream: Stream, day: int) -> Curve:
    """Relative rate of a stream in each minute of a day, shape (1440,): what is planned times chance."""
    model, _, tier = stream
    shape = workload.shape(tier)
    minute_h = 24.0 * day + (np.arange(MINUTES_PER_DAY, dtype=np.float64) + 0.5) / 60.0
    # One level and the same bursts for all regions and both interactive tiers: what moves is the use of a model.
    name = f"{model}/{'interactive' if tier.interactive else 'niw'}"
    chance = random_level(shape, seed, name, day) * bursts(shape, seed, name, day)
    return _planned(workload, stream, minute_h) * chance


def _planned(workload: SyntheticWorkload, stream: Stream, hours: Curve) -> Curve:
    """Rate without chance at `hours` since time 0: weekly curve in the region's local time, and level steps."""
    model, region, tier = stream
    local_h = workload.calendar.start_hour_of_week + hours + workload.regions[region].phase_offset_h
    curve = weekly_curve(workload.shape(tier), local_h)
    for step in workload.level_steps:
        if step.model == model:
            curve = np.where(hours >= step.at_h, curve * step.factor, curve)
    return curve


def _run_mean(workload: SyntheticWorkload, stream: Stream) -> float:
    """Mean planned rate over the run, from time 0 to its horizon, by the midpoint rule in steps of a minute or less."""
    steps = max(MINUTES_PER_DAY, ceil(workload.horizon_h * 60))
    hours = (np.arange(steps) + 0.5) * workload.horizon_h / steps
    return float(_planned(workload, stream, hours).mean())


def _tenant_day(
    workload: SyntheticWorkload, seed: int, stream: Stream, tenant: int, day: int, edges_s: Curve, rate_per_s: Curve
) -> _Batch:
    model, region, tier = stream
    rng = generator(seed, "arrivals", model, region, tier, tenant, day)
    arrival_s = modulated_times(rng, edges_s, rate_per_s, workload.interarrival_cv[tier])
    # Lengths have a stream of their own: another CV or rate does not change what the first requests look like.
    quantiles = generator(seed, "lengths", model, region, tier, tenant, day).random((len(arrival_s), 2))
    asked = workload.models[model]
    prompt_tokens, output_tokens, cut = clipped(
        at_quantiles(asked.prompt_tokens, quantiles[:, 0]),
        at_quantiles(asked.output_tokens, quantiles[:, 1]),
        workload.max_model_len(model),
    )
    return _Batch(
        stream=stream,
        tenant=tenant,
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cut=cut,
    )


def _within(batch: _Batch, from_s: float, horizon_s: float) -> _Batch:
    """The part of a batch in the window, with times counted from `from_s`."""
    # Rounded before the shift as well as after it: the origin must not decide on which side of an edge a request lies.
    arrival_s = np.round(np.round(batch.arrival_s, TIME_DECIMALS) - from_s, TIME_DECIMALS) + 0.0
    inside = (arrival_s >= 0) & (arrival_s < horizon_s)
    return replace(
        batch,
        arrival_s=arrival_s[inside],
        prompt_tokens=batch.prompt_tokens[inside],
        output_tokens=batch.output_tokens[inside],
        cut=batch.cut[inside],
    )


def _assembled(batches: list[_Batch], workload: SyntheticWorkload, metadata: TraceMetadata) -> Trace:
    """One trace of all batches, sorted by arrival; ties keep the order of the streams."""
    sizes = [len(batch.arrival_s) for batch in batches]
    arrival_s = np.concatenate([np.empty(0), *(batch.arrival_s for batch in batches)])
    order = np.argsort(arrival_s, kind="stable")
    arrival_s = arrival_s[order]
    names: tuple[list[str], ...] = (list(workload.models), list(workload.regions), [str(tier) for tier in Tier])

    def labels(part: int) -> Labels:
        codes = np.array([names[part].index(batch.stream[part]) for batch in batches], dtype=np.int16)
        return Labels(np.repeat(codes, sizes)[order], tuple(names[part]))

    def column(parts: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
        return np.concatenate([np.empty(0, dtype=np.int32), *parts])[order]

    tier = labels(2)
    niw = tier.rows(Tier.NIW)
    deadline_s = np.round(arrival_s + workload.seconds(workload.niw_deadline_h), TIME_DECIMALS)
    return Trace.from_columns(
        request_id=np.arange(len(arrival_s)),
        arrival_s=arrival_s,
        model=labels(0),
        region=labels(1),
        tier=tier,
        prompt_tokens=column([batch.prompt_tokens for batch in batches]),
        output_tokens=column([batch.output_tokens for batch in batches]),
        deadline_s=np.where(niw, deadline_s, np.nan),
        tenant=np.repeat(np.array([batch.tenant for batch in batches], dtype=np.int32), sizes)[order],
        metadata=metadata,
    )


def _cut_share(model: str, batches: list[_Batch]) -> float:
    of_model = [batch for batch in batches if batch.stream[0] == model]
    requests = sum(len(batch.cut) for batch in of_model)
    return round(sum(int(batch.cut.sum()) for batch in of_model) / requests, 6) if requests else 0.0
