"""A study carried out: what is missing is run over local processes, what is there is compared."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from results.atomic_file import replace_text
from results.study_comparison import MINUTES, REQUESTS, Claim, WorkloadComparison, compared
from results.study_record import StudyRun
from testbed.scenario import Scenario
from testbed.sole_writer import sole_writer
from testbed.study import Study, StudyError, StudyPolicy
from testbed.study_choice import SweepChoice, known_policies, present_workloads
from testbed.study_fluid_trace import fitted_rates
from testbed.study_pool import Done, done_jobs
from testbed.study_runs import FLUID, Chosen, PlannedRun, base_values, planned_run, planned_runs, refined
from testbed.study_trace import fitted_trace
from testbed.study_worker import RunJob, do_run

STUDY_FILE = "study.yaml"
DEFAULT_BIN_S = 60.0


class SweepView(Protocol):
    """Who is told how a sweep goes."""

    def told(self, line: str) -> None: ...

    def round_begins(self, finished: int, total: int) -> None: ...

    def run_begins(self, run: PlannedRun) -> None: ...

    def run_ended(self, run: PlannedRun, result: StudyRun | None, error: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Sweep:
    """A study under way: what was planned, what has finished (earlier or now), what failed, and what was left out."""

    study: Study
    folder: Path
    policies: tuple[str, ...] = ()
    planned: list[PlannedRun] = field(default_factory=list)
    finished: dict[str, StudyRun] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def missed(self) -> float:
        """The share of interactive requests outside their SLO at which policies are compared."""
        return round(1 - self.study.attainment, 9)

    def runs(self, workload: str, policy: str | None = None) -> list[StudyRun]:
        """The finished runs of a workload, in the order in which they were planned."""
        return [
            self.finished[plan.sha256]
            for plan in self.planned
            if plan.workload == workload and policy in (None, plan.policy) and plan.sha256 in self.finished
        ]

    def comparisons(self) -> list[WorkloadComparison]:
        """Every workload of which a run has finished."""
        headline = self.study.headline
        claim = Claim(
            policy=headline.policy,
            against=headline.against,
            gpu_hours=headline.gpu_hours,
            wasted_gpu_hours=headline.wasted_gpu_hours,
        )
        return [
            compared(
                workload,
                runs,
                description=self.study.workloads[workload].description,
                missed=self.missed,
                claim=claim,
                policies=self.policies,
                subject=MINUTES if self.study.fidelity == FLUID else REQUESTS,
            )
            for workload in dict.fromkeys(plan.workload for plan in self.planned)
            if (runs := self.runs(workload))
        ]


def sweep(study: Study, study_path: Path, choice: SweepChoice, view: SweepView) -> Sweep:
    """Do what is missing of the study, and return all of it; Ctrl-C ends it early, with what has finished.

    Raises StudyError, before anything is run, for a study that cannot be run, and BadInput where another process is
    running one in the same folder.
    """
    state = Sweep(study=study, folder=choice.folder)

    def tell(line: str) -> None:
        state.remarks.append(line)
        view.told(line)

    state.policies = known_policies(study, choice, tell)
    workloads, sources = present_workloads(study, choice, tell)
    try:
        choice.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"--out {choice.folder}: {error.strerror}; name a folder") from error
    with sole_writer(choice.folder / ".lock", f"--out {choice.folder}"):
        base = base_values(study, study_path)
        seeds = tuple(choice.seeds) or study.seeds
        chosen = Chosen(
            workloads=workloads,
            policies=state.policies,
            seeds=seeds,
            overrides=tuple(choice.overrides),
            traces=_fitted_traces(study, base, sources, seeds, choice.folder, view),
            values_per_knob=study.quick.values if choice.quick else None,
        )
        state.planned = planned_runs(study, study_path, chosen)
        changed = _write_study(study, choice.folder)
        _take_finished(state, state.planned)
        if changed:
            tell(f"this folder was begun with another study: {len(state.finished)} finished runs are still of this one")
        jobs = 1 if _on_real_servers(state.planned) else choice.jobs
        _run_rounds(state, base, chosen, jobs, study.quick.refine if choice.quick else study.refine, view)
    commits = {run.commit for run in state.finished.values()}
    if len(commits) > 1:
        tell(f"these runs are of {len(commits)} revisions of the testbed; for one comparison, name a new --out")
    return state


def _fitted_traces(
    study: Study,
    base: Mapping[str, Any],
    sources: Mapping[str, Path],
    seeds: Sequence[int],
    folder: Path,
    view: SweepView,
) -> dict[tuple[str, int], str]:
    """The files made of public traces, by workload and seed, relative to the study's folder."""
    made = {}
    for name, source in sources.items():
        workload = study.workloads[name]
        for seed in seeds:
            view.told(f"{name}: {source.name} made to fit, seed {seed}")
            if study.fidelity == FLUID:
                bin_s = float(base.get("demand_bin_s", DEFAULT_BIN_S))
                made[name, seed] = fitted_rates(name, workload, source, seed, bin_s, folder)
            else:
                made[name, seed] = fitted_trace(name, workload, source, seed, folder)
    return made


