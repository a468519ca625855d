"""One run of a study, in a process of its own: a run folder, and what the comparison needs of it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from results.run_folder import RunFolder
from results.study_record import RunBound, StudyRun, missed_share
from testbed.policy_run import Progress
from testbed.run import prepare, run_experiment
from testbed.scenario import Scenario
from testbed.study_fluid import do_fluid
from testbed.study_load import bound_of, load_of
from testbed.study_runs import FLUID, PlannedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """A run to do within a study's folder; `missed` is the share at which the study compares."""

    planned: PlannedRun
    study_folder: Path
    missed: float


class RunInterrupted(KeyboardInterrupt):
    """The run was told to stop; it is not finished and will be run again."""


def do_run(job: RunJob) -> StudyRun:
    """Run it and put its folder in place, whole: a folder of the right name is a finished run.

    Raises whatever stops a run, in one line where a user can mend it; what was done then lies in FOLDER.partial.
    """
    planned = job.planned
    if planned.fidelity == FLUID:
        return do_fluid(planned, job.study_folder, job.missed)
    folder = job.study_folder / planned.folder
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    scenario = Scenario.model_validate(yaml.safe_load(planned.text))
    load = load_of(scenario, folder)
    experiment = prepare(scenario, folder / "scenario.yaml", [planned.catalogue_name], load)
    bound = bound_of(scenario, folder, experiment.setting.limits, load, job.missed)
    experiment = replace(experiment, bound=bound)
    outcome = run_experiment(experiment, partial, _unseen, page=False)
    if outcome.interrupted:
        raise RunInterrupted
    summary = outcome.summary.policies[planned.catalogue_name]
    tiers = load.trace.labels("tier")
    counts = np.bincount(tiers.codes, minlength=len(tiers.names))
    run = StudyRun(
        **planned.identity(RunFolder.open(partial).manifest.commit),
        requests=summary.requests.total,
        missed=missed_share(summary, dict(zip(tiers.names, counts.tolist(), strict=True))),
        gpu_hours=summary.gpu_hours,
        wasted_gpu_hours=summary.wasted_gpu_hours,
        sleeping_server_hours=summary.sleeping_server_hours,
        usd=summary.usd,
        starts=summary.scaling.starts,
        stops=summary.scaling.stops,
        slo_met={tier: met for tier, met in summary.slo_attainment.by_tier.items() if met is not None},
        ttft_p95_s={tier: p.p95 for tier, p in summary.ttft_s.by_tier.items() if p.p95 is not None},
        bound=RunBound(missed=job.missed, lower_gpu_hours=bound.lower_gpu_hours, plan_gpu_hours=bound.plan_gpu_hours),
    )
    run.write(partial)
    if folder.exists():  # of another version, or cut off: what could not be read was run again
        shutil.rmtree(folder)
    partial.rename(folder)
    return run


@contextmanager
def _unseen(progress: Progress) -> Iterator[None]:  # noqa: ARG001
    yield
