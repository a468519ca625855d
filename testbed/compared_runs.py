"""Run folders read to be compared, and in what those that do not belong together differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results.comparison_quantities import PolicyResult
from results.inside import require_inside
from results.manifest import MANIFEST_FILE, ManifestError
from results.run_folder import RunFolder
from results.study_record import StudyRun
from results.summarise import summarise
from results.summary import RunSummary
from testbed.bad_input import BadInput
from testbed.bundled_yaml import is_there
from testbed.compared_case import Case, ComparedRun
from testbed.scenario import Scenario
from testbed.strict import one_line
from testbed.study_sweep import STUDY_FILE
from testbed.swept_runs import swept_runs
from workloads.strict_yaml import YamlFault, yaml_file
from workloads.trace import Trace
from workloads.trace_checks import TraceError

# What may differ between runs that are compared: it is what they are compared by, or it says nothing.
COMPARED_BY = ("name", "description", "seed", "policies", "ports")
MOST_DIFFERENCES = 3


def cases_of(paths: Sequence[Path], *, anyway: bool) -> tuple[list[Case], list[str]]:
    """The runs in all folders, by case, and what is to be said about them, a line each.

    Raises BadInput for a folder that holds no run or is given twice, and, unless `anyway`, for runs whose conditions
    differ; in a study they are the study's choice.
    """
    remarks: list[str] = []
    runs = [run for path in paths for run in _runs_in(path, remarks)]
    _each_once(runs)
    cases = {name: tuple(run for run in runs if run.case == name) for name in dict.fromkeys(run.case for run in runs)}
    for all_of_case in cases.values():
        first_of_seed: dict[int, ComparedRun] = {}
        for run in all_of_case:
            difference = _difference(all_of_case[0], run, first_of_seed.setdefault(run.seed, run))
            if difference and not anyway and not run.case:
                raise BadInput(f"{difference}; these are not to be compared (--anyway does, and says so)")
            if difference:
                remarks.append(difference)
    remarks += [
        f"{run.folder.path}: {run.policy} did not finish ({run.result.summary.status}): shown, not compared"
        for run in runs
        if not run.result.finished
    ]
    return [Case(name=name, runs=of_case) for name, of_case in cases.items()], list(dict.fromkeys(remarks))


def _each_once(runs: Sequence[ComparedRun]) -> None:
    seen: set[tuple[Path, str]] = set()
    for run in runs:
        key = (run.folder.path.resolve(), run.catalogue_name)
        if key in seen:
            raise BadInput(f"{run.folder.path} is given twice; give each run once")
        seen.add(key)


def _runs_in(path: Path, remarks: list[str]) -> Iterator[ComparedRun]:
    """Of a run folder its policies, of a sweep's folder those of its finished runs; `remarks` is told of others."""
    if is_there(path / MANIFEST_FILE):
        yield from _policies_of(path, None)
        return
    if not is_there(path / STUDY_FILE):
        raise BadInput(f"{path}: neither a run folder (with {MANIFEST_FILE}) nor a sweep's (with {STUDY_FILE})")
    found, earlier = swept_runs(path)
    if earlier:
        remarks.append(f"{path}: {earlier} runs of earlier versions of its study are left out")
    for run in found:
        yield from _policies_of(run.folder, run.record)


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
        return Scenario.model_validate(yaml_file(require_inside(path, file)))
    except ValidationError as error:
        raise BadInput(f"{file}: {one_line(error, Scenario)}; it was written by another version?") from error
    except YamlFault as error:
        raise BadInput(f"{file}: not readable ({error}); is this the folder of a `testbed run`?") from error


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


def _difference(base: ComparedRun, run: ComparedRun, same_seed: ComparedRun) -> str:
    """In what `run` was under other conditions than `base`, in one line; "" where in nothing.

    Its requests are compared with those of `same_seed`, a run that should have had the same.
    """
    keys = dict.fromkeys((*base.conditions, *run.conditions))
    texts = [
        f"{key} {_shown(run.conditions, key)} against {_shown(base.conditions, key)}"
        for key in keys
        if base.conditions.get(key) != run.conditions.get(key)
    ]
    if not texts and not run.case and _other_requests(run, same_seed):
        base, texts = same_seed, ["its requests (trace.parquet), though the seed is the same"]
    if not texts:
        return ""
    more = f" and {len(texts) - MOST_DIFFERENCES} more" if len(texts) > MOST_DIFFERENCES else ""
    return f"{run.folder.path} differs from {base.folder.path} in {'; '.join(texts[:MOST_DIFFERENCES])}{more}"


def _shown(conditions: Mapping[str, Any], key: str) -> str:
    return str(conditions.get(key, "nothing"))


def _other_requests(run: ComparedRun, other: ComparedRun) -> bool:
    ours, theirs = run.folder.path.resolve(), other.folder.path.resolve()
    return ours != theirs and _digest(ours) != _digest(theirs)


@cache  # a trace may hold ten million requests
def _digest(folder: Path) -> str:
    try:
        return Trace.read(folder / "trace.parquet").digest()
    except TraceError as error:
        raise BadInput(str(error)) from error
