"""Ends process groups when the testbed is gone, however it went; until then it keeps the record of what runs.

Run by path: `python -I -S process_watchdog.py RECORDS SCRATCH OWNER_PID`, standard input being a pipe whose write end
only the testbed holds. Lines `+PGID START WHAT` and `-PGID` register and release a group (WHAT is the JSON of what it
is and of its folder). At the end of input every registered group gets SIGTERM, what is left of it SIGKILL two seconds
later, and the folder SCRATCH is removed. RECORDS gets a file for each group (`process_record` reads them), by which
`testbed clean` ends what was left when this process was killed too; empty: none is kept. Standard library only.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from stat import S_ISREG

_TERM_GRACE_S = 2.0
_KILL_S = 5.0
_POLL_S = 0.05
# The members of a group are looked up so soon after a group was registered, then twice as long after that, and so on:
# a server has its workers within a minute.
_FIRST_LOOK_S = 1.0
_LAST_LOOK_S = 60.0
_READ_BYTES = 65_536
_SHARED_MEMORY = Path("/dev/shm")
# What killed processes leave there: blocks and semaphores of multiprocessing, NCCL's, torch's and vLLM's. Everything
# else may be somebody's files (weights, a cache), and so may what lies in a folder.
_LEFT_THERE = re.compile(
    r"/dev/shm/(psm_[0-9a-f]{8}|sem\.mp-[a-z0-9_]{8}|nccl-\w{6}|torch_\d+_\d+_\d+"
    r"|vllm_(offload|ec)_[\w-]+\.mmap|vllm_mm_[\w-]{22})"
)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None when it is not there."""
    stat = _stat(pid)
    return int(stat[19]) if stat else None


def is_running(pid: int, ticks: int | None) -> bool:
    """Whether the process that started then still runs. A zombie, which its parent has not reaped, does not."""
    stat = _stat(pid)
    return bool(stat) and int(stat[19]) == ticks and stat[0] not in "ZX"


def group_members(pgid: int) -> dict[int, int]:
    """The processes of a group that run, each with its start (`start_ticks`); zombies, which some init never reaps,
    count as gone."""
    return {
        pid: int(stat[19])
        for pid in _process_ids()
        if (stat := _stat(pid)) and stat[2] == str(pgid) and stat[0] not in "ZX"
    }


def group_alive(pgid: int) -> bool:
    """Whether a process of the group still runs."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(pgid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return bool(group_members(pgid))


def _process_ids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


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


def this_machine() -> dict[str, str]:
    """What a process number means something within: this machine's name and id ("" where it has none; a name alone may
    be that of many), its boot, and the namespace of numbers."""
    machine_id = boot_id = namespace = ""
    with contextlib.suppress(OSError):
        machine_id = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"node": os.uname().nodename, "machine_id": machine_id, "boot_id": boot_id, "pid_namespace": namespace}


def end_groups(pgids: Iterable[int]) -> list[int]:
    """SIGTERM, up to two seconds of waiting, SIGKILL; returns the groups that withstood it for some seconds more."""
    left = list(pgids)
    for number, within_s in ((signal.SIGTERM, _TERM_GRACE_S), (signal.SIGKILL, _KILL_S)):
        for pgid in left:
            signal_group(pgid, number)
        left = _alive_after(left, within_s)
    return left


def shared_memory(pids: Iterable[int]) -> set[str]:
    """Files of /dev/shm that these processes map and that, by their names, nobody removes when all are killed."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
                path = line.split(maxsplit=5)[-1]
                if _LEFT_THERE.fullmatch(path):
                    found.add(path)
    return found


def unmapped(paths: Iterable[str]) -> set[str]:
    """Those that are there, this user's files with such a name, and that no process maps any more."""
    there = {path for path in paths if _LEFT_THERE.fullmatch(path) and _is_own_file(Path(path))}
    return there - shared_memory(_process_ids()) if there else there


def remove_shared_memory(paths: Iterable[str]) -> None:
    """Remove those that no process maps any more."""
    for path in unmapped(paths):
        with contextlib.suppress(OSError):
            Path(path).unlink()


def _is_own_file(path: Path) -> bool:
    try:
        about = path.lstat()
    except OSError:
        return False
    return S_ISREG(about.st_mode) and about.st_uid == os.geteuid()


