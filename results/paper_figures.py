"""The figures of SageServe's evaluation, as far as the runs given have what they show."""

from collections.abc import Sequence

from results.paper_bars import instance_hours, unified_or_siloed, wasted_hours
from results.paper_curves import burst_misses, latency_tails, niw_shares, utilisation_over_time
from results.paper_runs import PaperFigure, PaperRun
from results.study_record import csv_text


def paper_figures(runs: Sequence[PaperRun]) -> list[PaperFigure]:
    """Those of each case, then those over cases."""
    cases = {case: [run for run in runs if run.case == case] for case in dict.fromkeys(run.case for run in runs)}
    figures = []
    for case, of_case in cases.items():
        figures += [
            instance_hours(case, of_case),
            wasted_hours(case, of_case),
            latency_tails(case, "TTFT", of_case),
            latency_tails(case, "E2E", of_case),
            utilisation_over_time(case, of_case),
        ]
        if any(run.bursts for run in of_case):
            figures.append(burst_misses(case, of_case))
    over_cases = (unified_or_siloed(cases), niw_shares(cases))
    return [*figures, *(figure for figure in over_cases if figure is not None)]


def provenance(runs: Sequence[PaperRun]) -> str:
    """What was drawn, a run per row: the revision that ran it, and the digests that running it again gives."""
    rows = []
    for run in runs:
        manifest = run.folder.manifest
        digests = manifest.policies[run.catalogue_name].digests
        requests = run.summary.requests.total
        known_by = (manifest.commit or "", manifest.scenario_sha256, digests.get("completions"), digests.get("servers"))
        rows.append((run.case, run.policy, run.seed, requests, *known_by))
    columns = ("case", "policy", "seed", "requests", "commit", "scenario_sha256", "completions", "servers")
    return csv_text(columns, rows)
