"""A file as blocks of whole lines, in flat memory."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from workloads.trace_checks import TraceError

BLOCK_BYTES = 8 << 20
LONGEST_LINE_BYTES = 64 << 20
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"


def head(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file, unpacked if it is gzip. Raises TraceError for a file that cannot be read."""
    try:
        with _opened(path) as file:
            return file.read(size).removeprefix(BOM)
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: {_reason(error)}") from None


def line_blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, bytes]]:
    """(number of the first line, whole lines that end in a newline each) of a file; lines count from 1.

    gzip is unpacked, a byte-order mark dropped. Raises TraceError for a file that cannot be read to its end.
    """
    rest, line = b"", 1
    try:
        with _opened(path) as file:
            while data := file.read(block_bytes):
                if line == 1 and not rest:
                    data = data.removeprefix(BOM)
                data = rest + data
                end = data.rfind(b"\n") + 1
                block, rest = data[:end], data[end:]
                if len(rest) > LONGEST_LINE_BYTES:
                    raise TraceError(f"{path}: a line after line {line} is longer than {LONGEST_LINE_BYTES >> 20} MiB")
                if block:
                    yield line, block
                    line += block.count(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}, after line {line}: {_reason(error)}") from None
    if rest:
        yield line, rest + b"\n"


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
