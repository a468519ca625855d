"""Folders for temporary files whose names say whose they are, so that what a killed testbed left can be told from what
is in use."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.process_watchdog import is_running, start_ticks, this_machine

_NAME = re.compile(r"testbed-(\w*-\d*)-(\d+)-(\d+)-\w+")


def make_temporary_folder() -> Path:
    """A fresh folder beside the system's other temporary files, for this user alone. Raises OSError."""
    prefix = f"testbed-{_here()}-{os.getpid()}-{start_ticks(os.getpid()) or ''}-"
    return Path(tempfile.mkdtemp(prefix=prefix))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """One that is removed at the end."""
    folder = make_temporary_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def abandoned_folders() -> list[Path]:
    """This user's temporary folders of testbeds that are gone."""
    found = []
    for folder in Path(tempfile.gettempdir()).glob("testbed-*"):
        name = _NAME.fullmatch(folder.name)
        # On another boot, or another machine that shares the place, and in another namespace a number means another
        # process.
        if name is None or name[1] != _here():
            continue
        with suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.geteuid() and not is_running(int(name[2]), int(name[3])):
                found.append(folder)
    return found


def _here() -> str:
    """The boot and the namespace of numbers, short: a socket's path has 107 bytes at most."""
    machine = this_machine()
    namespace = "".join(filter(str.isdigit, machine["pid_namespace"]))
    return f"{machine['boot_id'][:8]}-{namespace}"