class _Records:
    """The file of each group, in a folder that may be lost or full: then there is no record, and nothing is worse."""

    def __init__(self, folder: Path | None, owner_pid: int) -> None:
        self._folder = folder
        self._common = {**this_machine(), "owner_pid": owner_pid, "owner_start_ticks": start_ticks(owner_pid)}
        self._ticks: dict[int, int | None] = {}
        self._told: dict[int, Mapping[str, str]] = {}
        self._written: dict[int, object] = {}
        self._shared_memory: dict[int, set[str]] = {}
        self._there_before: dict[int, set[str]] = {}

    def registered(self) -> list[int]:
        """The groups whose number still is theirs."""
        return [pgid for pgid, ticks in self._ticks.items() if not is_recycled(pgid, ticks)]

    def shared_memory(self) -> set[str]:
        return set().union(*self._shared_memory.values())

    def register(self, pgid: int, ticks: int | None, told: Mapping[str, str]) -> None:
        self._ticks[pgid], self._told[pgid], self._shared_memory[pgid] = ticks, told, set()
        with contextlib.suppress(OSError):
            self._there_before[pgid] = {str(path) for path in _SHARED_MEMORY.iterdir()}
        self._write(pgid, {})

    def release(self, pgid: int) -> None:
        """The group is gone."""
        if pgid in self._ticks:
            with contextlib.suppress(OSError):
                self._file(pgid).unlink()
            remove_shared_memory(self._shared_memory.pop(pgid))
            del self._ticks[pgid], self._told[pgid]
            self._written.pop(pgid, None)
            self._there_before.pop(pgid, None)

    def look(self) -> None:
        """Note who belongs to each group by now, and what it has put into /dev/shm."""
        for pgid in self.registered():
            members = group_members(pgid)
            if pgid in self._there_before:
                self._shared_memory[pgid] |= shared_memory(members) - self._there_before[pgid]
            self._write(pgid, members)

    def _write(self, pgid: int, members: Mapping[int, int]) -> None:
        ticks = self._ticks[pgid]
        if self._folder is None or ticks is None:
            return
        record = {
            "pid": pgid,
            "start_ticks": ticks,
            "members": sorted(members.items()),
            "shared_memory": sorted(self._shared_memory[pgid]),
            **self._told[pgid],
            **self._common,
        }
        if self._written.get(pgid) == record:
            return
        self._written[pgid] = record
        file = self._file(pgid)
        with contextlib.suppress(OSError):
            temporary = file.with_name(f".{file.name}.tmp")
            temporary.write_text(json.dumps(record), encoding="utf-8")
            temporary.replace(file)

    def _file(self, pgid: int) -> Path:
        return (self._folder or Path()) / f"{pgid}-{self._ticks[pgid]}.json"


def main() -> None:
    # Its life ends with the pipe, not with a signal meant for the testbed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    records = _Records(Path(sys.argv[1]) if sys.argv[1] else None, int(sys.argv[3]))
    own_ticks = start_ticks(os.getpid())
    records.register(os.getpid(), own_ticks, {"what": "watchdog", "folder": ""})
    _until_input_ends(records)
    others = [pgid for pgid in records.registered() if pgid != os.getpid()]
    for pgid in set(others) - set(end_groups(others)):
        records.release(pgid)
    if sys.argv[2]:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
    records.release(os.getpid())


def _until_input_ends(records: _Records) -> None:
    waiting, look_after_s = b"", _FIRST_LOOK_S
    look_at_s = _now_s() + look_after_s
    while True:
        # Lines that keep coming put off no look.
        if select.select([sys.stdin], [], [], max(0.0, look_at_s - _now_s()))[0]:
            piece = os.read(sys.stdin.fileno(), _READ_BYTES)
            if not piece:
                return
            *lines, waiting = (waiting + piece).split(b"\n")
            for line in lines:
                _take(records, line.decode())
            look_after_s = _FIRST_LOOK_S
            look_at_s = min(look_at_s, _now_s() + look_after_s)
        if _now_s() >= look_at_s:
            records.look()
            look_after_s = min(2 * look_after_s, _LAST_LOOK_S)
            look_at_s = _now_s() + look_after_s


def _take(records: _Records, line: str) -> None:
    if line.startswith("-"):
        records.release(int(line[1:]))
        return
    pgid, ticks, told = line[1:].split(" ", 2)
    records.register(int(pgid), None if ticks == "?" else int(ticks), json.loads(told))


def _now_s() -> float:
    return os.times().elapsed


def _alive_after(pgids: list[int], within_s: float) -> list[int]:
    """Those that still run when the time is over; sooner when none does."""
    pause = threading.Event()
    deadline_s = _now_s() + within_s
    while pgids := [pgid for pgid in pgids if group_alive(pgid)]:
        if _now_s() >= deadline_s:
            break
        pause.wait(_POLL_S)
    return pgids


if __name__ == "__main__":
    main()
