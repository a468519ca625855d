"""Pure functions from trace to trace; each records itself in the metadata of its result."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from workloads.derived import derived, shifted, with_column
from workloads.lengths import clipped
from workloads.optional_columns import SESSION_COLUMNS, lists
from workloads.redraw import redrawn
from workloads.seeds import generator
from workloads.trace import TIME_DECIMALS, Trace
from workloads.trace_checks import LABELS, NO_TENANT
from workloads.trace_metadata import Calendar, TraceMetadata


def cut(trace: Trace, from_s: float, to_s: float) -> Trace:
    """The requests that arrive in [from_s, to_s), with time 0 at `from_s`; ids stay.

    At the end of the trace the window is closed: an arrival at the very horizon belongs to the last piece.
    Raises ValueError for a window that is empty or reaches beyond the trace.
    """
    if not 0 <= from_s < to_s <= trace.horizon_s:
        raise ValueError(f"cut {from_s}..{to_s} s: must be a window within 0..{trace.horizon_s} s of the trace")
    arrival_s = trace.numbers("arrival_s")
    start, stop = np.searchsorted(arrival_s, [from_s, to_s], side="left").tolist()
    stop = len(trace) if to_s == trace.horizon_s else stop
    table = shifted(trace.table.slice(start, stop - start), -from_s)
    return Trace(table=table, metadata=cut_metadata(trace.metadata, from_s, to_s), source="cut")


def cut_metadata(metadata: TraceMetadata, from_s: float, to_s: float) -> TraceMetadata:
    """What a trace says of itself once it has been cut."""
    return metadata.after(
        "cut",
        {"from_s": from_s, "to_s": to_s},
        horizon_s=round(to_s - from_s, TIME_DECIMALS),
        calendar=metadata.calendar.moved(from_s) if metadata.calendar else None,
    )


def split_history(trace: Trace, at_s: float) -> tuple[Trace, Trace]:
    """What arrives before `at_s`, and the rest with time 0 at `at_s`: forecast history, and the run.

    The history keeps its origin: its last second is just before the run's first. Raises ValueError unless `at_s` lies
    within the trace.
    """
    return cut(trace, 0.0, at_s), cut(trace, at_s, trace.horizon_s)


def thin(trace: Trace, factor: float, seed: int, how: Literal["sample_tenants", "redraw"] = "redraw") -> Trace:
    """About `factor` (0..1) of the requests, no less bursty than before.

    Dropping requests one by one would make the index of dispersion 1 + factor (IDC - 1): close to Poisson for a small
    factor. `sample_tenants` keeps whole tenants of each (model, region, tier): real arrivals, but how near it comes to
    `factor` depends on how big they are. `redraw` keeps the rate's shape and the index of dispersion and draws new
    arrivals (see workloads.redraw).
    Raises ValueError for a factor outside 0..1, or for `sample_tenants` where tenants are not known.
    """
    if not 0 < factor <= 1:
        raise ValueError(f"thin factor={factor}; must be above 0 and at most 1 (scale_rate goes beyond)")
    if how == "redraw":
        table, kept = _redrawn(trace, factor, seed)
    elif how == "sample_tenants":
        table = trace.rows(_sampled_tenants(trace, factor, seed))
        kept = {"kept_share": len(table) / len(trace) if len(trace) else 0.0}
    else:
        raise ValueError(f"thin how={how!r}; must be 'sample_tenants' or 'redraw'")
    return derived(trace, table, "thin", {"factor": factor, "seed": seed, "how": how, **kept})


def scale_rate(trace: Trace, factor: float, seed: int) -> Trace:
    """`factor` times the requests per second: the rate's shape, lengths and index of dispersion stay.

    Arrivals are drawn anew (see workloads.redraw), ids count from 0. Sessions are dropped: new arrivals of a turn and
    of the one before it have nothing to do with each other. Prompts keep the prefixes that they share.
    Raises ValueError for a factor of 0 or less.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"scale_rate factor={factor}; must be above 0 and finite")
    table, kept = _redrawn(trace, factor, seed)
    return derived(trace, table, "scale_rate", {"factor": factor, "seed": seed, **kept})


def stretch_time(trace: Trace, factor: float) -> Trace:
    """Every time (arrivals, deadlines, thinking, patience) multiplied by `factor`; below 1 raises the rate by 1/factor.

    Raises ValueError for a factor of 0 or less.
    """
    if not 0 < factor < float("inf"):
        raise ValueError(f"stretch_time factor={factor}; must be above 0 and finite")
    table = trace.table
    for name in ("arrival_s", "deadline_s", "think_s", "cancel_after_s"):
        if name in table.column_names:
            table = with_column(table, name, np.round(trace.numbers(name) * factor, TIME_DECIMALS))
    calendar = trace.metadata.calendar
    if calendar is not None:
        calendar = Calendar(start_hour_of_week=calendar.start_hour_of_week, day_s=calendar.day_s * factor)
    # Rounded like the arrivals, so that the last of them cannot end up behind it.
    horizon_s = round(trace.horizon_s * factor, TIME_DECIMALS)
    return derived(trace, table, "stretch_time", {"factor": factor}, horizon_s=horizon_s, calendar=calendar)


