"""From a file in any format to a trace, with a report of what was found."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from workloads.derived import with_column
from workloads.formats.arrivals_seen import ArrivalsSeen
from workloads.formats.completing import completed
from workloads.formats.findings import Findings, ReadReport
from workloads.formats.import_step import imported
from workloads.formats.known import detected, format_named
from workloads.formats.number_times import check_span, check_unit
from workloads.formats.options import ReadOptions
from workloads.formats.trace_format import TraceFormat
from workloads.optional_columns import one_chunk
from workloads.trace import Trace
from workloads.trace_checks import TraceError


def read_trace(
    path: Path, options: ReadOptions | None = None, *, format_name: str | None = None
) -> tuple[Trace, ReadReport]:
    """The trace in a file or folder, and what was read and left out.

    The format is recognised by content unless it is named. Rows are put in order of arrival; ids that repeat, or that
    the format lacks, are counted from 0. Time 0 is that of the file, or the second of the first request where the file
    has dates. With `options.window_s` only what arrives in it is kept (at its very end only if the trace ends there);
    cut the trace to move its time 0.
    Raises TraceError, one line, for a file that cannot be read, has a wrong unit, or holds no row that can be used.
    """
    options = options or ReadOptions()
    format_ = detected(path) if format_name is None else format_named(format_name, to="read")
    findings = Findings(str(path), format_.name, strict=options.strict)
    seen = ArrivalsSeen()
    # What turns rows into sessions needs those outside the window too.
    window_s = options.window_s if format_.finish is None else None
    table = _joined(_within(part, window_s) for part in batches(path, format_, options, findings, seen))
    if seen.out_of_order:
        findings.note(f"{seen.out_of_order:,} rows were out of order (first: line {seen.first_line}); now by arrival")
        table = table.take(pa.array(np.argsort(np.asarray(table["arrival_s"]), kind="stable")))
    if format_.finish is not None:
        table = format_.finish(table, findings)
    table = _from_zero(table, options, findings, seen)
    base = format_.metadata_of(path)
    if options.window_s is not None:
        ends = imported(path, options, findings, seen, 0, base).horizon_s <= options.window_s[1]
        table = _within(table, options.window_s, end_too=ends)
    table = _with_ids(table, findings)
    metadata = imported(path, options, findings, seen, len(table), base)
    return Trace(table=table, metadata=metadata, source=str(path)), findings.report(len(table))


def batches(
    path: Path, format_: TraceFormat, options: ReadOptions, findings: Findings, seen: ArrivalsSeen
) -> Iterator[pa.Table]:
    """Tables of at least one row as the format yields them, with all labels; the whole is checked after the last."""
    assert format_.batches is not None, "a format that can be read"
    try:
        for table in format_.batches(path, options, findings):
            if len(table):
                seen.add(table, findings)
                yield completed(table, options, findings)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}, after row {findings.rows_read:,}: {' '.join(str(error).split())}") from error
    if not seen.rows:
        first = findings.skipped[0] if findings.skipped else None
        why = f"; first: line {first.first_line}, {first.reason}: {first.example}" if first else ""
        raise TraceError(f"{path}: none of {findings.rows_read:,} rows of format {format_.name} can be used{why}")
    if format_.times is not None and options.time_unit is None:
        check_unit(format_.times, seen, findings.source)
    check_span(seen, findings.source, dates=findings.time_zero is not None, window_s=options.window_s)


def _within(table: pa.Table, window_s: tuple[float, float] | None, *, end_too: bool = True) -> pa.Table:
    if window_s is None:
        return table
    arrival_s = np.asarray(table["arrival_s"])
    before_end = arrival_s <= window_s[1] if end_too else arrival_s < window_s[1]
    return table.filter(pa.array((arrival_s >= window_s[0]) & before_end))


def _joined(tables: Iterator[pa.Table]) -> pa.Table:
    """One table in which each column is one array; columns are joined one by one, so that no two copies are held."""
    table = pa.concat_tables(list(tables)).unify_dictionaries()
    arrays = {}
    for name in table.column_names:
        arrays[name] = one_chunk(table[name])
        table = table.drop_columns([name])
    return pa.table(arrays)


def _from_zero(table: pa.Table, options: ReadOptions, findings: Findings, seen: ArrivalsSeen) -> pa.Table:
    """Time 0 moved to the second of the earliest request, where that is not in the first rows of a file with dates."""
    if seen.first_s >= 0:
        return table
    early_s = float(np.floor(seen.first_s))
    if options.window_s is not None or findings.time_zero is None:
        raise TraceError(
            f"{findings.source}: row {seen.fall_line} lies before the first; sort the file, or do not cut it"
        )
    findings.time_zero += timedelta(seconds=early_s)
    seen.first_s, seen.last_s = seen.first_s - early_s, seen.last_s - early_s
    return with_column(table, "arrival_s", np.asarray(table["arrival_s"]) - early_s)


def _with_ids(table: pa.Table, findings: Findings) -> pa.Table:
    """`table` with ids that occur once: those of the file if they do, else counted from 0 in order of arrival."""
    if "request_id" not in table.column_names:
        return table.append_column("request_id", pa.array(np.arange(len(table))))
    ids = np.asarray(table["request_id"])
    if len(ids) and not bool((np.diff(ids) > 0).all()):
        order = np.argsort(ids, kind="stable")
        again = order[1:][ids[order[1:]] == ids[order[:-1]]]
        if len(again):
            lines = np.sort(np.asarray(table["line"])[again])
            if findings.strict:
                raise TraceError(f"{findings.source}, line {lines[0]}, column request_id: an earlier line has the same")
            findings.note(
                f"{len(again):,} rows repeat the request_id of another (first: line {lines[0]}); "
                "all ids are counted anew from 0"
            )
            table = with_column(table, "request_id", np.arange(len(ids)))
    return table.drop_columns(["line"])
