"""All formats, and which of them a file is in."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from workloads.formats.azure import AZURE, AZURE_LMM
from workloads.formats.azure_counts import AZURE_COUNTS
from workloads.formats.bailian import BAILIAN
from workloads.formats.burstgpt import BURSTGPT
from workloads.formats.byte_blocks import head
from workloads.formats.csv_rows import header_of
from workloads.formats.findings import shortened
from workloads.formats.json_rows import record_of
from workloads.formats.mooncake import MOONCAKE
from workloads.formats.sageserve import SAGESERVE
from workloads.formats.servegen import SERVEGEN
from workloads.formats.tidy import PARQUET, TIDY_CSV
from workloads.formats.trace_format import FileHead, TraceFormat
from workloads.formats.vidur import VIDUR
from workloads.trace_checks import TraceError
from workloads.trace_file import METADATA_KEY

FORMATS = {
    format_.name: format_
    for format_ in (
        PARQUET, TIDY_CSV, SAGESERVE, AZURE, AZURE_LMM, AZURE_COUNTS, BURSTGPT, MOONCAKE, BAILIAN, SERVEGEN, VIDUR,
    )
}  # fmt: skip
READABLE = tuple(name for name, format_ in FORMATS.items() if format_.batches)
WRITABLE = tuple(name for name, format_ in FORMATS.items() if format_.write)
HEAD_BYTES = 1 << 20
_JSON_KEY = re.compile(rb'"(\w+)"\s*:')


def format_named(name: str, *, to: str) -> TraceFormat:
    """The format called `name`; `to` is "read" or "write". Raises TraceError for one that cannot be."""
    able = READABLE if to == "read" else WRITABLE
    if name not in able:
        raise TraceError(f"no format {name!r} to {to}; there are {', '.join(able)}")
    return FORMATS[name]


def detected(path: Path) -> TraceFormat:
    """The format of a file or folder, by what is in it. Raises TraceError where it is none, or cannot be read."""
    found = _file_head(path)
    for format_ in FORMATS.values():
        if format_.batches and format_.matches(found):
            return format_
    if found.is_folder:
        what = "a folder without chunk-N-trace.csv in it"
    elif found.parquet_columns:
        what = f"a Parquet file with columns {', '.join(found.parquet_columns)}"
    elif found.json_keys:
        what = f"JSON with the keys {', '.join(sorted(found.json_keys))}"
    else:
        first_line = head(path, 200).split(b"\n", 1)[0]
        what = f"a first line {shortened(first_line)}"
    raise TraceError(f"{path}: {what} is no format known here; there are {', '.join(READABLE)}: say one with --from")


def _file_head(path: Path) -> FileHead:
    header: tuple[str, ...] = ()
    json_keys: frozenset[str] = frozenset()
    parquet_columns: tuple[str, ...] = ()
    is_ours = False
    first = b"" if path.is_dir() else head(path, HEAD_BYTES)
    if first.startswith(b"PAR1"):
        try:
            with pq.ParquetFile(path) as file:
                parquet_columns = tuple(file.schema_arrow.names)
                is_ours = METADATA_KEY in (file.metadata.metadata or {})
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise TraceError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from None
    elif first.lstrip().startswith(b"{"):
        line = first.lstrip().split(b"\n", 1)[0]
        # A first line that is cut off still shows its keys.
        keys = record_of(line) or [key.decode() for key in _JSON_KEY.findall(line)]
        json_keys = frozenset(keys)
    elif not path.is_dir():
        if not first.strip():
            raise TraceError(f"{path}: an empty file; wanted a trace in one of {', '.join(READABLE)}")
        header = header_of(first)
    return FileHead(
        path=path,
        is_folder=path.is_dir(),
        header=header,
        json_keys=json_keys,
        parquet_columns=parquet_columns,
        is_ours=is_ours,
    )
