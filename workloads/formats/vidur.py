"""The CSV that the simulator Vidur replays (github.com/microsoft/vidur, its trace request generator): written only."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from workloads.formats.csv_writing import write_csv
from workloads.formats.trace_format import TraceFormat
from workloads.trace_metadata import TraceMetadata

COLUMNS = {
    "arrived_at": "arrival_s",
    "num_prefill_tokens": "prompt_tokens",
    "num_decode_tokens": "output_tokens",
}


def _write(batches: Iterable[pa.Table], _: Callable[[], TraceMetadata], path: Path) -> tuple[str, ...]:
    write_csv(path, tuple(COLUMNS), (table.select(list(COLUMNS.values())) for table in batches))
    return ("kept: arrival in s and tokens; nothing else",)


VIDUR = TraceFormat(
    name="vidur",
    about="Vidur's CSV: arrived_at,num_prefill_tokens,num_decode_tokens; written only",
    write=_write,
)
