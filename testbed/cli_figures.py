"""`testbed figures`: the figures of SageServe's evaluation from run folders, or from a study that is run for them."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from results.atomic_file import replace_text
from results.comparison import compare_groups
from results.comparison_page import ComparedCase, write_comparison
from results.paper_figures import paper_figures, provenance
from results.paper_runs import PaperRun
from testbed.bad_input import BadInput
from testbed.cli_sweep import run_study, seeds_of
from testbed.compared_case import Case, ComparedRun
from testbed.compared_runs import cases_of
from testbed.study import is_study, load_study
from testbed.study_choice import SweepChoice
from testbed.study_trace import traces_folder

FORMATS = ("svg", "png", "pdf")
NIW_MIX = "workload.synthetic.interactive_per_niw"
BURSTS = "workload.synthetic.interactive.first_minute_factor"
DAY_S = "workload.synthetic.day_s"
START_HOUR = "workload.synthetic.start_hour"

stdout = Console()


def figures(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run folders, a sweep's folder, or a study, which is run first.", metavar="RUN...|STUDY"),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where figures and tables are written.")],
    file_format: Annotated[
        list[str] | None, typer.Option("--format", help="svg, png or pdf. Repeatable; default: all three.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="Of a study: instead of its own.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Of a study: processes. Default: the cores.")] = None,
) -> None:
    """Draw the figures of SageServe's evaluation, each as SVG, PNG and PDF with its numbers as CSV.

    A study's runs lie in results/runs/STUDY; the same command goes on where it was. Bundled: paper-figures.
    """
    formats = tuple(file_format or FORMATS)
    for name in formats:
        if name not in FORMATS:
            raise BadInput(f"--format {name}; wanted {', '.join(FORMATS)}")
    folders = [Path(run) for run in runs]
    if len(runs) == 1 and is_study(runs[0]):
        folders = [_runs_of_study(runs[0], seeds, jobs)]
    elif seeds is not None or jobs is not None:
        raise BadInput(f"--seeds and --jobs are for a study, which is run first; {runs[0]} is none: leave them out")
    cases, remarks = cases_of(folders, anyway=False)
    found = [_paper_run(label, run) for case in cases for label, run in _finished(case)]
    if not found:
        raise BadInput(f"{', '.join(runs)}: no policy has finished there; figures are of finished runs")
    drawn = paper_figures(found)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; name a folder") from error
    for figure in drawn:
        figure.save(out, formats)
        stdout.print(Text(f"{figure.drawing.name}: {figure.drawing.title}"), soft_wrap=True)
    compared = [ComparedCase(name=case.name, comparison=compare_groups(case.groups())) for case in cases]
    write_comparison(compared, remarks, out)
    replace_text(out / "runs.csv", provenance(found))
    for line in remarks:
        stdout.print(Text(line), style="yellow", soft_wrap=True)
    said = f"{len(drawn)} figures and tables, compare.html, compare.csv and runs.csv: {out}"
    stdout.print(Text(said), soft_wrap=True)


def _runs_of_study(name: str, seeds: str | None, jobs: int | None) -> Path:
    """Run what is missing of a study; the folder of its runs."""
    study, path = load_study(name)
    folder = Path("results") / "runs" / study.name
    choice = SweepChoice(
        folder=folder, jobs=jobs or os.cpu_count() or 1, seeds=seeds_of(seeds), traces_folder=traces_folder(None)
    )
    run_study(study, path, choice)
    return folder


def _finished(case: Case) -> list[tuple[str, ComparedRun]]:
    return [(label, run) for label, runs in case.labelled().items() for run in runs if run.result.finished]


def _paper_run(label: str, run: ComparedRun) -> PaperRun:
    apart = {key: value for key, value in run.conditions.items() if key != NIW_MIX}
    return PaperRun(
        case=run.case or run.folder.manifest.scenario,
        policy=label,
        catalogue_name=run.catalogue_name,
        seed=run.seed,
        folder=run.folder,
        summary=run.result.summary,
        apart_from_niw=json.dumps(apart, sort_keys=True),
        hour_s=run.conditions.get(DAY_S, 86_400.0) / 24,
        start_hour=run.conditions.get(START_HOUR, 0.0),
        bursts=run.conditions.get(BURSTS, 1.0) > 1,
    )