def clip_lengths(trace: Trace, max_model_len: Mapping[str, int]) -> Trace:
    """Prompts (then outputs) cut so that both fit their model's `max_model_len`; models it does not name stay.

    A cut prompt keeps its beginning, and so the prefixes that it shares.
    The step records the share of each model's requests that were cut. Raises ValueError for a limit below 2.
    """
    for name, limit in max_model_len.items():
        if limit < 2:
            raise ValueError(f"clip_lengths max_model_len[{name!r}]={limit}; must be at least 2")
    model = trace.labels("model")
    prompt, output = trace.numbers("prompt_tokens").copy(), trace.numbers("output_tokens").copy()
    shares: dict[str, JsonValue] = {}
    for name in model.names:
        if name in max_model_len:
            rows = model.rows(name)
            prompt[rows], output[rows], was_cut = clipped(prompt[rows], output[rows], max_model_len[name])
            shares[name] = round(float(was_cut.mean()), 6)
    table = with_column(with_column(trace.table, "prompt_tokens", prompt), "output_tokens", output)
    block_tokens = trace.metadata.prefix_block_tokens
    if block_tokens is not None:
        table = with_column(table, "prefix_hashes", _first_blocks(trace.prefix_hashes(), -(-prompt // block_tokens)))
    parameters: dict[str, JsonValue] = {"max_model_len": dict(max_model_len), "cut_share": shares}
    return derived(trace, table, "clip_lengths", parameters)


def jitter(trace: Trace, width_s: float, seed: int) -> Trace:
    """Arrivals that a clock of coarse steps recorded, spread over the step: each moves later by 0..`width_s`, uniform.

    The rows keep their order (the new times are sorted), so that turns of a session do. Deadlines move along.
    Raises ValueError for a width of 0 or less.
    """
    if not 0 < width_s < float("inf"):
        raise ValueError(f"jitter width_s={width_s}; must be above 0 and finite")
    old_s = trace.numbers("arrival_s")
    new_s = np.sort(old_s + generator(seed, "jitter").uniform(0.0, width_s, len(trace)))
    new_s = np.maximum(np.round(new_s, TIME_DECIMALS), old_s)
    table = with_column(trace.table, "arrival_s", new_s)
    table = with_column(table, "deadline_s", np.round(trace.numbers("deadline_s") + (new_s - old_s), TIME_DECIMALS))
    horizon_s = max(trace.horizon_s, float(new_s[-1]) if len(new_s) else 0.0)
    return derived(trace, table, "jitter", {"width_s": width_s, "seed": seed}, horizon_s=horizon_s)


def _redrawn(trace: Trace, factor: float, seed: int) -> tuple[pa.Table, dict[str, JsonValue]]:
    table, dispersion = redrawn(trace, factor, seed)
    lost = [name for name in SESSION_COLUMNS if name in table.column_names]
    found: dict[str, JsonValue] = {"index_of_dispersion": dict(dispersion)}
    if lost:
        found["dropped_columns"] = list(lost)
    return table.drop_columns(lost), found


def _first_blocks(hashes: pa.ListArray, most: npt.NDArray[np.integer]) -> pa.ListArray:
    """The first `most` (rows,) numbers of each list, or all where it is shorter."""
    lengths = pc.list_value_length(hashes).to_numpy(zero_copy_only=False)
    values = pc.list_flatten(hashes).to_numpy(zero_copy_only=False)
    place = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return lists(values[place < np.repeat(most, lengths)], np.minimum(lengths, most))


def _sampled_tenants(trace: Trace, factor: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows belong to the tenants kept: within each stream in random order, as long as they bring it nearer."""
    tenant = trace.numbers("tenant")
    if (tenant == NO_TENANT).any():
        raise ValueError(
            "thin how='sample_tenants': the trace does not say whose all requests are; "
            "use how='redraw' (--keep dispersion)"
        )
    key = tenant.astype(np.int64)
    stream = np.zeros(len(trace), dtype=np.int64)
    for name in LABELS:
        labels = trace.labels(name)
        stream = stream * max(1, len(labels.names)) + labels.codes
    key = stream * (int(tenant.max(initial=0)) + 1) + key
    clients, client_of_row, sizes = np.unique(key, return_inverse=True, return_counts=True)
    stream_of_client = clients // (int(tenant.max(initial=0)) + 1)
    kept = np.zeros(len(clients), dtype=np.bool_)
    rng = generator(seed, "sample_tenants")
    owed = 0.0  # what rounding to whole tenants left over is passed on, so that the total comes out
    for one in np.unique(stream_of_client):
        members = rng.permutation(np.flatnonzero(stream_of_client == one))
        owed += factor * float(sizes[members].sum())
        for client in members:
            if abs(owed - sizes[client]) < abs(owed):
                kept[client] = True
                owed -= float(sizes[client])
    return np.asarray(kept[client_of_row], dtype=np.bool_)
