"""What a format is to the rest of the program."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from workloads.formats.findings import Findings
from workloads.formats.number_times import NumberTimes
from workloads.formats.options import ReadOptions
from workloads.trace_metadata import TraceMetadata

Batches = Callable[[Path, ReadOptions, Findings], Iterator[pa.Table]]
Finish = Callable[[pa.Table, Findings], pa.Table]
Write = Callable[[Iterable[pa.Table], Callable[[], TraceMetadata], Path], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHead:
    """What a format is recognised by: the path, its first bytes, and what they are as CSV, JSON or Parquet."""

    path: Path
    is_folder: bool
    header: tuple[str, ...]
    json_keys: frozenset[str]
    parquet_columns: tuple[str, ...]
    is_ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFormat:
    """How a format is recognised, read and written.

    `batches` yields tables of a trace's columns, those that the format has: arrival_s (seconds since time 0),
    prompt_tokens, output_tokens at least, and `line`, where each row stands in the file. `finish`, where there is one,
    needs all rows together (in order of arrival) and turns columns of its own into those of a trace. `metadata_of` is
    what a file of ours says of itself.
    `write` takes tables of a trace's columns and the metadata, which it asks for after the last table, and returns what
    the format could not hold, one line each.
    """

    name: str
    about: str
    matches: Callable[[FileHead], bool] = lambda _: False
    batches: Batches | None = None
    finish: Finish | None = None
    metadata_of: Callable[[Path], TraceMetadata | None] = lambda _: None
    times: NumberTimes | None = None
    write: Write | None = None
