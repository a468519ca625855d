"""What runs on behalf of a testbed, on disk, so that `testbed clean` finds it when nobody else is left to end it.

A file for each run and for each process group, in one folder per user. A process is known by its number and its start
together, on one boot of one machine: numbers come again, the pair does not. Groups are recorded by the watchdog
(`process_watchdog`), runs here.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from results.atomic_file import replace_text
from testbed.process_watchdog import is_running, start_ticks, this_machine

_FOLDER = Path("sageserve-testbed", "processes")
RUN = "run"
"""What the record of a testbed's own run says that it is."""


class ProcessRecord(BaseModel):
    """A process, or the group that it leads, and the testbed that it belongs to.

    `members` are processes of the group with their starts, as last seen; `shared_memory` files of /dev/shm that they
    made; `folder` is where the run writes, "" where there is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    start_ticks: int
    owner_pid: int
    owner_start_ticks: int | None
    node: str
    machine_id: str
    boot_id: str
    pid_namespace: str
    what: str
    folder: str = ""
    members: tuple[tuple[int, int], ...] = ()
    shared_memory: tuple[str, ...] = ()

    @property
    def owner_runs(self) -> bool:
        """Whether the testbed that it belongs to still runs."""
        return is_running(self.owner_pid, self.owner_start_ticks)

    @property
    def here(self) -> bool:
        """Whether its numbers mean processes that this one can see."""
        return all(getattr(self, name) == value for name, value in this_machine().items())

    @property
    def before_this_boot(self) -> bool:
        """Whether this machine has been started again since: whatever it was is gone."""
        now = this_machine()
        same = self.machine_id != "" and (self.node, self.machine_id) == (now["node"], now["machine_id"])
        return same and self.boot_id != now["boot_id"]

    def is_of_run(self, folder: Path) -> bool:
        """Whether it is of the run that writes `folder`."""
        return self.what == RUN and Path(self.folder).resolve() == folder.resolve()


def record_folder() -> Path | None:
    """Where records are kept: the first folder of `record_folders` that can be made and written; None when none can."""
    for folder in record_folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _is_ours(folder) and os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def record_folders() -> list[Path]:
    """The user's state folder; where it cannot be written (a container's HOME), the one of the session, then one beside
    the system's temporary files."""
    state, runtime = os.environ.get("XDG_STATE_HOME"), os.environ.get("XDG_RUNTIME_DIR")
    folders = [Path(state)] if state else []
    if not state:
        with suppress(RuntimeError):  # there is no home
            folders.append(Path.home() / ".local" / "state")
    if runtime:
        folders.append(Path(runtime))
    folders.append(Path(tempfile.gettempdir(), f"sageserve-testbed-{os.geteuid()}"))
    return [folder / _FOLDER for folder in folders if folder.is_absolute()]


def recorded() -> list[tuple[Path, ProcessRecord | None]]:
    """Every record of this user with its file, None for one that cannot be read."""
    found: list[tuple[Path, ProcessRecord | None]] = []
    for folder in record_folders():
        with suppress(OSError):
            # Somebody else's folder could name processes of ours.
            files = sorted(folder.glob("*.json")) if _is_ours(folder) else []
            found += [(file, _read(file)) for file in files]
    return found


def forget_killed_run(folder: Path) -> None:
    """Remove what is recorded of runs that wrote `folder` and were killed: somebody goes on with it."""
    for file, record in recorded():
        if record is None or not record.is_of_run(folder):
            continue
        if record.before_this_boot or (record.here and not record.owner_runs):
            with suppress(OSError):
                file.unlink()


@contextmanager
def run_record(folder: Path) -> Iterator[None]:
    """While it lasts, the run that writes `folder` is recorded; without a place for records it is not."""
    place, ticks = record_folder(), start_ticks(os.getpid())
    file = None
    if place is not None and ticks is not None:
        record = {
            "pid": os.getpid(),
            "start_ticks": ticks,
            "owner_pid": os.getpid(),
            "owner_start_ticks": ticks,
            "what": RUN,
            "folder": str(folder.absolute()),
            **this_machine(),
        }
        with suppress(OSError):
            file = place / f"run-{os.getpid()}-{ticks}.json"
            replace_text(file, ProcessRecord.model_validate(record).model_dump_json())
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                file.unlink()


def _is_ours(folder: Path) -> bool:
    about = folder.lstat()
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()


def _read(file: Path) -> ProcessRecord | None:
    try:
        return ProcessRecord.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
