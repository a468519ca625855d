"""Run folders to be compared: which belong together, and in what those that do not differ."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from results.comparison import SeedGroup
from results.comparison_quantities import PolicyResult
from results.manifest import MANIFEST_FILE, ManifestError
from results.run_folder import RunFolder
from results.study_record import RUN_FILE, StudyRun
from results.summarise import summarise
from results.summary import RunSummary
from testbed.bad_input import BadInput
from testbed.scenario import Scenario
from testbed.strict import nearest, one_line
from testbed.study_runs import RUNS
from testbed.study_sweep import STUDY_FILE
from workloads.trace import Trace
from workloads.trace_checks import TraceError

# What may differ between runs that are compared: it is what they are compared by, or it says nothing.
COMPARED_BY = ("name", "description", "seed", "policies", "ports")
MOST_DIFFERENCES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One policy of a run folder, where it is called `catalogue_name`.

    `case` is its workload in a study, "" outside one; `policy` its name there; `setting` its knob or parameters.
    `conditions` are the keys of its scenario that runs to be compared have in common, by dotted name.
    """

    folder: RunFolder
    case: str
    policy: str
    catalogue_name: str
    setting: str
    seed: int
    result: PolicyResult
    conditions: Mapping[str, Any]

    @property
    def names(self) -> set[str]:
        """What a baseline may call it."""
        return {self.policy, self.folder.path.name, str(self.folder.path)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Runs under the same conditions, in the order given."""

    name: str
    runs: tuple[ComparedRun, ...]

    def labelled(self) -> dict[str, list[ComparedRun]]:
        """A policy with one setting over its seeds; one that comes twice with a seed stands twice, named by folder."""
        grouped: dict[tuple[str, str, int], list[ComparedRun]] = {}
        times: Counter[tuple[str, str, int]] = Counter()
        for run in self.runs:
            time = times[run.policy, run.setting, run.seed]
            times[run.policy, run.setting, run.seed] += 1
            grouped.setdefault((run.policy, run.setting, time), []).append(run)
        policies = Counter(policy for policy, _ in {key[:2] for key in grouped})
        settings = Counter(key[:2] for key in grouped)
        labelled: dict[str, list[ComparedRun]] = {}
        for (policy, setting, _), runs in grouped.items():
            label = f"{policy} {setting}".rstrip() if policies[policy] > 1 else policy
            if settings[policy, setting] > 1:
                label = f"{policy} ({runs[0].folder.path.name})"
            labelled[label] = runs
        return labelled

    def groups(self, baseline: str | None = None) -> list[SeedGroup]:
        """What is compared, the baseline first: a label, a policy or a run folder. Raises BadInput for none."""
        labelled = self.labelled()
        order = list(labelled)
        if baseline is not None:
            wanted = baseline.rstrip("/")
            first = next(
                (label for label, runs in labelled.items() if any(wanted in {label, *run.names} for run in runs)), None
            )
            if first is None:
                where = f" in {self.name}" if self.name else ""
                raise BadInput(f"--baseline {baseline}: not compared{where}{nearest(baseline, order)}")
            order.sort(key=lambda label: label != first)
        return [SeedGroup(label=label, by_seed={run.seed: run.result for run in labelled[label]}) for label in order]


def cases_of(paths: Sequence[Path], *, anyway: bool) -> tuple[list[Case], list[str]]:
    """The runs in all folders, by case, and what is to be said about them, a line each.

    Raises BadInput for a folder that holds no run, and, unless `anyway`, for runs whose conditions differ; in a study
    they are the study's choice.
    """
    runs = [run for path in paths for run in _runs_in(path)]
    cases = {name: tuple(run for run in runs if run.case == name) for name in dict.fromkeys(run.case for run in runs)}
    remarks = []
    for all_of_case in cases.values():
        for run in all_of_case[1:]:
            difference = _difference(all_of_case[0], run)
            if difference and not anyway and not run.case:
                raise BadInput(f"{difference}; these are not to be compared (--anyway does, and says so)")
            if difference:
                remarks.append(difference)
    return [Case(name=name, runs=of_case) for name, of_case in cases.items()], list(dict.fromkeys(remarks))


def _runs_in(path: Path) -> Iterator[ComparedRun]:
    """Of a run folder its policies, of a sweep's folder those of all its finished runs, as its study orders them."""
    if (path / MANIFEST_FILE).is_file():
        yield from _policies_of(path, None)
        return
    if not (path / STUDY_FILE).is_file():
        raise BadInput(f"{path}: neither a run folder (with {MANIFEST_FILE}) nor a sweep's (with {STUDY_FILE})")
    study = yaml.safe_load((path / STUDY_FILE).read_text(encoding="utf-8"))
    order = [list(study.get(key, {})) for key in ("workloads", "policies")]
    found = []
    for record in sorted((path / RUNS).glob(f"*/*/*/{RUN_FILE}")):
        folder = record.parent
        if not folder.name.endswith(".partial") and (folder / MANIFEST_FILE).is_file():
            found.append((StudyRun.read(folder), folder))
    if not found:
        raise BadInput(f"{path}: no run of requests has finished there; run `testbed sweep` (without --fluid) first")
    for entry, folder in sorted(found, key=lambda pair: _place(order, pair[0])):
        yield from _policies_of(folder, entry)


def _place(order: Sequence[list[str]], run: StudyRun) -> tuple[int, int, float, int]:
    workloads, policies = order
    return _index(workloads, run.workload), _index(policies, run.policy), run.value or 0.0, run.seed


def _index(listed: Sequence[str], name: str) -> int:
    return listed.index(name) if name in listed else len(listed)


def _policies_of(path: Path, entry: StudyRun | None) -> Iterator[ComparedRun]:
    try:
        run = RunFolder.open(path)
    except ManifestError as error:
        raise BadInput(str(error)) from error
    scenario = _scenario_of(path)
    summary = _summary_of(run)
    if not summary.policies:
        raise BadInput(f"{path}: no policy of this run has begun")
    for name, policy in summary.policies.items():
        parameters = scenario.policies.get(name, {})
        setting = json.dumps(parameters, sort_keys=True) if parameters else ""
        if entry is not None:
            setting = "" if entry.value is None else f"{entry.knob.rpartition('.')[2]}={entry.value:g}"
        yield ComparedRun(
            folder=run,
            case="" if entry is None else entry.workload,
            policy=name if entry is None else entry.policy,
            catalogue_name=name,
            setting=setting,
            seed=summary.seed,
            result=PolicyResult(summary=policy, bound=summary.bound),
            conditions=_conditions(scenario, run),
        )


def _scenario_of(path: Path) -> Scenario:
    file = path / "scenario.yaml"
    try:
        return Scenario.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"{file}: not readable; is this the folder of a `testbed run`?") from error
    except ValidationError as error:
        raise BadInput(f"{file}: {one_line(error, Scenario)}; it was written by another version?") from error


