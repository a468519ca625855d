"""A run that was cut off, as its folder tells it: what ran, what is done, and where it goes on."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from results.inside import require_inside
from results.manifest import PolicyRecord, RunManifest
from results.run_folder import PolicyFolder, RunFolder, policy_path
from testbed.bad_input import BadInput
from testbed.offered_load import OfferedLoad, load_from_file, offered_load
from testbed.process_record import forget_killed_run, recorded
from testbed.scenario import Mode, Scenario
from testbed.scenario_file import load_scenario
from testbed.starting_point import StartingPoint, where_cut_off
from workloads.trace import Trace
from workloads.trace_checks import TraceError


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedRun:
    """`left` are the policies that have not finished, in the order in which they run. The first may have been cut off:
    `starting_point` is where it goes on, None where it begins at its start."""

    folder: Path
    manifest: RunManifest
    scenario: Scenario
    scenario_path: Path
    load: OfferedLoad
    left: tuple[str, ...]
    starting_point: StartingPoint | None

    def starting_point_of(self, policy: str) -> StartingPoint | None:
        return self.starting_point if policy == self.left[0] else None

    def begin(self) -> RunManifest:
        """Make the folder ready to be gone on with. Raises OSError (disk full)."""
        first, begins = self.left[0], self.starting_point
        forget_killed_run(self.folder)
        manifest = self.manifest.going_on(first, begins.from_s if begins else 0.0)
        for name in self.left:
            manifest = manifest.with_policy(name, PolicyRecord())
        manifest.write(self.folder)
        cut_off = require_inside(self.folder, policy_path(self.folder, first))
        if begins is None and cut_off.exists():
            shutil.rmtree(cut_off)
        return manifest


def resumed_run(folder: Path, scenario: str | None) -> ResumedRun:
    """Read the folder of a run that was cut off, and change nothing. `scenario`: where its trace is to be looked for.

    What a virtual run left of a policy is of no use: to run it again gives the same. A real one goes on from there.
    Raises BadInput, ScenarioError and RunFolderError with one line for what cannot be gone on with.
    """
    run = RunFolder.open(folder)
    manifest = run.manifest
    if manifest.status == "finished":
        raise BadInput(f"--resume {folder}: this run has finished; to run it once more, name its scenario")
    _require_over(folder)
    ran, path = _scenario(folder, manifest)
    if scenario is not None:
        named, path = load_scenario(scenario)
        if named.name != manifest.scenario:
            raise BadInput(f"--resume {folder}: a run of scenario {manifest.scenario}, not of {named.name}")
    load = _load(folder, ran, path, named=scenario is not None)
    left = tuple(name for name, record in manifest.policies.items() if record.status != "finished")
    begins = None
    if left and ran.mode is not Mode.VIRTUAL:
        begins = _starting_point(run.policy(left[0]), load.trace, manifest.policies[left[0]])
    return ResumedRun(
        folder=folder,
        manifest=manifest,
        scenario=ran,
        scenario_path=path,
        load=load,
        left=left,
        starting_point=begins,
    )


def _require_over(folder: Path) -> None:
    for _, record in recorded():
        if record is not None and record.is_of_run(folder) and record.here and record.owner_runs:
            raise BadInput(f"--resume {folder}: this run is going on (process {record.pid}); stop it first")


def _scenario(folder: Path, manifest: RunManifest) -> tuple[Scenario, Path]:
    path = require_inside(folder, folder / "scenario.yaml")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(f"--resume {folder}: {path.name}: {error.strerror}; without it nobody knows what ran") from error
    if digest != manifest.scenario_sha256:
        raise BadInput(f"--resume {folder}: its {path.name} is not the scenario that ran; put that one in its place")
    return load_scenario(str(path))


def _load(folder: Path, scenario: Scenario, path: Path, *, named: bool) -> OfferedLoad:
    """The workload once more. Raises BadInput where it is not the one that ran."""
    kept = folder / "trace.parquet"
    workload = scenario.workload
    if workload.trace is None:
        load = offered_load(scenario, path)
    elif not workload.history_h:
        load = load_from_file(scenario, kept)
    elif named or Path(workload.trace).is_absolute():
        load = offered_load(scenario, path)
    else:
        raise BadInput(
            f"--resume {folder}: {workload.trace} with the history before this run lies beside its scenario; name that "
            "too: testbed run SCENARIO --resume RUN"
        )
    try:
        digest = Trace.read(kept).digest()
    except TraceError as error:
        raise BadInput(f"--resume {folder}: {error}") from error
    if load.trace.digest() != digest:
        raise BadInput(
            f"--resume {folder}: its {kept.name} is not what the scenario's workload makes now; go on with the version "
            "that began it, and with the same trace"
        )
    return load


def _starting_point(folder: PolicyFolder, trace: Trace, record: PolicyRecord) -> StartingPoint | None:
    if not folder.path.is_dir():
        return None
    point = where_cut_off(folder, trace, record.end_s)
    return point if point.from_s > 0.0 else None
