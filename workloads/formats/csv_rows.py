"""CSV as blocks of text columns: as fast as Arrow while all lines are well formed, line by line where one is not."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from workloads.formats.byte_blocks import head, line_blocks
from workloads.formats.findings import Findings
from workloads.formats.text_rows import TextRows
from workloads.trace_checks import TraceError


def header_of(first_bytes: bytes) -> tuple[str, ...]:
    """The names in the first line of a CSV, without blanks around them; empty where it is no UTF-8 text."""
    try:
        line = first_bytes.split(b"\n", 1)[0].decode().strip("\r")
    except UnicodeDecodeError:
        return ()
    return tuple(name.strip() for name in next(csv.reader([line]), []))


def csv_rows(
    path: Path, findings: Findings, *, wanted: Sequence[str], names: Sequence[str] | None = None
) -> Iterator[TextRows]:
    """The columns `wanted` of a CSV, block by block; `names` are those of a file without a header.

    A line with too few or too many fields is skipped and counted, an empty one passed over.
    Raises TraceError for a header without one of `wanted`, or with one twice.
    """
    columns = tuple(names) if names is not None else header_of(head(path, 1 << 16))
    missing = [name for name in wanted if columns.count(name) != 1]
    if missing:
        raise TraceError(
            f"{path}: wanted one column {', '.join(missing)} in its header; it has {', '.join(columns) or 'no header'}"
        )
    for first_line, block in line_blocks(path):
        if first_line == 1 and names is None:
            first_line, block = 2, block[block.index(b"\n") + 1 :]
        if block:
            yield _fast(first_line, block, columns, wanted, findings) or _slow(
                first_line, block, columns, wanted, findings
            )


def _fast(
    first_line: int, block: bytes, columns: Sequence[str], wanted: Sequence[str], findings: Findings
) -> TextRows | None:
    """The block as Arrow reads it; None where a line is not as the others, so that lines and rows do not match."""
    try:
        table = pacsv.read_csv(
            pa.py_buffer(block),
            read_options=pacsv.ReadOptions(column_names=list(columns), use_threads=False, block_size=len(block) + 1),
            parse_options=pacsv.ParseOptions(ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.binary()),
                include_columns=list(wanted),
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    lines = block.count(b"\n")
    if len(table) != lines or block.startswith((b"\n", b"\r")) or b"\n\n" in block or b"\n\r\n" in block:
        return None
    arrays = {name: table[name].combine_chunks() for name in wanted}
    return TextRows(arrays, np.arange(first_line, first_line + lines), findings)


def _slow(first_line: int, block: bytes, columns: Sequence[str], wanted: Sequence[str], findings: Findings) -> TextRows:
    rows: list[list[str]] = []
    numbers: list[int] = []
    places = [columns.index(name) for name in wanted]
    for number, raw in enumerate(block[:-1].split(b"\n"), first_line):
        # Latin-1 maps every byte to a character and back: bytes that are no UTF-8 are found where they matter.
        line = raw.decode("latin-1").rstrip("\r")
        if not line.strip():
            continue
        try:
            fields = next(csv.reader([line]))
        except csv.Error:  # a field of more than 131,072 characters
            fields = line.split(",")
        if len(fields) != len(columns):
            findings.rows_read += 1
            count = f"{len(fields)} field{'s' if len(fields) != 1 else ''} where {len(columns)} were expected"
            findings.skip("(line)", count, np.array([number]), raw)
            continue
        rows.append(fields)
        numbers.append(number)
    arrays = {
        name: pa.array([row[place].encode("latin-1") for row in rows], pa.binary())
        for name, place in zip(wanted, places, strict=True)
    }
    return TextRows(arrays, np.array(numbers, dtype=np.int64), findings)
