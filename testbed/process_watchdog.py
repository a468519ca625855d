"""Ends process groups when the testbed is gone, however it went.

Run by path: `python -I -S process_watchdog.py`, standard input being a pipe whose write end only the testbed holds.
Lines `+PGID START` and `-PGID` register and release a group; at the end of input every registered group gets SIGTERM,
what is left of it SIGKILL two seconds later. Standard library only.
"""

import os
import signal
import sys
import threading
from pathlib import Path

_TERM_GRACE_S = 2.0
_POLL_S = 0.05


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None when it is not there."""
    stat = _stat(pid)
    return int(stat[19]) if stat else None


def group_alive(pgid: int) -> bool:
    """Whether a process of the group still runs; zombies, which some init never reaps, count as gone."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        try:
            os.killpg(pgid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return any(
        stat[2] == str(pgid) and stat[0] not in ("Z", "X")
        for entry in proc.iterdir()
        if entry.name.isdigit() and (stat := _stat(int(entry.name)))
    )


def signal_group(pgid: int, number: signal.Signals) -> None:
    """Send a signal to a group; one that is gone is left in peace."""
    try:
        os.killpg(pgid, number)
    except (ProcessLookupError, PermissionError):
        return


def is_recycled(pgid: int, registered_ticks: int | None) -> bool:
    """Whether the number now belongs to another process than the one registered.

    The kernel gives no new process the number of a group that has members, so a leader that is gone proves nothing.
    """
    ticks = start_ticks(pgid)
    return ticks is not None and registered_ticks is not None and ticks != registered_ticks


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state (the third) on; empty when the process is not there."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The second field is the program's name in parentheses, in which anything may stand.
    return text.rpartition(")")[2].split()


def end_groups(groups: dict[int, int | None]) -> None:
    """SIGTERM, up to two seconds of waiting, SIGKILL."""
    pause = threading.Event()
    ours = [pgid for pgid, ticks in groups.items() if not is_recycled(pgid, ticks)]
    for pgid in ours:
        signal_group(pgid, signal.SIGTERM)
    deadline_s = os.times().elapsed + _TERM_GRACE_S
    while os.times().elapsed < deadline_s:
        ours = [pgid for pgid in ours if group_alive(pgid)]
        if not ours:
            return
        pause.wait(_POLL_S)
    for pgid in ours:
        signal_group(pgid, signal.SIGKILL)


def main() -> None:
    # Its life ends with the pipe, not with a signal meant for the testbed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, int | None] = {}
    for line in sys.stdin:
        pgid = int(line[1:].split()[0])
        if line.startswith("+"):
            ticks = line.split()[1]
            groups[pgid] = None if ticks == "?" else int(ticks)
        else:
            groups.pop(pgid, None)
    end_groups(groups)


if __name__ == "__main__":
    main()
