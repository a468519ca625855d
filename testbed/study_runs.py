"""The runs of a study: one scenario per workload, policy, knob value and seed."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from controller.catalogue import make_policy
from results.manifest import Commit
from results.study_record import StudyRun
from testbed.scenario import Scenario
from testbed.scenario_file import base_scenario, overlaid, override
from testbed.strict import one_line
from testbed.study import Study, StudyError, StudyPolicy

RUNS = "runs"
FLUID = "fluid"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of a study. `text` is its scenario as YAML: what the run is known by; `folder` is within the study's.

    `policy` is the study's entry, `catalogue_name` the policy that it runs. `value` is None without a knob.
    """

    workload: str
    policy: str
    catalogue_name: str
    knob: str
    value: float | None
    seed: int
    text: str
    fidelity: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(f"{self.fidelity}\n{self.text}".encode()).hexdigest()

    @property
    def folder(self) -> Path:
        setting = "run" if self.value is None else f"{self.knob.rpartition('.')[2]}={self.value:g}"
        return Path(RUNS) / self.workload / self.policy / f"{setting},seed={self.seed}-{self.sha256[:8]}"

    def identity(self, commit: Commit | None) -> dict[str, Any]:
        """The fields of its `StudyRun` that are known before it is run; `commit` is the revision that runs it."""
        same = ("workload", "policy", "knob", "value", "seed", "fidelity", "sha256")
        return {**{name: getattr(self, name) for name in same}, "commit": "" if commit is None else str(commit)}

    @property
    def label(self) -> str:
        knob = "" if self.value is None else f" {self.knob}={self.value:g}"
        return f"{self.workload} {self.policy}{knob} seed {self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What of a study is run: `traces` holds, per workload and seed, the trace file relative to the study's folder."""

    workloads: tuple[str, ...]
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    traces: Mapping[tuple[str, int], str]
    values_per_knob: int | None = None


def planned_runs(study: Study, study_path: Path, chosen: Chosen) -> list[PlannedRun]:
    """Every run of what was chosen, workload by workload. Raises StudyError, naming the run that cannot be made."""
    base = base_values(study, study_path)
    return [
        planned_run(study, base, chosen, workload, policy, value, seed)
        for workload in chosen.workloads
        for seed in chosen.seeds
        for policy in chosen.policies
        if policy in (study.workloads[workload].policies or chosen.policies)
        for value in spread(study.policies[policy].values, chosen.values_per_knob) or (None,)
    ]


def base_values(study: Study, study_path: Path) -> dict[str, Any]:
    """The keys of the scenario that every run of the study begins with. Raises ScenarioError for a base not found."""
    base = {} if study.base is None else base_scenario(study.base, study_path.parent)
    return overlaid(base, study.scenario or {})


def planned_run(
    study: Study, base: Mapping[str, Any], chosen: Chosen, workload: str, policy: str, value: float | None, seed: int
) -> PlannedRun:
    """One run, its scenario and its policy's parameters checked. Raises StudyError."""
    entry = study.policies[policy]
    name = entry.policy or policy
    where = f"workload {workload}, policy {policy}" + ("" if value is None else f", {entry.knob}={value:g}")
    values = overlaid(overlaid(dict(base), study.workloads[workload].set), entry.set)
    if study.fidelity == FLUID:
        # Where a violation is a bin beyond theta there is nothing for a margin below theta to absorb.
        for over in (study.fluid_set, study.workloads[workload].fluid_set, {"capacity": {"utilisation": 1.0}}):
            values = overlaid(values, over)
    values.update(name=f"{study.name}-{workload}", seed=seed, policies={name: parameters(entry, value)})
    if (workload, seed) in chosen.traces:
        # From a run's folder, so that its scenario.yaml runs again as it lies there.
        up = "/".join([".."] * 4)
        values["workload"] = {
            "trace": f"{up}/{chosen.traces[workload, seed]}",
            "history_h": study.workloads[workload].history_h,
        }
    for text in chosen.overrides:
        override(values, text)
    try:
        scenario = Scenario.model_validate(values)
    except ValidationError as error:
        raise StudyError(f"{where}: {one_line(error, Scenario)}") from error
    try:
        make_policy(name, scenario.policies[name])
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    text = yaml.safe_dump(scenario.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
    return PlannedRun(
        workload=workload,
        policy=policy,
        catalogue_name=name,
        knob=entry.knob or "",
        value=value,
        seed=seed,
        text=text,
        fidelity=study.fidelity,
    )


def parameters(entry: StudyPolicy, value: float | None) -> dict[str, Any]:
    """The policy's parameters with its knob at `value`, whole where the knob's values are."""
    given = entry.parameters
    if value is None or entry.knob is None:
        return given
    for key, times in entry.follows.items():
        given = _with(given, key, times * value)
    return _with(given, entry.knob, int(value) if _whole(entry) else value)


def spread(values: Sequence[float], most: int | None) -> tuple[float, ...]:
    """At most so many of the values, evenly spread over them, the first and the last among them."""
    if most is None or len(values) <= most:
        return tuple(values)
    if most == 1:
        return (values[len(values) // 2],)
    return tuple(values[round(place * (len(values) - 1) / (most - 1))] for place in range(most))


def refined(entry: StudyPolicy, runs: Sequence[StudyRun], missed: float) -> float | None:
    """The knob value between the two that enclose the share `missed` of interactive requests, None where none does.

    The geometric mean of two positive values (most knobs are ratios), whole where the knob's values are.
    """
    shares: dict[float, list[float]] = {}
    for run in runs:
        if run.value is not None:
            shares.setdefault(run.value, []).append(run.missed)
    by_value = sorted((value, sum(all_) / len(all_)) for value, all_ in shares.items())
    for (low, missed_low), (high, missed_high) in pairwise(by_value):
        if min(missed_low, missed_high) <= missed < max(missed_low, missed_high):
            middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
            between = float(round(middle)) if _whole(entry) else float(f"{middle:.3g}")
            return between if low < between < high else None
    return None


def _with(parameters: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {**parameters, first: _with(parameters.get(first) or {}, rest, value) if rest else value}


def _whole(entry: StudyPolicy) -> bool:
    return all(value == int(value) for value in entry.values) and max(entry.values) > 1
