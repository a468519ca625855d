"""The columns that a format lacks, from what the reader was told."""

import numpy as np
import pyarrow as pa

from workloads.derived import with_column
from workloads.formats.findings import Findings
from workloads.formats.options import ReadOptions
from workloads.trace_checks import LABELS, NUMBER_TYPES, TraceError


def completed(table: pa.Table, options: ReadOptions, findings: Findings) -> pa.Table:
    """`table` with model, region, tier and deadline_s, in the types of a trace; `line` stays only beside a request_id.

    Raises TraceError where a label is missing and was not given, or was given and is in the file.
    """
    missing = []
    for name, given in zip(LABELS, (options.model, options.region, options.tier), strict=True):
        if name not in table.column_names:
            if given is None:
                missing.append(name)
            else:
                codes = np.zeros(len(table), dtype=np.int16)
                constant = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([str(given)], pa.string()))
                table = table.append_column(name, constant)
        elif given is not None:
            raise TraceError(
                f"{findings.source}: format {findings.format} says the {name} itself, so --{name} has no place; "
                f"to rename use --map-{name} OLD={given}, with '*' for every name"
            )
        elif not pa.types.is_dictionary(table[name].type):
            table = with_column(table, name, table[name].dictionary_encode())
    if missing:
        wanted = " ".join(f"--{name} NAME" for name in missing)
        raise TraceError(
            f"{findings.source}: format {findings.format} does not say {', '.join(missing)}; give {wanted}"
        )
    if "deadline_s" not in table.column_names:
        table = table.append_column("deadline_s", pa.array(np.full(len(table), np.nan)))
    for name in ("prompt_tokens", "output_tokens"):
        table = with_column(table, name, table[name].cast(NUMBER_TYPES[name]))
    if "line" in table.column_names and "request_id" not in table.column_names:
        table = table.drop_columns(["line"])
    return table
