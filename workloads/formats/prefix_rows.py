"""Lists of block numbers in JSON records: the prompt's blocks from its start, one number each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workloads.formats.findings import Findings
from workloads.formats.json_rows import Record
from workloads.formats.text_rows import TextRows
from workloads.optional_columns import lists
from workloads.trace_checks import TraceError

INT64 = range(-(2**63), 2**63)


def prefix_hashes(
    rows: TextRows, records: Sequence[Record], prompt: npt.NDArray[np.int64], block_tokens: int, findings: Findings
) -> pa.ListArray:
    """`hash_ids` of each record, empty where it has none; rows with a list that cannot be are refused.

    A list may be shorter than the prompt. Raises TraceError where most are longer: then tokens or blocks are in another
    unit.
    """
    found = [_list(record.get("hash_ids")) for record in records]
    broken = np.array([numbers is None for numbers in found], dtype=np.bool_)
    rows.refuse("hash_ids", broken, "not a list of whole numbers")
    lengths = np.array([len(numbers or ()) for numbers in found], dtype=np.int64)
    most = -(-prompt // block_tokens)
    long = rows.good & (lengths > most)
    if long.sum() * 2 > max(1, rows.good.sum()):
        row = int(np.argmax(long))
        raise TraceError(
            f"{findings.source}, line {rows.line[row]}, column hash_ids: {lengths[row]} blocks for {prompt[row]} "
            f"tokens, and most rows alike; a block has {block_tokens} tokens: lengths in thousands, another block size?"
        )
    rows.refuse("hash_ids", long, f"more blocks of {block_tokens} tokens than the prompt has")
    values = np.array([number for numbers in found for number in numbers or ()], dtype=np.int64)
    return lists(values, lengths)


def _list(value: Any) -> list[int] | None:
    if value is None:
        return []
    if not isinstance(value, list):
        return None
    return value if all(type(number) is int and number in INT64 for number in value) else None
