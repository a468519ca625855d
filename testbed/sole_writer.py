"""One process at a time in a folder that is gone on with: two would take each other's files for their own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.bad_input import BadInput


@contextmanager
def sole_writer(lock: Path, place: str) -> Iterator[None]:
    """Hold the file `lock`, made for this and gone afterwards, while the block runs.

    The kernel lets go of it with the process, however that ends. Where the file system has no locks nothing is held.
    Raises BadInput, naming `place` and the process that holds it; OSError where no file can be made.
    """
    descriptor = _held(lock, place)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _held(lock: Path, place: str) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace") or "another one"
            os.close(descriptor)
            raise BadInput(
                f"{place}: process {holder} is at work there; wait for it or stop it first, or name another place"
            ) from None
        except OSError:
            pass  # as on Lustre without -o flock
        if _is_there(descriptor, lock):
            break
        os.close(descriptor)  # the one before removed it after it was opened here
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _is_there(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False
