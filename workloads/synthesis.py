"""Synthesis: a trace drawn from a workload's numbers and a seed.

Every (model, region, tier) has random streams of its own for every synthetic day, counted from time 0. So the same seed
gives the same requests whatever window is asked for - the days before time 0 can be drawn as history, or not, and the
run stays the same - and a change to one of them leaves the others alone.
"""

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from workloads.arrivals import HIGHEST_CV, LOWEST_CV, Client, GapLaw, superposed_times
from workloads.lengths import clipped, drawn
from workloads.rates import Stream, StreamRates
from workloads.request import Tier
from workloads.seeds import generator
from workloads.shapes import MINUTES_PER_DAY
from workloads.synthetic_workload import SyntheticWorkload, short_workload
from workloads.trace import TIME_DECIMALS, Labels, Trace
from workloads.trace_metadata import TraceMetadata, TraceStep

__all__ = ["SyntheticWorkload", "short_workload", "synthesise"]

STEP = "synthesise"


# Requests while they are drawn: the number of the stream, as the workload's shares count them, instead of its names.
ROW = np.dtype(
    [
        ("arrival_s", np.float64),
        ("prompt_tokens", np.int32),
        ("output_tokens", np.int32),
        ("stream", np.int16),
        ("tenant", np.int16),
        ("cut", np.bool_),
    ]
)
Rows = npt.NDArray[np.void]


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
    rates = StreamRates(workload, seed)
    streams = list(rates.shares)
    clients = [_clients(workload, seed, stream) for stream in streams]
    days = range(floor(from_h / 24.0), ceil(to_h / 24.0))
    rows = _stacked([_within(_day(workload, seed, rates, clients, day), from_s, horizon_s) for day in days])
    step = TraceStep(
        name=STEP,
        parameters={
            "seed": seed,
            "from_h": from_h,
            "to_h": to_h,
            "cut_share": {name: _cut_share(name, streams, rows) for name in workload.models},
            "workload": workload.model_dump(mode="json"),
        },
    )
    metadata = TraceMetadata(horizon_s=horizon_s, seed=seed, calendar=workload.calendar.moved(from_s), steps=(step,))
    return _assembled(rows, streams, workload, metadata)


def _clients(workload: SyntheticWorkload, seed: int, stream: Stream) -> list[Client]:
    """The tenants of a stream, the biggest first."""
    model, region, tier = stream
    shares = np.arange(1, workload.tenants + 1, dtype=np.float64) ** -workload.tenant_skew
    rng = generator(seed, "tenants", model, region, tier)
    spread = np.exp(workload.tenant_cv_sd * rng.standard_normal(workload.tenants))
    cvs = np.clip(workload.interarrival_cv[tier] * spread, LOWEST_CV, HIGHEST_CV)
    weibull = rng.random(workload.tenants) < workload.weibull_share
    return [
        Client(share=share, cv=cv, law=GapLaw.WEIBULL if is_weibull else GapLaw.GAMMA)
        for share, cv, is_weibull in zip((shares / shares.sum()).tolist(), cvs.tolist(), weibull.tolist(), strict=True)
    ]


def _day(
    workload: SyntheticWorkload, seed: int, rates: StreamRates, clients: Sequence[Sequence[Client]], day: int
) -> Rows:
    """All requests of a day, sorted, with times counted from time 0 of the run; ties keep the order of the streams."""
    edges_s = day * workload.day_s + np.linspace(0.0, workload.day_s, MINUTES_PER_DAY + 1)
    parts = []
    for number, (stream, rate_per_s) in enumerate(rates.of_day(day)):
        model, region, tier = stream
        rng = generator(seed, "arrivals", model, region, tier, day)
        arrival_s, tenant = superposed_times(rng, edges_s, rate_per_s, clients[number])
        # Lengths have a stream of their own: another CV or rate does not change what the first requests look like.
        rng = generator(seed, "lengths", model, region, tier, day)
        asked, size = workload.models[model], len(tenant)
        prompt_tokens, output_tokens, cut = clipped(
            drawn(asked.prompt_tokens, rng, size),
            drawn(asked.output_tokens, rng, size),
            workload.max_model_len(model),
        )
        part = np.empty(size, dtype=ROW)
        part["arrival_s"] = np.round(arrival_s, TIME_DECIMALS)
        part["prompt_tokens"], part["output_tokens"] = prompt_tokens, output_tokens
        part["stream"], part["tenant"], part["cut"] = number, tenant, cut
        parts.append(part)
    rows = _stacked(parts)
    return rows.take(np.argsort(rows["arrival_s"], kind="stable"))  # seven times as fast as indexing


def _stacked(parts: Sequence[Rows]) -> Rows:
    """The parts one after the other; as plain bytes, because numpy copies records field by field."""
    return np.concatenate([part.view(f"V{ROW.itemsize}") for part in parts]).view(ROW)


def _within(rows: Rows, from_s: float, horizon_s: float) -> Rows:
    """The rows in the window, with times counted from `from_s`."""
    # Rounded before the shift as well as after it: the origin must not decide on which side of an edge a request lies.
    rows["arrival_s"] = np.round(rows["arrival_s"] - from_s, TIME_DECIMALS) + 0.0
    start, stop = np.searchsorted(rows["arrival_s"], [0.0, horizon_s], side="left").tolist()
    return rows[start:stop]


def _assembled(rows: Rows, streams: Sequence[Stream], workload: SyntheticWorkload, metadata: TraceMetadata) -> Trace:
    arrival_s = np.ascontiguousarray(rows["arrival_s"])
    names: tuple[list[str], ...] = (list(workload.models), list(workload.regions), [str(tier) for tier in Tier])

    def labels(part: int) -> Labels:
        code_of_stream = np.array([names[part].index(stream[part]) for stream in streams], dtype=np.int16)
        return Labels(code_of_stream[rows["stream"]], tuple(names[part]))

    tier = labels(2)
    deadline_s = np.round(arrival_s + workload.seconds(workload.niw_deadline_h), TIME_DECIMALS)
    deadline_s[~tier.rows(Tier.NIW)] = np.nan
    return Trace.from_columns(
        request_id=np.arange(len(rows)),
        arrival_s=arrival_s,
        model=labels(0),
        region=labels(1),
        tier=tier,
        prompt_tokens=np.ascontiguousarray(rows["prompt_tokens"]),
        output_tokens=np.ascontiguousarray(rows["output_tokens"]),
        deadline_s=deadline_s,
        tenant=rows["tenant"].astype(np.int32),
        metadata=metadata,
    )


def _cut_share(model: str, streams: Sequence[Stream], rows: Rows) -> float:
    """The share of a model's requests that were cut to its context."""
    of_model = np.array([stream[0] == model for stream in streams], dtype=np.bool_)[rows["stream"]]
    requests = int(of_model.sum())
    return round(int(rows["cut"][of_model].sum()) / requests, 6) if requests else 0.0
