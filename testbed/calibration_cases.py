"""What is calibrated: recorded runs, read from their folders, those of one workload and policy together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.manifest import ManifestError
from results.run_folder import PolicyFolder, RunFolder
from testbed.bad_input import BadInput
from testbed.capacities import load_profiles
from testbed.scenario import Scenario
from testbed.scenario_file import load_scenario
from testbed.server_replay import Profiles
from workloads.trace import Trace
from workloads.trace_checks import TraceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Runs of one scenario, its settings, trace and policy: repeats of each other. `profiles` by (model, GPU type)."""

    scenario: Scenario
    scenario_path: Path
    trace: Trace
    policy: str
    runs: tuple[RunFolder, ...]
    profiles: Profiles

    @property
    def name(self) -> str:
        return self.scenario.name

    def folders(self) -> tuple[PolicyFolder, ...]:
        return tuple(run.policy(self.policy) for run in self.runs)


# Of a case: scenario, policy, digest of the trace, all settings that the run obeyed.
_Key = tuple[str, str, str, str]


def read_cases(folders: Sequence[Path], profiles: Sequence[str] = ()) -> list[Case]:
    """The cases of run folders, in their order; `profiles` are MODEL/GPU=FILE, instead of the scenario's.

    Raises BadInput for a folder that holds no whole run, and for profiles that are not there.
    """
    cases: dict[_Key, list[RunFolder]] = {}
    first: dict[_Key, tuple[Scenario, Path, Trace, Profiles]] = {}
    overrides = tuple(profile_override(given) for given in profiles)
    for path in folders:
        run = _run(path)
        scenario, scenario_path = load_scenario(str(path / "scenario.yaml"), overrides)
        trace = _trace(path)
        loaded = _profiles(scenario)
        for folder in run.policies():
            key = (scenario.name, folder.name, trace.digest(), _settings(scenario, folder.name, loaded))
            first.setdefault(key, (scenario, scenario_path, trace, loaded))
            cases.setdefault(key, []).append(run)
    return [
        Case(
            scenario=first[key][0],
            scenario_path=first[key][1],
            trace=first[key][2],
            policy=key[1],
            runs=tuple(runs),
            profiles=first[key][3],
        )
        for key, runs in cases.items()
    ]


def _settings(scenario: Scenario, policy: str, profiles: Profiles) -> str:
    """All that two repeats have in common beside the trace; profiles by what they say, wherever they lie."""
    elsewhere = {"name", "description", "seed", "ports", "policies"}
    settings = scenario.model_dump(mode="json", exclude=elsewhere)
    settings["workload"].pop("trace")
    for model in settings["models"].values():
        model.pop("profiles")
    said = {"/".join(key): profile.model_dump(mode="json") for key, profile in profiles.items()}
    return json.dumps([settings, scenario.policies.get(policy, {}), said], sort_keys=True, default=str)


def _run(path: Path) -> RunFolder:
    try:
        run = RunFolder.open(path)
    except ManifestError as error:
        raise BadInput(str(error)) from error
    if not (path / "scenario.yaml").is_file() or not run.policies():
        raise BadInput(f"{path} holds no scenario.yaml or no policy; give the whole folder of a `testbed run`")
    for name, record in run.manifest.policies.items():
        if record.status != "finished":
            raise BadInput(f"{path}: {name} has not finished ({record.status}); calibrate whole runs")
    return run


def _trace(path: Path) -> Trace:
    try:
        return Trace.read(path / "trace.parquet")
    except TraceError as error:
        raise BadInput(f"{error}; a run folder with its trace is wanted") from error


def profile_override(given: str) -> str:
    """MODEL/GPU=FILE as an override of the scenario."""
    key, equals, file = given.partition("=")
    model, slash, gpu_type = key.rpartition("/")
    if not (equals and slash and model and gpu_type and file):
        raise BadInput(f"--profile {given}: wanted MODEL/GPU=FILE, as in llama-3.1-8b/h100=measured.json")
    return f'models."{model}".profiles."{gpu_type}"={file}'


def _profiles(scenario: Scenario) -> Profiles:
    try:
        return load_profiles(scenario)
    except BadInput as error:
        raise BadInput(f"{error}; or name one with --profile MODEL/GPU=FILE") from error
