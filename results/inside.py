"""A run folder may come from anybody: what lies in it is read only where it lies in it."""

from pathlib import Path

from results.run_folder_error import RunFolderError


def require_inside(folder: Path, path: Path) -> Path:
    """`path`, below `folder`. Raises RunFolderError for a link that leads out of it, or nowhere."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a RuntimeError: links that lead to each other
        inside = False
    if not inside:
        raise RunFolderError(f"{path} is a link that leads out of {folder}; put the file itself in its place")
    return path
