"""Our own formats: Parquet as Trace.write makes it, and CSV with the same columns.

A CSV has the columns of a trace by name, those that are not known left out or empty, `prefix_hashes` as numbers with
blanks between. What it says of itself (horizon, calendar, steps) stands beside it in NAME.csv.json; without that file
the trace ends with its last arrival.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workloads.formats.byte_blocks import head
from workloads.formats.csv_rows import csv_rows, header_of
from workloads.formats.csv_writing import write_csv
from workloads.formats.findings import Findings
from workloads.formats.number_times import UNITS_PER_S, NumberTimes
from workloads.formats.options import ReadOptions
from workloads.formats.text_rows import TextRows
from workloads.formats.trace_format import TraceFormat
from workloads.optional_columns import NO_SESSION, OPTIONAL_COLUMNS, lists
from workloads.partial_file import partial_file
from workloads.request import Tier
from workloads.trace_checks import COLUMNS, LABELS, NO_TENANT, TraceError, canonical
from workloads.trace_file import METADATA_KEY, metadata_in, parsed_metadata, trace_file
from workloads.trace_metadata import TraceMetadata

REQUIRED = ("arrival_s", "prompt_tokens", "output_tokens")
ROWS_PER_BATCH = 1 << 18
SECONDS = "wanted seconds, 0 or more"
INT32_MAX = np.iinfo(np.int32).max


def beside(path: Path) -> Path:
    """The file that holds the metadata of the CSV at `path`."""
    return path.with_name(path.name + ".json")


def _csv_metadata(path: Path) -> TraceMetadata | None:
    try:
        return parsed_metadata(beside(path).read_bytes(), beside(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TraceError(f"{beside(path)}: {error.strerror}") from None


def _parquet_metadata(path: Path) -> TraceMetadata:
    with trace_file(path) as file:
        return metadata_in(file, path)


def _parquet_batches(path: Path, _: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    with trace_file(path) as file:
        findings.prefix_block_tokens = metadata_in(file, path).prefix_block_tokens
        for batch in file.iter_batches(ROWS_PER_BATCH):
            first = findings.rows_read
            findings.rows_read += len(batch)
            table = canonical(pa.Table.from_batches([batch]), findings.source, first)
            yield table.append_column("line", pa.array(np.arange(first + 1, first + len(table) + 1)))


def _csv_batches(path: Path, options: ReadOptions, findings: Findings) -> Iterator[pa.Table]:
    header = header_of(head(path, 1 << 16))
    known = [name for name in (*COLUMNS, *OPTIONAL_COLUMNS) if name in header]
    extra = [name for name in header if name not in known]
    if extra:
        findings.note(f"columns that a trace does not have are left out: {', '.join(extra)}")
    if "prefix_hashes" in known:
        metadata = _csv_metadata(path)
        if metadata is None or metadata.prefix_block_tokens is None:
            raise TraceError(f"{path}: column prefix_hashes, but no {beside(path).name} that says prefix_block_tokens")
        findings.prefix_block_tokens = metadata.prefix_block_tokens
    units_per_s = UNITS_PER_S[options.time_unit or "s"]
    for rows in csv_rows(path, findings, wanted=[*REQUIRED, *(name for name in known if name not in REQUIRED)]):
        columns = {name: _column(rows, name) for name in known}
        if units_per_s != 1:
            for name in ("arrival_s", "deadline_s", "think_s", "cancel_after_s"):
                if name in columns:
                    columns[name] = columns[name] / units_per_s
        if "deadline_s" in columns:
            early = columns["deadline_s"] < columns["arrival_s"]
            rows.refuse("deadline_s", early, "lies before arrival_s of the same row")
        yield rows.kept(columns)


def _column(rows: TextRows, name: str) -> Any:
    if name in LABELS:
        labels = rows.texts(name)
        if name == "tier":
            unknown = ~np.asarray(pc.is_in(labels, pa.array([tier.value for tier in Tier])))
            rows.refuse(name, unknown, f"wanted one of {', '.join(Tier)}")
        return labels
    if name in ("prompt_tokens", "output_tokens"):
        return rows.tokens(name)
    if name == "arrival_s":
        arrival_s = rows.numbers(name, SECONDS)
        rows.refuse(name, arrival_s < 0, f"negative; {SECONDS}")
        return arrival_s
    if name == "request_id":
        return rows.whole(name, "wanted a whole number")
    if name in ("tenant", "session", "turn"):
        none = {"tenant": NO_TENANT, "session": NO_SESSION, "turn": 0}[name]
        wanted = f"wanted a whole number, {none} or nothing where it is not known"
        numbers = np.nan_to_num(rows.numbers(name, wanted, may_be_empty=True), nan=none)
        rows.refuse(name, (numbers < none) | (numbers != np.floor(numbers)) | (numbers > INT32_MAX), wanted)
        return np.where(rows.good, numbers, none).astype(np.int64 if name == "session" else np.int32)
    if name == "prefix_hashes":
        return _lists(rows)
    return rows.numbers(name, "wanted seconds, or nothing", may_be_empty=True)


def _lists(rows: TextRows) -> pa.ListArray:
    texts = pc.utf8_trim_whitespace(rows.optional_texts("prefix_hashes"))
    parts = pc.split_pattern(texts, " ")
    lengths = np.where(np.asarray(pc.equal(texts, "")), 0, np.asarray(pc.list_value_length(parts)))
    flat = pc.list_flatten(parts)
    try:
        return lists(np.asarray(flat.filter(pc.not_equal(flat, "")).cast(pa.int64())), lengths)
    except (pa.ArrowInvalid, ValueError):
        found = [_numbers(text) for text in texts.to_pylist()]
        rows.refuse("prefix_hashes", np.array([one is None for one in found]), "not whole numbers with blanks between")
        return pa.array([one or [] for one in found], pa.list_(pa.int64()))


def _numbers(text: str) -> list[int] | None:
    try:
        numbers = [int(part) for part in text.split()]
    except ValueError:
        return None
    return numbers if all(-(2**63) <= number < 2**63 for number in numbers) else None


def _write_parquet(batches: Iterable[pa.Table], metadata: Callable[[], TraceMetadata], path: Path) -> tuple[str, ...]:
    with partial_file(path) as partial:
        writer: pq.ParquetWriter | None = None
        try:
            for table in batches:
                writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd", write_page_checksum=True)
                writer.write_table(table)
            if writer is None:
                raise TraceError(f"{path}: no requests to write")
            writer.add_key_value_metadata({METADATA_KEY.decode(): metadata().model_dump_json()})
        finally:
            if writer is not None:
                writer.close()
    return ()


def _write_csv(batches: Iterable[pa.Table], metadata: Callable[[], TraceMetadata], path: Path) -> tuple[str, ...]:
    tables = iter(batches)
    first = next(tables, None)
    if first is None:
        raise TraceError(f"{path}: no requests to write")

    def plain() -> Iterator[pa.Table]:
        yield _plain(first)
        yield from map(_plain, tables)

    write_csv(path, first.column_names, plain())
    with partial_file(beside(path)) as partial:
        partial.write_text(metadata().model_dump_json(indent=1) + "\n", encoding="utf-8")
    return (f"horizon, calendar and steps are in {beside(path).name}; keep it beside the CSV",)


def _plain(table: pa.Table) -> pa.Table:
    for place, name in enumerate(table.column_names):
        column = table[name]
        if pa.types.is_floating(column.type):
            table = table.set_column(place, name, pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column))
        elif name == "prefix_hashes":
            table = table.set_column(place, name, pc.binary_join(column.cast(pa.list_(pa.string())), " "))
    return table


PARQUET = TraceFormat(
    name="parquet",
    about="our own Parquet, with everything a trace holds",
    matches=lambda found: found.is_ours,
    batches=_parquet_batches,
    metadata_of=_parquet_metadata,
    write=_write_parquet,
)
TIDY_CSV = TraceFormat(
    name="csv",
    about="our own CSV: arrival_s, prompt_tokens, output_tokens and any other column of a trace",
    matches=lambda found: set(REQUIRED) <= set(found.header),
    batches=_csv_batches,
    metadata_of=_csv_metadata,
    times=NumberTimes(unit="s", fractions=False),
    write=_write_csv,
)
