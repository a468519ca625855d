"""What testbeds that were killed left on this machine, and the end of it."""

import shutil
from collections.abc import Container
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from testbed.process_record import RUN, ProcessRecord, recorded
from testbed.process_watchdog import end_groups, group_members, remove_shared_memory, unmapped
from testbed.temporary_folder import abandoned_folders

# A record of another machine, or of another container, cannot be judged here; so old it is of no use there either.
_KEPT_FOR = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftGroup:
    """A process group whose testbed is gone, with the processes of it that run."""

    file: Path
    record: ProcessRecord
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftRun:
    """A run whose testbed was killed; `temporary` are files in its folder that were never finished, none where another
    run may be writing there."""

    file: Path
    folder: Path
    temporary: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """All that is recorded of this user's testbeds, by what is to become of it.

    `groups` are ended. `unknown` groups are not: their leader is gone, and none of their processes was recorded, so
    they could be anybody's. `going_on` belongs to testbeds that run. `stale` are records of what is gone, `elsewhere`
    those of other machines and containers, and of other versions. `shared_memory` are files in /dev/shm that nobody
    uses.
    """

    groups: tuple[LeftGroup, ...]
    unknown: tuple[LeftGroup, ...]
    runs: tuple[LeftRun, ...]
    going_on: tuple[ProcessRecord, ...]
    stale: tuple[Path, ...]
    elsewhere: tuple[Path, ...]
    shared_memory: tuple[str, ...]
    folders: tuple[Path, ...]


def leftovers() -> Leftovers:
    """Look at every record, and touch nothing."""
    groups: list[LeftGroup] = []
    unknown: list[LeftGroup] = []
    killed: list[tuple[Path, Path]] = []
    going_on: list[ProcessRecord] = []
    stale: list[Path] = []
    elsewhere: list[Path] = []
    shared: set[str] = set()
    written: set[Path] = set()
    for file, record in recorded():
        if record is None or not (record.here or record.before_this_boot):
            (stale if _old(file) else elsewhere).append(file)
            if record is not None and record.what == RUN:
                written.add(Path(record.folder).resolve())
        elif record.here and record.owner_runs:
            going_on.append(record)
            written.add(Path(record.folder).resolve())
        elif record.what == RUN:
            killed.append((file, Path(record.folder)))
        else:
            members = group_members(record.pid) if record.here else {}
            left = LeftGroup(file=file, record=record, pids=tuple(sorted(members)))
            if not members:
                stale.append(file)
            elif _is_known(record, members):
                groups.append(left)
            else:
                unknown.append(left)
            shared.update(record.shared_memory)
    return Leftovers(
        groups=tuple(groups),
        unknown=tuple(unknown),
        runs=tuple(_left_run(file, folder, written) for file, folder in killed),
        going_on=tuple(going_on),
        stale=tuple(stale),
        elsewhere=tuple(elsewhere),
        shared_memory=tuple(sorted(unmapped(shared))),
        folders=tuple(abandoned_folders()),
    )


def end(left: Leftovers) -> tuple[LeftGroup, ...]:
    """End the groups, remove records and temporary files; returns the groups that withstand SIGKILL, whose records
    stay."""
    withstand = end_groups(group.record.pid for group in left.groups)
    for group in left.groups:
        if group.record.pid not in withstand:
            _remove(group.file)
    of_groups = (path for group in left.groups for path in group.record.shared_memory)
    remove_shared_memory((*left.shared_memory, *of_groups))
    for run in left.runs:
        for path in (*run.temporary, run.file):
            _remove(path)
    for path in (*left.stale, *left.folders):
        _remove(path)
    return tuple(group for group in left.groups if group.record.pid in withstand)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_known(record: ProcessRecord, members: dict[int, int]) -> bool:
    """Whether one of the group's processes is one that was recorded: then the number has belonged to it ever since."""
    return any(members.get(pid) == ticks for pid, ticks in ((record.pid, record.start_ticks), *record.members))


def _left_run(file: Path, folder: Path, written: Container[Path]) -> LeftRun:
    """`written`: folders of runs that go on, or that nobody can judge here."""
    left = folder.is_dir() and folder.resolve() not in written
    # The names of results.atomic_file.
    temporary = tuple(sorted(folder.rglob(".*.tmp"))) if left else ()
    return LeftRun(file=file, folder=folder, temporary=temporary)


def _old(file: Path) -> bool:
    try:
        written = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError:
        return False
    return datetime.now(UTC) - written > _KEPT_FOR
