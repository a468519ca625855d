"""The finished runs of requests in a sweep's folder, of its study as it stands now."""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from results.manifest import MANIFEST_FILE
from results.study_record import RUN_FILE, StudyRun
from testbed.bad_input import BadInput
from testbed.bundled_yaml import yaml_mapping
from testbed.study_files import STUDY_RECORD
from testbed.study_runs import RUNS
from testbed.study_sweep import STUDY_FILE

_PARTS = ("workloads", "policies")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """A finished run and its folder."""

    record: StudyRun
    folder: Path

    @property
    def setting(self) -> Hashable:
        """What a study has one run of."""
        run = self.record
        return run.workload, run.policy, run.knob, run.value, run.seed


def swept_runs(sweep: Path) -> tuple[list[SweptRun], int]:
    """The runs as the study orders them, and how many of earlier versions of it were left out.

    A study that has changed leaves those of workloads and policies that it no longer has, and of the same setting and
    seed more than one: then the one that the last sweep ended with counts, or else the last. Raises BadInput for a
    study or a record that is none, and where no run has finished.
    """
    study, _ = yaml_mapping(str(sweep / STUDY_FILE), {}, "study")
    workloads, policies = (list(names) if isinstance(names := study.get(key), dict) else [] for key in _PARTS)
    found = [
        SweptRun(record=_record(path.parent), folder=path.parent)
        for path in sorted((sweep / RUNS).glob(f"*/*/*/{RUN_FILE}"))
        if not path.parent.name.endswith(".partial") and (path.parent / MANIFEST_FILE).is_file()
    ]
    ended_with = _folders_ended_with(sweep)
    counts = sorted(found, key=lambda run: (run.folder in ended_with, (run.folder / RUN_FILE).stat().st_mtime_ns))
    of_setting = {run.setting: run for run in counts}
    kept = [
        run for run in of_setting.values() if _has(workloads, run.record.workload) and _has(policies, run.record.policy)
    ]
    if not kept:
        raise BadInput(f"{sweep}: no run of requests has finished there; run `testbed sweep` (without --fluid) first")
    kept.sort(
        key=lambda run: (
            *(_index(workloads, run.record.workload), _index(policies, run.record.policy)),
            *(run.record.value or 0.0, run.record.seed),
        )
    )
    return kept, len(found) - len(kept)


def _record(folder: Path) -> StudyRun:
    try:
        return StudyRun.read(folder)
    except ValidationError as error:
        raise BadInput(f"{folder / RUN_FILE}: not what a sweep writes; delete {folder} and sweep again") from error


def _folders_ended_with(sweep: Path) -> set[Path]:
    """The folders in the record of the last sweep that came to its end; none where there is no such record."""
    try:
        listed = json.loads((sweep / STUDY_RECORD).read_bytes())["runs"]
        return {sweep / str(run["folder"]) for run in listed}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _has(listed: Sequence[str], name: str) -> bool:
    return name in listed or not listed


def _index(listed: Sequence[str], name: str) -> int:
    return listed.index(name) if name in listed else len(listed)