def _summary_of(run: RunFolder) -> RunSummary:
    """As it lies there; computed anew for a run that was killed, or that another version summarised."""
    try:
        return RunSummary.read(run.path)
    except (FileNotFoundError, ValidationError):
        return summarise(run)


def _conditions(scenario: Scenario, run: RunFolder) -> dict[str, Any]:
    values = scenario.model_dump(mode="json")
    if values["workload"].get("trace") is not None:
        values["workload"]["trace"] = "a file"  # each seed has its own; of one seed the requests are compared
    kept = {key: value for key, value in values.items() if key not in COMPARED_BY}
    return {**dict(_flat(kept)), "horizon_s": run.manifest.horizon_s}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _difference(base: ComparedRun, run: ComparedRun) -> str:
    """In what `run` was under other conditions than `base`, in one line; "" where in nothing."""
    keys = dict.fromkeys((*base.conditions, *run.conditions))
    texts = [
        f"{key} {_shown(run.conditions, key)} against {_shown(base.conditions, key)}"
        for key in keys
        if base.conditions.get(key) != run.conditions.get(key)
    ]
    if not texts and not run.case and run.seed == base.seed and _digest(run.folder.path) != _digest(base.folder.path):
        texts = ["its requests (trace.parquet), though the seed is the same"]
    if not texts:
        return ""
    more = f" and {len(texts) - MOST_DIFFERENCES} more" if len(texts) > MOST_DIFFERENCES else ""
    return f"{run.folder.path} differs from {base.folder.path} in {'; '.join(texts[:MOST_DIFFERENCES])}{more}"


def _shown(conditions: Mapping[str, Any], key: str) -> str:
    return str(conditions.get(key, "nothing"))


def _digest(folder: Path) -> str:
    try:
        return Trace.read(folder / "trace.parquet").digest()
    except TraceError as error:
        raise BadInput(str(error)) from error
