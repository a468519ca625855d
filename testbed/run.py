"""A whole run: one workload, one policy after another from the same start state, one folder that tells it all."""

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import yaml

from controller.catalogue import make_policy
from controller.parameters import LongTermParameters, StaticParameters
from controller.policies.mpc_parameters import MpcParameters
from controller.program.ilp import check_limits
from controller.types import FleetLimits, Policy
from results.atomic_file import replace_text
from results.bound import BoundRecord
from results.disk_fault import disk_fault
from results.manifest import ClientRecord, GpuRecord, Lateness, PolicyRecord, RunManifest, SloRecord, Status
from results.provenance import checkout_commit, host_facts, installed_versions, is_compiled
from results.recorder import RunRecorder
from results.report import write_report
from results.run_folder import RunFolder, policy_path
from results.summarise import policy_record, summarise
from results.summary import RunSummary
from testbed.bad_input import BadInput, CommandFailed
from testbed.capacities import ModelCapacity, capacities, fleet_limits, load_profiles
from testbed.capacity_table import CapacityTable
from testbed.interruptible import interruptible
from testbed.live_events import Listener
from testbed.offered_load import OfferedLoad, offered_load, true_future
from testbed.policy_run import PolicyRun, Progress, Setting
from testbed.process_record import run_record
from testbed.resumed import ResumedRun
from testbed.run_bound import gpu_hours_bound
from testbed.scenario import Mode, Scenario, ScenarioError
from testbed.server import ServerError
from testbed.server_sources import EmulatedSource, ServerSource, service_s_per_token
from testbed.starting_point import StartingPoint
from testbed.steady_interpreter import steady_interpreter
from testbed.strict import nearest
from testbed.virtual_time import VirtualTimeLoop
from testbed.vllm_source import VllmSource
from workloads.real_time_loop import real_time_loop

ProgressView = Callable[[Progress], AbstractContextManager[Listener | None]]
"""What shows one policy's run while its context lasts, and the listener that is to hear of it, None of no need."""

ORACLE = "oracle"

# A kill costs so much of what was done, in the wall clock's time, and what it takes to write it.
_FLUSH_EVERY_S = 1.0


class RunFailed(CommandFailed):
    """A run could not go on. `folder` holds what was done."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(f"{message} (what was done: {folder})")
        self.folder = folder


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    folder: Path
    summary: RunSummary
    interrupted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A scenario that has been checked as far as it can be without starting anything.

    `bound` is what perfect foresight needs where that is known already; None has it computed when the run begins.
    """

    policies: dict[str, Policy]
    setting: Setting
    bound: BoundRecord | None = None


def prepare(
    scenario: Scenario, scenario_path: Path, policies: Sequence[str], load: OfferedLoad | None = None
) -> Experiment:
    """Read profiles, build the workload, make the policies, look for what the mode needs.

    `policies` empty: all that the scenario names. `load`: the scenario's workload, where it has been built already.
    Raises ScenarioError with one line for whatever does not fit.
    """
    made = {}
    for name in policies or tuple(scenario.policies):
        try:
            made[name] = make_policy(name, scenario.policies.get(name, {}))
        except ValueError as error:
            raise ScenarioError(str(error)) from error
    profiles = load_profiles(scenario)
    load = offered_load(scenario, scenario_path) if load is None else load
    if ORACLE in made:
        made[ORACLE] = make_policy(ORACLE, scenario.policies.get(ORACLE, {}), future=true_future(load, scenario))
    found = capacities(scenario, profiles, load.mix)
    limits = fleet_limits(scenario, found)
    _check_plannable(scenario, limits, made)
    source = _server_source(scenario, found)
    setting = Setting(
        scenario=scenario,
        load=load,
        limits=limits,
        capacity_table=partial(CapacityTable, scenario, profiles, found, load.mix)
        if scenario.capacity.follow_mix
        else None,
        source=source,
        service_s_per_token=service_s_per_token(found),
    )
    return Experiment(policies=made, setting=setting)


def _check_plannable(scenario: Scenario, limits: FleetLimits, policies: dict[str, Policy]) -> None:
    """What a policy would stumble over at its first decision is said before anything starts."""
    try:
        check_limits(limits)
    except ValueError as error:
        raise ScenarioError(str(error)) from error
    for name, policy in policies.items():
        parameters = getattr(policy, "parameters", None)
        if isinstance(parameters, StaticParameters):
            placements = [str(placement) for placement in limits.placements()]
            for given in parameters.counts:
                if given not in placements:
                    raise ScenarioError(f"policies.{name}.counts: no placement {given!r}{nearest(given, placements)}")
        for key, step_s in _grids(parameters):
            steps = step_s / scenario.demand_bin_s
            if steps < 1 - 1e-6 or abs(steps - round(steps)) > 1e-6:
                raise ScenarioError(
                    f"policies.{name}.{key} {step_s:g} is no multiple of demand_bin_s {scenario.demand_bin_s:g}; "
                    "change one of them"
                )


