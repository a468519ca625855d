"""What a sweep leaves beside its runs: study.json, two tables as CSV, and a page."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from results.atomic_file import replace_text
from results.frontier_tables import headline_lines
from results.quantities import percent
from results.study_comparison import WorkloadComparison
from results.study_page import StudyPage, study_page
from results.study_record import csv_text, runs_csv
from testbed.study_sweep import Sweep

STUDY_RECORD = "study.json"
SCHEMA_VERSION = 1


def write_study_files(sweep: Sweep) -> Path:
    """Write study.json, runs.csv, matched.csv and study.html into the study's folder; returns the page."""
    comparisons = sweep.comparisons()
    all_runs = [run for comparison in comparisons for run in sweep.runs(comparison.workload)]
    replace_text(sweep.folder / STUDY_RECORD, json.dumps(_document(sweep, comparisons), indent=2) + "\n")
    replace_text(sweep.folder / "runs.csv", runs_csv(all_runs))
    replace_text(sweep.folder / "matched.csv", _matched_csv(comparisons))
    page = sweep.folder / "study.html"
    replace_text(page, study_page(_about(sweep), comparisons))
    return page


def _about(sweep: Sweep) -> StudyPage:
    study = sweep.study
    done, planned = len(sweep.finished), len(sweep.planned)
    subtitle = (
        f"{done} of {planned} runs, compared at {percent(study.attainment)} attainment; fidelity: {study.fidelity}"
    )
    remarks = [*sweep.remarks, *(["interrupted: what had finished is compared"] if sweep.interrupted else [])]
    return StudyPage(
        title=study.name,
        description=study.description,
        subtitle=subtitle,
        remarks=tuple(remarks),
        failures=tuple(sweep.failed.values()),
    )


def _document(sweep: Sweep, comparisons: list[WorkloadComparison]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "study": sweep.study.name,
        "attainment": sweep.study.attainment,
        "fidelity": sweep.study.fidelity,
        "remarks": sweep.remarks,
        "failed": list(sweep.failed.values()),
        "workloads": {
            comparison.workload: {
                "headlines": [{"holds": holds, "text": text} for holds, text in headline_lines(comparison)],
                "bound": None if comparison.bound is None else asdict(comparison.bound),
                "on_or_under_all": comparison.on_or_under_all,
                "savings": [asdict(each) for each in comparison.savings],
                "standings": [{**asdict(each), "on_or_under": each.on_or_under} for each in comparison.standings],
                "matched": {policy: asdict(matched) for policy, matched in comparison.matched().items()},
                "settings": {
                    each.policy: [{**asdict(setting), "on_frontier": setting in each.hull} for setting in each.settings]
                    for each in comparison.frontiers
                },
            }
            for comparison in comparisons
        },
        "runs": [
            {"folder": str(plan.folder), **sweep.finished[plan.sha256].model_dump()}
            for plan in sweep.planned
            if plan.sha256 in sweep.finished
        ],
    }


def _matched_csv(comparisons: list[WorkloadComparison]) -> str:
    """Every policy at the attainment of the comparison, a row per workload and policy."""
    rows: list[dict[str, object]] = []
    for comparison in comparisons:
        bound = comparison.bound
        for policy, matched in comparison.matched().items():
            values = "-".join("" if value is None else f"{value:g}" for value in matched.values)
            row: dict[str, object] = {"workload": comparison.workload, "policy": policy, "how": matched.how}
            rows.append(row | {"knob": values, "bound_gpu_hours": bound and bound.lower_gpu_hours, **matched.measures})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(columns, [[row.get(name) for name in columns] for row in rows])
