"""A disk that takes no more, in words."""

import errno
import os

_FAULTS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota used up",
    errno.EROFS: "disk has become read-only",
    errno.EIO: "disk fails",
}


def disk_fault(error: OSError) -> str | None:
    """One line for an error of the disk, with the file where the error names one; None for any other error."""
    if error.errno not in _FAULTS:
        return None
    at = f" ({error.filename})" if error.filename else ""
    return f"{_FAULTS[error.errno]}: {os.strerror(error.errno)}{at}"
