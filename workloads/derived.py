"""What every transform of a trace ends with: a table with a column replaced, a trace that says what was done to it."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import JsonValue

from workloads.trace import TIME_DECIMALS, Trace
from workloads.trace_metadata import Calendar


def with_column(table: pa.Table, name: str, values: npt.NDArray[np.generic] | pa.Array | pa.ChunkedArray) -> pa.Table:
    """`table` with the values of column `name` replaced."""
    # Never pa.array of what is Arrow's already: of a chunked one it makes a Python object per value.
    column = pa.array(values) if isinstance(values, np.ndarray) else values
    return table.set_column(table.column_names.index(name), name, column)


def shifted(table: pa.Table, by_s: float) -> pa.Table:
    """`table` with arrivals and deadlines later by `by_s`, rounded to microseconds."""
    for name in ("arrival_s", "deadline_s"):
        table = with_column(table, name, np.round(np.asarray(table[name]) + by_s, TIME_DECIMALS))
    return table


def derived(
    trace: Trace,
    table: pa.Table,
    step: str,
    parameters: dict[str, JsonValue],
    *,
    horizon_s: float | None = None,
    calendar: Calendar | None = None,
) -> Trace:
    """A trace of `table` with one more step; horizon and calendar are those of `trace` where no others are given."""
    metadata = trace.metadata.after(
        step,
        parameters,
        horizon_s=trace.horizon_s if horizon_s is None else horizon_s,
        calendar=calendar or trace.metadata.calendar,
    )
    return Trace(table=table, metadata=metadata, source=step)
