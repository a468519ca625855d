"""The whole system of a case once more, emulated in virtual time: same trace, same policy, decisions made anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from results.run_folder import RunFolder
from testbed.bad_input import BadInput
from testbed.calibration_cases import Case
from testbed.offered_load import OfferedLoad, length_mixes, offered_load
from testbed.policy_run import Progress
from testbed.run import prepare, run_experiment
from testbed.scenario import Mode


class NotEmulated(BadInput):
    """The whole system cannot be emulated from what the run folder holds."""


def emulate_system(case: Case, folder: Path) -> RunFolder:
    """Run it into `folder`. Raises NotEmulated, RunFailed; an interruption is raised as KeyboardInterrupt."""
    experiment = prepare(
        case.scenario.model_copy(update={"mode": Mode.VIRTUAL}), case.scenario_path, [case.policy], _load(case)
    )
    bound = case.runs[0].manifest.bound  # of the trace: the same for both
    outcome = run_experiment(replace(experiment, bound=bound), folder, _unseen, page=False)
    if outcome.interrupted:
        raise KeyboardInterrupt
    return RunFolder.open(folder)


def _load(case: Case) -> OfferedLoad:
    """The recorded trace, after what had been seen before it."""
    workload = case.scenario.workload
    if workload.synthetic is not None:
        return replace(offered_load(case.scenario, case.scenario_path), trace=case.trace)
    if workload.history_h:
        raise NotEmulated(
            f"workload.history_h {workload.history_h:g}: what was seen before the run is in no run folder"
        )
    return OfferedLoad(trace=case.trace, mix=length_mixes(case.trace))


@contextmanager
def _unseen(progress: Progress) -> Iterator[None]:  # noqa: ARG001
    yield
