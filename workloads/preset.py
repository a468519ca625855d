"""Files with the numbers of a synthetic workload: the bundled presets, and a user's own."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from workloads.strict_yaml import YamlFault, yaml_file


class PresetError(ValueError):
    """A file that is no mapping of a workload's keys, or a preset that does not exist; one line for the user."""


def bundled_presets() -> dict[str, Path]:
    """The presets that come with the testbed, by name."""
    folder = Path(str(files("workloads") / "presets"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def summary(path: Path) -> str:
    """What a preset is, from the comment on its first line."""
    with path.open(encoding="utf-8") as lines:
        return lines.readline().removeprefix("#").strip()


def read_values(path: Path) -> dict[str, Any]:
    """The keys and values of a workload file, not yet checked (SyntheticWorkload.model_validate does that).

    `base: NAME` takes everything that the file leaves out from a bundled preset, mapping by mapping.
    Raises PresetError for a file that cannot be read or a base that does not exist.
    """
    if not path.exists():
        raise PresetError(f"no workload file {path}")
    try:
        values = yaml_file(path)
    except YamlFault as error:
        raise PresetError(f"{path}: not a readable YAML file: {error}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise PresetError(f"{path}: holds {type(values).__name__}, wanted a mapping")
    base = values.pop("base", None)
    if base is None:
        return values
    presets = bundled_presets()
    if not isinstance(base, str) or base not in presets or presets[base] == path:
        raise PresetError(f"{path}: base {base!r} is no preset; there are {', '.join(presets)}")
    return _over(read_values(presets[base]), values)


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