def _grids(parameters: object) -> Iterator[tuple[str, float]]:
    """The steps in which a policy looks at demand, by the key that sets them."""
    if isinstance(parameters, LongTermParameters):
        yield "forecast.step_s", parameters.forecast.step_s
        if parameters.forecast.peak_step_s is not None:
            yield "forecast.peak_step_s", parameters.forecast.peak_step_s
    if isinstance(parameters, MpcParameters):
        yield "step_s", parameters.step_s


def _server_source(scenario: Scenario, found: dict[tuple[str, str], ModelCapacity]) -> ServerSource:
    return VllmSource(scenario, found) if scenario.mode is Mode.VLLM else EmulatedSource(scenario, found)


def run_experiment(
    experiment: Experiment, folder: Path, view: ProgressView, *, page: bool = True, resumed: ResumedRun | None = None
) -> RunOutcome:
    """Run every policy and write the folder; on Ctrl-C or SIGTERM stop cleanly and report what was done.

    `resumed` is a run that was cut off and goes on in `folder`: the experiment is of the policies that it has left.
    Without `page` there is no report.html: of one run among hundreds `testbed report` makes it when it is wanted.
    Raises RunFailed when an initial server does not start or the disk is full, BadInput for a folder that exists or
    cannot be made.
    """
    manifest = _begun_folder(experiment, folder) if resumed is None else _taken_up(resumed)
    interrupted, failure = False, ""
    with experiment.setting.source, interruptible(), run_record(folder):
        for name, policy in experiment.policies.items():
            manifest = manifest.with_policy(name, PolicyRecord(status="running"))
            failure = _written(manifest, folder)
            if not failure:
                begins = None if resumed is None else resumed.starting_point_of(name)
                record, failure, interrupted = _run_policy(experiment, name, policy, folder, view, begins)
                manifest = manifest.with_policy(name, record)
                failure = _written(manifest, folder, failure)
            if failure or interrupted:
                break
    return _concluded(manifest, folder, failure, interrupted=interrupted, page=page)


def conclude(resumed: ResumedRun) -> RunOutcome:
    """Of a run that was cut off when all its policies had ended: end its folder, and report. Raises RunFailed."""
    return _concluded(resumed.manifest, resumed.folder, "", interrupted=False, page=True)


def _concluded(manifest: RunManifest, folder: Path, failure: str, *, interrupted: bool, page: bool) -> RunOutcome:
    """The end of a run's folder: manifest, summary and page. Raises RunFailed for `failure`, and for a full disk."""
    manifest = manifest.ended("failed" if failure else "interrupted" if interrupted else "finished", failure)
    failure = _written(manifest, folder, failure)
    try:
        if page:
            summary = write_report(RunFolder.open(folder))
        else:
            summary = summarise(RunFolder.open(folder))
            summary.write(folder)
    except OSError as error:
        failure = failure or _disk_fault(error)
        raise RunFailed(f"{failure}; it has no report: make room, then `testbed report {folder}`", folder) from error
    if failure:
        raise RunFailed(failure, folder)
    return RunOutcome(folder=folder, summary=summary, interrupted=interrupted)


