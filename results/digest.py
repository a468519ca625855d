"""Digests of what was recorded: of the contents, whatever the parts, row groups or writer that hold them."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from results.run_folder import PolicyFolder
from results.schema import COMPLETIONS, SERVERS, Table

# A solver's seconds depend on the machine, not on the experiment. Of a line of JSON without blanks: the key and its
# number; within a string the quotes would be escaped.
_LEFT_OUT = re.compile(r'(?<!\\)"solve_wall_s":[^,}]*')


def content_digest(folder: PolicyFolder) -> dict[str, str]:
    """sha256 (hex) of the completions, the changes of server state and the decisions of one policy.

    Two runs with equal digests recorded the same rows, in the same order, with the same values to the last bit.
    """
    return {
        "completions": _table_digest(folder, COMPLETIONS),
        "servers": _table_digest(folder, SERVERS),
        "decisions": _decisions_digest(folder.decisions()),
    }


def _table_digest(folder: PolicyFolder, table: Table) -> str:
    columns = [_ColumnDigest() for _ in table.columns]
    for batch in folder.batches(table):
        for digest, column in zip(columns, batch.columns, strict=True):
            digest.update(column)
    whole = hashlib.sha256()
    for name, digest in zip(table.columns, columns, strict=True):
        whole.update(f"{name}:{digest.hexdigest()}\n".encode())
    return whole.hexdigest()


class _ColumnDigest:
    """Streams of a column's validity, values and, for strings, lengths: none depends on where a batch ends."""

    def __init__(self) -> None:
        self._streams = tuple(hashlib.sha256() for _ in range(3))

    def update(self, column: pa.Array) -> None:
        validity, values, lengths = self._streams
        validity.update(_bytes(pc.is_valid(column), "u1"))
        if pa.types.is_dictionary(column.type):
            text = column.cast(pa.string())
            lengths.update(_bytes(pc.binary_length(text), "<i4"))
            whole = pa.ListArray.from_arrays(pa.array([0, len(text)], pa.int32()), text)
            values.update(pc.binary_join(whole, "")[0].as_buffer())
        else:
            kind = "<f8" if pa.types.is_floating(column.type) else "<i8"
            values.update(_bytes(column, kind))

    def hexdigest(self) -> str:
        return "/".join(stream.hexdigest() for stream in self._streams)


def _bytes(column: pa.Array, kind: str) -> bytes:
    filled = column if column.null_count == 0 else column.fill_null(0)
    return np.ascontiguousarray(filled.to_numpy(zero_copy_only=False), dtype=kind).tobytes()


def _decisions_digest(records: Iterable[dict[str, Any]]) -> str:
    whole = hashlib.sha256()
    for record in records:
        line = json.dumps(record, sort_keys=True, separators=(",", ":"))
        whole.update(_LEFT_OUT.sub("", line).encode() + b"\n")
    return whole.hexdigest()
