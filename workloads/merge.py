"""Several traces as one."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue

from workloads.derived import shifted, with_column
from workloads.optional_columns import NO_SESSION, OPTIONAL_COLUMNS, OPTIONAL_TYPES, lists, one_chunk
from workloads.trace import TIME_DECIMALS, Trace
from workloads.trace_checks import NO_TENANT
from workloads.trace_metadata import Calendar, TraceMetadata, TraceStep


def merge(traces: Sequence[Trace], *, offsets_s: Sequence[float] | None = None, same_world: bool = False) -> Trace:
    """All requests of `traces`, each trace beginning at its offset (default 0); ids count from 0 in order of arrival.

    Tenants, sessions and prefix numbers of different traces are kept apart, unless `same_world` says that equal numbers
    mean the same tenant, session or prefix. A column that only some have is "not known" for the others.
    Raises ValueError for no traces, a negative offset, or prefix blocks of different sizes.
    """
    offsets = [0.0] * len(traces) if offsets_s is None else list(offsets_s)
    if not traces or len(offsets) != len(traces):
        raise ValueError(f"merge of {len(traces)} traces with {len(offsets)} offsets; wanted at least one, and as many")
    if any(not 0 <= offset < float("inf") for offset in offsets):
        raise ValueError(f"merge offsets_s={offsets}; must be 0 or more")
    sizes = {trace.metadata.prefix_block_tokens for trace in traces} - {None}
    if len(sizes) > 1:
        blocks = " and ".join(str(size) for size in sorted(size for size in sizes if size))
        raise ValueError(f"merge: prefix blocks of {blocks} tokens; traces with prefixes need blocks of one size")
    columns = [name for name in OPTIONAL_COLUMNS if any(name in trace.optional for trace in traces)]
    tables = [_aligned(trace, offset, columns) for trace, offset in zip(traces, offsets, strict=True)]
    if not same_world:
        tables = _kept_apart(tables)
    table = pa.concat_tables(tables).unify_dictionaries()
    order = np.argsort(np.asarray(table["arrival_s"]), kind="stable")
    table = table.take(pa.array(order))
    table = with_column(table, "request_id", np.arange(len(table)))
    seeds = {trace.metadata.seed for trace in traces}
    steps: list[JsonValue] = [[step.model_dump() for step in trace.metadata.steps] for trace in traces]
    parameters: dict[str, JsonValue] = {
        "requests": [len(trace) for trace in traces],
        "offsets_s": list(offsets),
        "same_world": same_world,
        "request_ids": "counted from 0 in order of arrival",
        "steps": steps,
    }
    metadata = TraceMetadata(
        horizon_s=max(
            round(trace.horizon_s + offset, TIME_DECIMALS) for trace, offset in zip(traces, offsets, strict=True)
        ),
        seed=seeds.pop() if len(seeds) == 1 else None,
        calendar=_calendar(traces, offsets),
        prefix_block_tokens=next(iter(sizes), None),
        steps=(TraceStep(name="merge", parameters=parameters),),
    )
    return Trace(table=table, metadata=metadata, source="merge")


def _aligned(trace: Trace, offset_s: float, columns: list[str]) -> pa.Table:
    table = trace.table
    if offset_s:
        table = shifted(table, offset_s)
    for name in columns:
        if name not in trace.optional:
            table = table.append_column(name, pa.nulls(len(table), OPTIONAL_TYPES[name]))
    return table.select([*trace.table.column_names[: -len(trace.optional) or None], *columns])


def _kept_apart(tables: list[pa.Table]) -> list[pa.Table]:
    """Numbers of tenants, sessions and prefixes raised above those of the tables before; not-known ones stay."""
    apart = []
    above = {"tenant": 0, "session": 0, "prefix_hashes": 0}
    for table in tables:
        for name, none in (("tenant", NO_TENANT), ("session", NO_SESSION)):
            if name in table.column_names and table[name].null_count < len(table):
                numbers = np.asarray(pc.fill_null(table[name], none))
                moved = np.where(numbers == none, none, numbers + above[name]).astype(numbers.dtype)
                table = with_column(table, name, moved)
                above[name] = max(above[name], int(moved.max(initial=none)) + 1)
        if "prefix_hashes" in table.column_names and table["prefix_hashes"].null_count < len(table):
            hashes = one_chunk(table["prefix_hashes"])
            # Counted anew: hashes may fill all 64 bits, and adding to them would overflow.
            known, code = np.unique(np.asarray(pc.list_flatten(hashes)), return_inverse=True)
            lengths = np.asarray(pc.fill_null(pc.list_value_length(hashes), 0))
            table = with_column(table, "prefix_hashes", lists(code + above["prefix_hashes"], lengths))
            above["prefix_hashes"] += len(known)
        apart.append(table)
    return apart


def _calendar(traces: Sequence[Trace], offsets: list[float]) -> Calendar | None:
    """The calendar on which all traces agree to the second, else None."""
    found = [
        trace.metadata.calendar.moved(-offset) if trace.metadata.calendar else None
        for trace, offset in zip(traces, offsets, strict=True)
    ]
    first = found[0]
    for other in found:
        if first is None or other is None or other.day_s != first.day_s:
            return None
        apart_h = abs(other.start_hour_of_week - first.start_hour_of_week)
        if min(apart_h, 168.0 - apart_h) > 1 / 3600:
            return None
    return first
