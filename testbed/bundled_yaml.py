"""YAML files that come with the testbed or lie elsewhere: by a bundled name or by their path."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from testbed.bad_input import BadInput
from testbed.strict import nearest
from workloads.strict_yaml import YamlFault, yaml_file


def bundled_files(folder: str) -> dict[str, Path]:
    """The YAML files in a folder of the package `testbed`, by name."""
    return {path.stem: path for path in sorted(Path(str(files("testbed") / folder)).glob("*.yaml"))}


def is_there(path: Path) -> bool:
    """Whether it is a file; no path is one that the system cannot look for, such as a name of 300 characters."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a ValueError: a NUL in the name
        return False


def yaml_mapping(name_or_path: str, bundled: dict[str, Path], kind: str) -> tuple[dict[str, Any], Path]:
    """The keys and values of a file that holds a `kind`, not yet checked; and where they were read from.

    Raises BadInput for a missing file, bad YAML, or a file that holds no mapping.
    """
    path = Path(name_or_path)
    if not is_there(path):
        if name_or_path not in bundled:
            hint = nearest(name_or_path, bundled)
            raise BadInput(f"no {kind} {name_or_path!r}: neither a file nor a bundled name{hint}")
        path = bundled[name_or_path]
    try:
        values = yaml_file(path)
    except YamlFault as error:
        raise BadInput(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path}: holds {type(values).__name__}, wanted a mapping of {kind} keys")
    return values, path
