"""Where scenarios are read from: a bundled name or a file, laid over another one where it says so, keys overridden."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testbed.bad_input import BadInput
from testbed.bundled_yaml import bundled_files, is_there, yaml_mapping
from testbed.scenario import Scenario, ScenarioError
from testbed.strict import nearest, one_line
from workloads.strict_yaml import YamlFault, yaml_values

# A segment of a key in quotes, up to the next dot or the end.
_QUOTED = re.compile(r"""(["'])(?P<name>.+?)\1(?=\.|$)""")


def bundled_scenarios() -> dict[str, Path]:
    """The scenarios that come with the testbed, by name."""
    return bundled_files("scenarios")


def load_scenario(name_or_path: str, overrides: tuple[str, ...] = ()) -> tuple[Scenario, Path]:
    """Read a scenario, bundled or from a file, with `a.b=c` overrides; returns it and where it was read from.

    Raises ScenarioError with one line for a missing file, bad YAML, an unknown key or a value out of range.
    """
    values, path = scenario_values(name_or_path)
    for text in overrides:
        override(values, text)
    try:
        return Scenario.model_validate(values), path
    except ValidationError as error:
        raise ScenarioError(f"{path.name}: {one_line(error, Scenario)}") from error


def scenario_values(name_or_path: str) -> tuple[dict[str, Any], Path]:
    """The keys and values of a scenario, bundled or from a file, not yet checked; and where they were read from.

    With `base` they are laid over those of another scenario: one beside the file, or a bundled one.
    Raises ScenarioError for a missing file, bad YAML, a file that holds no mapping, or one that is its own base.
    """
    return _values(name_or_path, ())


def base_scenario(name_or_path: str, folder: Path) -> dict[str, Any]:
    """The keys of the scenario that a file in `folder` builds on. Raises ScenarioError as reading it does."""
    return _base(name_or_path, folder, ())


def at_home(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Scenario keys whose trace is found from anywhere: a relative path counts from the file that gave it."""
    workload = values.get("workload")
    if not isinstance(workload, dict) or not isinstance(trace := workload.get("trace"), str):
        return dict(values)
    return {**values, "workload": {**workload, "trace": str((folder / trace).resolve())}}


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping; a null takes a key of `below` away.

    Where there is none it is a value: a policy without parameters may stand bare.
    """
    result = dict(below)
    for key, value in above.items():
        if value is None and key in result:
            del result[key]
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = overlaid(result[key], value)
        else:
            result[key] = value
    return result


def override(values: dict[str, Any], given: str) -> None:
    """Set one key of nested mappings in place: `a.b=value`, the value read as YAML.

    A name with a dot in it is taken whole where the mapping has it already; a new one stands in quotes:
    `models."qwen-2.5-7b".max_num_seqs=64`. Raises ScenarioError.
    """
    key, equals, text = given.partition("=")
    if not equals or "" in _QUOTED.sub("name", key).split("."):
        raise ScenarioError(
            f'--set {given!r}: wanted a.b=value; a new name with a dot in it stands in quotes: models."x-1.5".start_s=9'
        )
    at: Any = values
    parent, rest = _first_segment(at, key)
    while rest:
        if at.get(parent) is None:
            at[parent] = {}
        at = at[parent]
        if not isinstance(at, dict):
            raise ScenarioError(f"--set {given!r}: {parent} is no mapping")
        parent, rest = _first_segment(at, rest)
    try:
        at[parent] = yaml_values(text)
    except YamlFault as error:
        raise ScenarioError(f"--set {given!r}: {text!r} is not a YAML value") from error


def _first_segment(at: Mapping[Any, Any], key: str) -> tuple[Any, str]:
    """The name that `key` begins with, as `at` has it (in YAML it may be a number), and what follows it after a dot."""
    quoted = _QUOTED.match(key)
    if quoted:
        return quoted["name"], key[quoted.end() + 1 :]
    known = {str(name): name for name in at if f"{key}.".startswith(f"{name}.")}
    text = max(known, key=len, default=key.partition(".")[0])
    return known.get(text, text), key[len(text) + 1 :]


def _values(name_or_path: str, above: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    """`scenario_values` of a file that those in `above`, resolved, build on."""
    try:
        values, path = yaml_mapping(name_or_path, bundled_scenarios(), "scenario")
    except BadInput as error:
        raise ScenarioError(str(error)) from error
    if "base" not in values:
        return values, path
    base = values.pop("base")
    if not isinstance(base, str):
        raise ScenarioError(f"{path.name}: base {base!r}; wanted the name of a scenario or a file beside this one")
    if path.resolve() in above:
        raise ScenarioError(f"{path.name}: builds on itself through its base; take a base away")
    return overlaid(_base(base, path.parent, (*above, path.resolve())), values), path


def _base(name_or_path: str, folder: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    beside = folder / name_or_path
    if is_there(beside) and beside.resolve().is_relative_to(folder.resolve()):
        values, path = _values(str(beside), above)
        return at_home(values, path.parent)
    if name_or_path in bundled_scenarios():
        values, path = _values(str(bundled_scenarios()[name_or_path]), above)
        return at_home(values, path.parent)
    raise ScenarioError(
        f"base: no scenario {name_or_path!r} in {folder} or below, nor a bundled one"
        f"{nearest(name_or_path, bundled_scenarios())}"
    )
