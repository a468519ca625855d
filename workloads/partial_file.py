"""A file that is there whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to `path` when the block ends well and removed when it does not."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # a link to somewhere else would be written through
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
