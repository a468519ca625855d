"""Host memory of a process group."""

import os
from contextlib import suppress

import psutil


def group_memory_bytes(pgid: int) -> int:
    """Resident memory of the processes of group `pgid`; what several of them share counts once where Linux tells (PSS).

    0 for a group that is gone.
    """
    total = 0
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
            if os.getpgid(process.pid) == pgid and process.status() != psutil.STATUS_ZOMBIE:
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
    return total
