"""From a file to a file: block by block where nothing needs all rows at once, else by way of a trace."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from workloads.derived import shifted
from workloads.formats.arrivals_seen import ArrivalsSeen
from workloads.formats.findings import Findings, ReadReport
from workloads.formats.import_step import imported
from workloads.formats.options import ReadOptions
from workloads.formats.reading import batches
from workloads.formats.trace_format import TraceFormat
from workloads.trace import Trace
from workloads.trace_checks import TraceError, canonical, check
from workloads.trace_metadata import TraceMetadata
from workloads.transforms import cut_metadata

ROWS_PER_BATCH = 1 << 18


class NotStreamable(Exception):
    """The rows of this file have to be seen together: they are out of order, repeat ids, or form sessions."""


def stream_file(
    source: Path, out: Path, read_as: TraceFormat, write_as: TraceFormat, options: ReadOptions
) -> tuple[ReadReport, TraceMetadata, tuple[str, ...]]:
    """Convert `source` to `out` in memory that does not grow with the file, cut to `options.window_s` if there is one.

    Returns the report of the reading, what the new file says of itself, and what its format could not hold. The result
    is the trace that reading, cutting and writing would give. Raises TraceError as reading does, and NotStreamable.
    """
    if read_as.finish is not None:
        raise NotStreamable
    assert write_as.write is not None, "a format that can be written"
    findings = Findings(str(source), read_as.name, strict=options.strict)
    seen = ArrivalsSeen()
    base = read_as.metadata_of(source)
    written = 0

    def metadata() -> TraceMetadata:
        found = imported(source, options, findings, seen, written, base)
        return found if options.window_s is None else cut_metadata(found, *options.window_s)

    def tables() -> Iterator[pa.Table]:
        nonlocal written
        held: list[pa.Table] = []  # arrivals at the very end of the window count if the trace ends there
        latest_id = -1
        for table in batches(source, read_as, options, findings, seen):
            if seen.out_of_order or seen.first_s < 0:
                raise NotStreamable
            if options.window_s is not None:
                arrival_s = np.asarray(table["arrival_s"])
                from_s, to_s = options.window_s
                held.append(table.filter(pa.array(arrival_s == to_s)))
                table = table.filter(pa.array((arrival_s >= from_s) & (arrival_s < to_s)))
            if len(table):
                table, latest_id = _ready(table, options, findings, latest_id, written)
                written += len(table)
                yield table
        if options.window_s is not None:
            horizon_s = imported(source, options, findings, seen, written, base).horizon_s
            from_s, to_s = options.window_s
            if to_s > horizon_s:
                raise TraceError(f"cut {from_s}..{to_s} s: must be a window within 0..{horizon_s} s of the trace")
            at_end = pa.concat_tables(held)
            if to_s == horizon_s and len(at_end):
                table, _ = _ready(at_end, options, findings, latest_id, written)
                written += len(table)
                yield table

    notes = write_as.write(tables(), metadata, out)
    return findings.report(written), metadata(), notes


def write_trace(trace: Trace, out: Path, write_as: TraceFormat) -> tuple[str, ...]:
    """Write `trace` in a format; returns what the format could not hold. Raises TraceError for what it cannot take."""
    assert write_as.write is not None, "a format that can be written"
    if not len(trace):
        raise TraceError(f"{out}: the trace has no requests to write")
    starts = range(0, len(trace), ROWS_PER_BATCH)
    return write_as.write((trace.table.slice(at, ROWS_PER_BATCH) for at in starts), lambda: trace.metadata, out)


def _ready(
    table: pa.Table, options: ReadOptions, findings: Findings, latest_id: int, rows_before: int
) -> tuple[pa.Table, int]:
    """A block as a part of a trace, and its last id. Raises NotStreamable where only all rows together can tell."""
    if "request_id" in table.column_names:
        ids = np.asarray(table["request_id"])
        if not bool((np.diff(ids, prepend=latest_id) > 0).all()):
            raise NotStreamable
        latest_id = int(ids[-1])
        table = table.drop_columns(["line"]) if "line" in table.column_names else table
    else:
        table = table.append_column("request_id", pa.array(np.arange(rows_before, rows_before + len(table))))
    if options.window_s is not None:
        table = shifted(table, -options.window_s[0])
    try:
        table = canonical(table, findings.source)
        check(table, np.inf, findings.source, findings.prefix_block_tokens)
    except TraceError as error:
        # Its row is counted from the beginning of the block: reading all of the file names the right one.
        raise NotStreamable from error
    return table, latest_id
