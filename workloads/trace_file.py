"""The Parquet file of a trace: opened, and what it says of itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from workloads.first_fault import first_fault
from workloads.strict_json import RepeatedKey, require_each_key_once
from workloads.trace_checks import TraceError
from workloads.trace_metadata import TraceMetadata

METADATA_KEY = b"sageserve_testbed"


@contextmanager
def trace_file(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file while the block reads it, its pages held against their checksums where it has them.

    Raises TraceError for a file that cannot be read, then or in the block.
    """
    try:
        # Not pq.read_table: what a streaming writer adds at the end of a file is not in the schema that it returns.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    # An OverflowError, a UnicodeDecodeError: a size, a name that a damaged footer gives.
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from None


def metadata_in(file: pq.ParquetFile, path: Path) -> TraceMetadata:
    """What the file at `path` says of itself. Raises TraceError where it says nothing, or what no trace says."""
    text = (file.metadata.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise TraceError(f"{path}: no {METADATA_KEY.decode()!r} metadata in it; write traces with Trace.write")
    return parsed_metadata(text, path)


def parsed_metadata(text: bytes, path: Path) -> TraceMetadata:
    """The metadata in the JSON `text` of the file at `path`. Raises TraceError."""
    try:
        require_each_key_once(text)
        return TraceMetadata.model_validate_json(text)
    except RepeatedKey as error:
        raise TraceError(f"{path}: metadata: {error}") from None
    except ValidationError as error:
        raise TraceError(f"{path}: metadata {first_fault(error)}") from None
