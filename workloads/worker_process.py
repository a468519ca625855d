"""What a worker process of `multiprocessing` does before its work."""

import multiprocessing
import os
import signal
import sys

from workloads.api_key import drop_keys


def begin_worker() -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the parent; do not outlive it, not even when it is
    killed with SIGKILL; hand no key on. What needs a key is given it with its work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    drop_keys()


def _die_with_parent() -> None:
    """From now on the kernel kills this process when the thread that started it ends. Linux only; elsewhere a worker
    notices at the end of its job."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it went before the line above
        os._exit(1)
