"""A table that grows in parts while a run goes on and becomes one file at its end.

`NAME.parts/part-00000.parquet` ... are each whole Parquet files, so that a run killed at any moment leaves a table
that reads up to its last flush. `close` merges them into `NAME.parquet`, one row group at a time.
"""

import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.atomic_file import replace_file
from results.inside import require_inside
from results.run_folder_error import RunFolderError
from results.schema import Table
from results.table_checks import TableFault, sound

# A part that was flushed early goes on growing up to here: a day flushed every second leaves dozens of parts, not
# 86,400, while rewriting one stays a matter of milliseconds.
GROWING_PART_ROWS = 10_000


class TableWriter:
    """Buffers rows in one flat list and writes them as parts of at most `part_rows` rows.

    Rows come from one thread; `flush` may be called in any. With `goes_on` they come after those that the folder holds
    (see `begin_again`). Raises FileExistsError when the folder already holds this table otherwise, ValueError for
    `part_rows` below 1.
    """

    def __init__(self, folder: Path, table: Table, part_rows: int, *, goes_on: bool = False) -> None:
        if part_rows < 1:
            raise ValueError(f"part_rows={part_rows}; must be at least 1")
        self._table = table
        self._file = folder / f"{table.name}.parquet"
        self._parts = folder / f"{table.name}.parts"
        if not goes_on and (self._file.exists() or self._parts.exists()):
            raise FileExistsError(f"{folder} already holds the table {table.name}; give the run a new folder")
        self._parts.mkdir(parents=True, exist_ok=goes_on)
        self._width = len(table.columns)
        # In values, not rows: so many are written of themselves.
        self._limit = part_rows * self._width
        self._due: float = self._limit
        self._growing_rows = min(part_rows, GROWING_PART_ROWS)
        # Values of all columns in turn: no object per row is kept, and a column is one strided slice.
        self._values: list[Any] = []
        self._taking = threading.Lock()
        self._writing = threading.Lock()
        self._growing: list[pa.RecordBatch] = []
        self._part = 1 if goes_on else 0

    def row(self, values: tuple[Any, ...]) -> None:
        """Add one row: one value per column, in the order of the schema. Raises OSError as `flush` does."""
        with self._taking:
            self._values.extend(values)
            due = len(self._values) >= self._due
        if due:
            self.flush()

    def flush(self) -> None:
        """Put every row given so far on disk. Raises OSError (disk full) with the rows still held: rows go on being
        taken, and are written by the next call."""
        with self._writing:
            with self._taking:
                values, self._values = self._values, []
            if not values:
                return
            try:
                self._put_on_disk(values)
            except BaseException:
                with self._taking:
                    self._values[:0] = values
                    self._due = math.inf  # somebody has been told
                raise
            self._due = self._limit

    def flush_untold(self) -> None:
        """As `flush`, where nobody can be told what it raises: the next row tries again, and raises what it meets."""
        told = self._due == math.inf
        try:
            self.flush()
        except Exception:
            if not told:
                self._due = 0

    def _put_on_disk(self, values: list[Any]) -> None:
        batches = [*self._growing, _record_batch(values, self._width, self._table.schema)]
        part = self._parts / f"part-{self._part:05d}.parquet"
        replace_file(part, lambda temporary: _write(temporary, batches, self._table.schema))
        if sum(b.num_rows for b in batches) >= self._growing_rows:
            self._growing = []
            self._part += 1
        else:
            self._growing = batches

    def close(self) -> None:
        """Merge the parts into the one file and remove them; twice is harmless. Raises OSError (disk full) with the
        parts still there, which read as the one file would."""
        if not self._parts.exists():
            return
        self.flush()
        with self._writing:
            batches = _batches(part_files(self._parts), None)
            replace_file(self._file, lambda temporary: _write(temporary, batches, self._table.schema))
            shutil.rmtree(self._parts)


def begin_again(folder: Path, table: Table, until_s: float = math.inf) -> None:
    """Make what the folder holds of `table` its part 0, for a TableWriter that goes on; of a table with a column
    `at_s`, the rows up to `until_s` alone. A kill at any moment loses none of them.

    Raises RunFolderError as `table_batches` does, OSError (disk full) with the table as it was.
    """
    file, parts = folder / f"{table.name}.parquet", folder / f"{table.name}.parts"
    batches = table_batches(folder, table)
    if "at_s" in table.columns:
        batches = (batch.filter(pc.less_equal(batch["at_s"], until_s)) for batch in batches)
    replace_file(file, lambda temporary: _write(temporary, batches, table.schema))
    # From here on the one file is what is read, until it is the one part.
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir()
    file.replace(parts / "part-00000.parquet")


def part_files(parts: Path) -> list[Path]:
    """The whole parts of a parts folder in the order written. Raises RunFolderError for what looks like one."""
    found = {}
    for path in parts.glob("part-*.parquet"):
        number = path.stem.removeprefix("part-")
        if not (number.isascii() and number.isdigit()) or int(number) in found:
            raise RunFolderError(f"{path} is no part of a table, which have a number each; move it away")
        found[int(number)] = path
    return [found[number] for number in sorted(found)]


def table_files(folder: Path, table: Table) -> list[Path]:
    """The files that hold `table`, merged or in parts; [] when it was never begun."""
    merged = folder / f"{table.name}.parquet"
    # Killed between the merge and the removal of the parts, both are there: the merged file is whole.
    return [merged] if merged.exists() or merged.is_symlink() else part_files(folder / f"{table.name}.parts")


def table_batches(folder: Path, table: Table, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of `table` in the order recorded, batch by batch, in flat memory.

    Raises RunFolderError for a file that is cut off, damaged, lacks a column or holds what no run records, and for one
    that lies elsewhere.
    """
    wanted = table.columns if columns is None else columns
    for path in table_files(folder, table):
        require_inside(folder, path)
        rows = 0
        try:
            for batch in _batches((path,), wanted):
                yield sound(batch, table, wanted, rows)
                rows += batch.num_rows
        # An OverflowError, a UnicodeDecodeError: a size, a name that a damaged footer gives.
        except (pa.ArrowException, OSError, KeyError, TableFault, OverflowError, UnicodeDecodeError) as error:
            why = " ".join(str(error).split())
            raise RunFolderError(
                f"{path} is cut off or damaged ({why}); copy it again, or move it away to read the rest"
            ) from error


def _batches(files: Sequence[Path], columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            if missing := [name for name in columns or () if name not in file.schema_arrow.names]:
                raise KeyError(f"no column {missing[0]}")
            yield from file.iter_batches(columns=None if columns is None else list(columns))


def _record_batch(values: list[Any], width: int, schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for index, field in enumerate(schema):
        column = values[index::width]
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(column, field.type.value_type).dictionary_encode())
        else:
            arrays.append(pa.array(column, field.type))
    return pa.record_batch(arrays, schema=schema)


# Rows of a row group of the merged file: what a reader holds at a time.
_ROW_GROUP_ROWS = 131_072


def _write(path: Path, batches: Iterator[pa.RecordBatch] | list[pa.RecordBatch], schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        waiting: list[pa.RecordBatch] = []
        rows = 0
        for batch in batches:
            waiting.append(batch)
            rows += batch.num_rows
            if rows >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))
