"""Becomes the program it is told to start, and dies with the process that started it.

Run by path: `python -I -S process_leader.py PARENT_PID WATCHDOG_FD WHAT PROGRAM [ARGUMENT ...]`. It registers itself
with the watchdog, as what the JSON of WHAT says, before the program runs, so that there is no moment in which a child
of the program could escape. Standard library only, and nothing of the testbed, so that it is quick to give way to the
program.
"""

import os
import signal
import sys


def main() -> int:
    parent = int(sys.argv[1])
    watchdog_fd = int(sys.argv[2])
    what = sys.argv[3]
    program = sys.argv[4:]
    if sys.platform == "linux":
        import ctypes

        # prctl(PR_SET_PDEATHSIG, SIGKILL): survives exec, and is bound to the parent's thread that forked.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # The parent may have died before the line above.
    if os.getppid() != parent:
        return 1
    try:
        os.write(watchdog_fd, f"+{os.getpid()} {_start_ticks()} {what}\n".encode())
        os.close(watchdog_fd)
    except OSError as error:
        print(f"cannot register with the watchdog: {error.strerror}", file=sys.stderr, flush=True)
        return 1
    # Python ignores it, and what is ignored stays so for the program.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127


def _start_ticks() -> str:
    """Field 22 of /proc/self/stat, by which the watchdog knows the process again; "?" without /proc."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:  # noqa: PTH123 (pathlib is slow to load)
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return "?"


if __name__ == "__main__":
    sys.exit(main())
