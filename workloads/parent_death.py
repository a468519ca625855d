"""A worker process that does not outlive whoever started it, not even when that is killed with SIGKILL."""

import multiprocessing
import os
import signal
import sys


def die_with_parent() -> None:
    """From now on the kernel kills this process of `multiprocessing` when the thread that started it ends. Linux only;
    elsewhere a worker notices at the end of its job."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it went before the line above
        os._exit(1)
