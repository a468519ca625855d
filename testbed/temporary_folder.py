"""Folders for temporary files whose names say whose they are, so that what a killed testbed left can be told from what
is in use."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.process_watchdog import start_ticks, this_machine

_NAME = re.compile(r"testbed-(\d*)-(\d+)-(\d+)-\w+")


def make_temporary_folder() -> Path:
    """A fresh folder beside the system's other temporary files, for this user alone. Raises OSError."""
    prefix = f"testbed-{_namespace()}-{os.getpid()}-{start_ticks(os.getpid()) or 0}-"
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
        # In another namespace a number means another process.
        if name is None or name[1] != _namespace():
            continue
        with suppress(OSError):
            about = folder.lstat()
            if about.st_uid == os.geteuid() and start_ticks(int(name[2])) != int(name[3]):
                found.append(folder)
    return found


def _namespace() -> str:
    return "".join(filter(str.isdigit, this_machine()["pid_namespace"]))