def _begun_folder(experiment: Experiment, folder: Path) -> RunManifest:
    """Make the folder with all that a run needs to be read. Raises BadInput, and RunFailed with nothing left of it."""
    scenario = experiment.setting.scenario
    try:
        folder.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise BadInput(f"cannot make the run folder {folder}: {error.strerror}; name another with --out") from error
    written = yaml.safe_dump(scenario.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
    manifest = _opening_manifest(experiment, written)
    try:
        replace_text(folder / "scenario.yaml", written)
        experiment.setting.load.trace.write(folder / "trace.parquet")
        manifest.write(folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CommandFailed(f"{_disk_fault(error)}; nothing was run: make room, or name another --out") from error
    return manifest


def _taken_up(resumed: ResumedRun) -> RunManifest:
    """Raises CommandFailed where the folder cannot be written."""
    try:
        return resumed.begin()
    except OSError as error:
        raise CommandFailed(f"{_disk_fault(error)}; nothing was run: make room in {resumed.folder}") from error


def _written(manifest: RunManifest, folder: Path, failure: str = "") -> str:
    """Write the manifest; returns `failure`, or else why it could not be written, "" when it was: then the one before
    it stands, with which the folder opens as that of a run that was killed."""
    try:
        manifest.write(folder)
    except OSError as error:
        return failure or _disk_fault(error)
    return failure


def _disk_fault(error: OSError) -> str:
    """The disk's error in one line; any other is a fault of ours and goes on as it is."""
    fault = disk_fault(error)
    if fault is None:
        raise error
    return fault


def _run_policy(
    experiment: Experiment,
    name: str,
    policy: Policy,
    folder: Path,
    view: ProgressView,
    begins: StartingPoint | None,
) -> tuple[PolicyRecord, str, bool]:
    """Run one policy; returns what the manifest says of it, why it failed ("" if not), whether it was interrupted."""
    setting = experiment.setting
    trace = setting.load.trace
    progress = Progress(policy=name, horizon_s=trace.horizon_s, offered=len(trace))
    failure, interrupted, end_s = "", False, None
    loop_factory = VirtualTimeLoop if setting.scenario.mode is Mode.VIRTUAL else real_time_loop
    try:
        recording = RunRecorder(policy_path(folder, name), goes_on_from_s=None if begins is None else begins.from_s)
        with recording as recorder, view(progress) as listener, steady_interpreter():
            try:
                with (
                    recorder.flushed_every(_FLUSH_EVERY_S),
                    asyncio.Runner(loop_factory=loop_factory) as runner,
                ):
                    end_s = runner.run(
                        _run(setting, policy, recorder, progress, policy_path(folder, name), listener, begins)
                    )
            except KeyboardInterrupt:
                interrupted, end_s = True, progress.now_s
            except BaseExceptionGroup as group:
                failure = _first(group)
    except OSError as error:  # from the recorder's own end
        failure = failure or _disk_fault(error)
    status: Status = "failed" if failure else "interrupted" if interrupted else "finished"
    at = RunFolder.open(folder).policy(name)
    replayed = progress.replayed
    lateness_s = (
        Lateness(p50=replayed.lateness_s.p50, p99=replayed.lateness_s.p99, max=replayed.lateness_s.max)
        if replayed
        else None
    )
    client = ClientRecord.of(progress.client) if progress.client else None
    record = policy_record(at, status=status, end_s=end_s, lateness_s=lateness_s, client=client, error=failure)
    return record, failure, interrupted


async def _run(
    setting: Setting,
    policy: Policy,
    recorder: RunRecorder,
    progress: Progress,
    folder: Path,
    listener: Listener | None,
    begins: StartingPoint | None,
) -> float:
    return await PolicyRun(setting, policy, recorder, progress, folder, listener, begins).run()


def _first(group: BaseExceptionGroup[BaseException]) -> str:
    """The first error inside as one line; anything but a server's failure or the disk's is a fault of ours and goes on
    as it is."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    fault = disk_fault(error) if isinstance(error, OSError) else str(error) if isinstance(error, ServerError) else None
    if fault is None:
        raise group
    return fault


def _opening_manifest(experiment: Experiment, scenario_text: str) -> RunManifest:
    scenario = experiment.setting.scenario
    return RunManifest(
        scenario=scenario.name,
        scenario_sha256=hashlib.sha256(scenario_text.encode()).hexdigest(),
        mode=scenario.mode.value,
        seed=scenario.seed,
        started_at=datetime.now(UTC),
        horizon_s=experiment.setting.load.trace.horizon_s,
        offered_requests=len(experiment.setting.load.trace),
        slos={tier: SloRecord.of(slo) for tier, slo in scenario.slos().items()},
        start_state={"/".join(key): count for key, count in scenario.initial_counts().items()},
        usd_per_gpu_h={name: price.usd_per_gpu_h for name, price in scenario.gpu_types.items()},
        bound=experiment.bound or gpu_hours_bound(scenario, experiment.setting.limits, experiment.setting.load.trace),
        policies={name: PolicyRecord() for name in experiment.policies},
        commit=checkout_commit(),
        versions=installed_versions(),
        compiled=is_compiled(),
        gpus=tuple(
            GpuRecord(name=f"{region}/{gpu_type}", count=gpus)
            for (region, gpu_type), gpus in experiment.setting.limits.quota_gpus.items()
        ),
        host=host_facts(),
    )
