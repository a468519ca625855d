"""What the runs of a workload share, made once per process: its load, and what perfect foresight needs for it."""

import os
from functools import lru_cache
from pathlib import Path

from controller.types import FleetLimits
from results.bound import BoundRecord
from testbed.offered_load import OfferedLoad, offered_load
from testbed.run_bound import gpu_hours_bound
from testbed.scenario import Scenario

_BOUNDS: dict[tuple[str, float], BoundRecord] = {}


def load_of(scenario: Scenario, folder: Path) -> OfferedLoad:
    """The workload of a scenario that lies, or will, in `folder`; that of the last call again where it is the same."""
    return _load(_without_policies(scenario, folder))


def bound_of(scenario: Scenario, folder: Path, limits: FleetLimits, load: OfferedLoad, missed: float) -> BoundRecord:
    """The least GPU-hours with a share `missed` of the minutes outside the SLO; of each workload computed once."""
    key = (_without_policies(scenario, folder), missed)
    if key not in _BOUNDS:
        _BOUNDS[key] = gpu_hours_bound(scenario, limits, load.trace, violated_share=missed)
    return _BOUNDS[key]


# The runs of a workload follow one another.
@lru_cache(maxsize=1)
def _load(scenario: str) -> OfferedLoad:
    return offered_load(Scenario.model_validate_json(scenario), Path())


def trace_path(folder: Path, trace: Path) -> Path:
    """Where a trace is that a scenario in `folder` names; the folder itself need not be there yet."""
    return Path(os.path.normpath(folder.absolute() / trace))


def _without_policies(scenario: Scenario, folder: Path) -> str:
    """The scenario as text, equal for all policies; a trace by its path from anywhere."""
    workload = scenario.workload
    if workload.trace is not None:
        workload = workload.model_copy(update={"trace": trace_path(folder, workload.trace)})
    alone = scenario.model_copy(update={"name": "load", "policies": {"static": {}}, "workload": workload})
    return alone.model_dump_json(exclude_unset=True)
