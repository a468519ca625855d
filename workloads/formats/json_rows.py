"""JSON lines as blocks of text columns, with the records beside them for what is no scalar."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from workloads.formats.byte_blocks import line_blocks
from workloads.formats.findings import Findings
from workloads.formats.text_rows import TextRows

Record = dict[str, Any]


def json_rows(path: Path, findings: Findings, *, wanted: Sequence[str]) -> Iterator[tuple[TextRows, list[Record]]]:
    """The fields `wanted` of each line as text ("" where a record lacks one), and the records, of one length.

    A line that holds no JSON object is skipped and counted, an empty one passed over.
    """
    for first_line, block in line_blocks(path):
        records: list[Record] = []
        lines: list[int] = []
        for number, raw in enumerate(block[:-1].split(b"\n"), first_line):
            if not raw.strip():
                continue
            record = record_of(raw)
            if record is None:
                findings.rows_read += 1
                findings.skip("(line)", "not a JSON object, or cut off", np.array([number]), raw.strip())
                continue
            records.append(record)
            lines.append(number)
        columns = {name: pa.array([_text(record.get(name)) for record in records], pa.binary()) for name in wanted}
        yield TextRows(columns, np.array(lines, dtype=np.int64), findings), records


def record_of(line: bytes) -> Record | None:
    """The JSON object of a line, None where there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None
    return record if isinstance(record, dict) else None


def _text(value: Any) -> bytes:
    if value is None:
        return b""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else str(value).encode()
