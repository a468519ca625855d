"""CSV written table by table."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from workloads.partial_file import partial_file
from workloads.trace_checks import TraceError


def write_csv(path: Path, names: Sequence[str], tables: Iterable[pa.Table]) -> None:
    """A header of `names`, then the rows of `tables` (columns in that order); a null is an empty field.

    Raises TraceError for a text that holds a comma, a quote or a line break: readers of these formats split at commas.
    """
    options = pacsv.WriteOptions(include_header=False, quoting_style="none")
    with partial_file(path) as partial, partial.open("wb") as file:
        file.write((",".join(names) + "\n").encode())
        for table in tables:
            plain = [
                column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in table.columns
            ]
            try:
                pacsv.write_csv(pa.table(plain, names=list(names)), file, options)
            except pa.ArrowInvalid as error:
                raise TraceError(f"{path}: {error}; rename what holds a comma or a quote (--map-model A=B)") from None
