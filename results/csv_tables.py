"""The tables of a run as CSV, for what reads no Parquet."""

from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from results.run_folder import RunFolder
from results.schema import TABLES, Table


def write_csv(run: RunFolder, folder: Path) -> tuple[Path, ...]:
    """Write FOLDER/<policy>/<table>.csv for every table of every policy that has begun; returns the files.

    The columns of results.schema with their names on the first line, null as nothing, floats with every digit; in flat
    memory. Raises FileExistsError for a folder that exists, RunFolderError for a table that cannot be read.
    """
    folder.mkdir(parents=True)
    written = []
    for policy in run.policies():
        (folder / policy.name).mkdir()
        for table in TABLES:
            path = folder / policy.name / f"{table.name}.csv"
            schema = _plain(table)
            with csv.CSVWriter(path, schema) as writer:
                for batch in policy.batches(table):
                    writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            written.append(path)
    return tuple(written)


def _plain(table: Table) -> pa.Schema:
    """Names as strings: CSV has no dictionaries."""
    kinds = ((field.name, field.type) for field in table.schema)
    return pa.schema([(name, kind.value_type if pa.types.is_dictionary(kind) else kind) for name, kind in kinds])
