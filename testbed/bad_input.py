"""How a command ends that cannot do what it was told."""

from pathlib import Path

# Exit codes.
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130


class BadInput(ValueError):
    """One line for the user: what was given, what was wanted, what to do. Exit code 2."""


def require_folder_of(path: Path | None, option: str) -> None:
    """Before the work whose result is to be written there. Raises BadInput."""
    if path is not None and not path.parent.is_dir():
        raise BadInput(f"{option} {path}: there is no folder {path.parent}; make it first")
    if path is not None and path.is_dir():
        raise BadInput(f"{option} {path} is a folder; name a file")


class CommandFailed(RuntimeError):
    """The machine did not do what it should; one line for the user. Exit code 1."""