def _run_rounds(state: Sweep, base: Mapping[str, Any], chosen: Chosen, jobs: int, refine: int, view: SweepView) -> None:
    """Run what is planned, then what refines it; an interruption ends it early."""
    try:
        _run(state, state.planned, jobs, view)
        for _ in range(refine):
            more = _refinements(state, base, chosen)
            if not more:
                break
            state.planned += more
            _take_finished(state, more)
            _run(state, more, jobs, view)
    except KeyboardInterrupt:
        state.interrupted = True


def _write_study(study: Study, folder: Path) -> bool:
    """Write study.yaml; returns whether another one stood there."""
    text = yaml.safe_dump(study.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
    path = folder / STUDY_FILE
    changed = path.exists() and path.read_text(encoding="utf-8") != text
    replace_text(path, text)
    return changed


def _take_finished(state: Sweep, planned: Iterable[PlannedRun]) -> None:
    for plan in planned:
        try:
            run = StudyRun.read(state.folder / plan.folder)
        except (FileNotFoundError, ValidationError):
            continue
        if run.sha256 == plan.sha256:
            state.finished[plan.sha256] = run


def _run(state: Sweep, planned: Sequence[PlannedRun], jobs: int, view: SweepView) -> None:
    """Run what has not finished."""
    missing = [plan for plan in planned if plan.sha256 not in state.finished and plan.sha256 not in state.failed]
    view.round_begins(len(state.planned) - len(missing), len(state.planned))
    all_jobs = [RunJob(planned=plan, study_folder=state.folder, missed=state.missed) for plan in missing]
    ended = done_jobs(do_run, all_jobs, jobs, lambda job: view.run_begins(job.planned))
    with closing(ended):
        for done in ended:
            _note(state, done)
            view.run_ended(done.job.planned, done.result, done.error)


def _note(state: Sweep, done: Done[RunJob, StudyRun]) -> None:
    plan = done.job.planned
    if done.result is None:
        state.failed[plan.sha256] = f"{plan.label}: {done.error}"
    else:
        state.finished[plan.sha256] = done.result


def _refinements(state: Sweep, base: Mapping[str, Any], chosen: Chosen) -> list[PlannedRun]:
    """One more value for each knob, between the two that enclose the attainment."""
    planned = {plan.sha256 for plan in state.planned}
    more = []
    for workload in chosen.workloads:
        for policy in chosen.policies:
            entry: StudyPolicy = state.study.policies[policy]
            value = refined(entry, state.runs(workload, policy), state.missed)
            for seed in chosen.seeds if value is not None else ():
                plan = planned_run(state.study, base, chosen, workload, policy, value, seed)
                if plan.sha256 not in planned:
                    more.append(plan)
    return more


def _on_real_servers(planned: Sequence[PlannedRun]) -> bool:
    """Whether runs would fight for GPUs, or for the clock: only in virtual time do several go beside each other."""
    return any(Scenario.model_validate(yaml.safe_load(plan.text)).mode != "virtual" for plan in planned[:1])
