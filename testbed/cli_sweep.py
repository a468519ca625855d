"""`testbed sweep`: a study, its runs over local processes, and the comparison at its end."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from results.frontier_tables import headline_lines, matched_table, standing_table
from results.study_overview import overview_table
from results.text_table import TextTable
from testbed.bad_input import FAILED, INTERRUPTED, BadInput
from testbed.bundled_yaml import is_there
from testbed.interruptible import interruptible
from testbed.scenario_file import bundled_scenarios
from testbed.strict import nearest
from testbed.study import Study, bundled_studies, is_study, load_study, study_of_scenario
from testbed.study_choice import SweepChoice
from testbed.study_files import write_study_files
from testbed.study_progress import show_sweep
from testbed.study_sweep import Sweep, sweep
from testbed.study_trace import traces_folder

stdout = Console()
WIDE = 160


def sweep_command(
    study: Annotated[
        str,
        typer.Argument(help="A study or a scenario: a file or a bundled name.", metavar="STUDY|SCENARIO"),
    ],
    policy: Annotated[list[str] | None, typer.Option(help="Only this policy of the study. Repeatable.")] = None,
    workload: Annotated[list[str] | None, typer.Option(help="Only this workload of the study. Repeatable.")] = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(metavar="POLICY.PARAM=V1,V2", help="Of a scenario: sweep this parameter of a policy. Repeatable."),
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="1,2,3", help="Instead of the study's.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: the cores.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; the same one again goes on where it was. Default: results/runs/STUDY.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The study's variant for a first look.")] = False,
    fluid: Annotated[
        bool, typer.Option("--fluid", help="Tokens/s per bin instead of requests: seconds for a run.")
    ] = False,
    traces: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where public traces lie. Default: $TESTBED_TRACES.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key of every scenario. Repeatable.")
    ] = None,
) -> None:
    """Run a study over local processes and compare its policies at equal SLO attainment.

    Finished runs are kept: the same command goes on where it was. Bundled studies: paper-control, paper-figures.
    """
    if is_study(study):
        if knob:
            raise BadInput("--knob is for a scenario; in a study the policies have their knobs")
        loaded, path = load_study(study)
    elif not is_there(Path(study)) and study not in bundled_scenarios():
        known = (*bundled_studies(), *bundled_scenarios())
        raise BadInput(f"no study or scenario {study!r}: neither a file nor a bundled name{nearest(study, known)}")
    else:
        loaded, path = study_of_scenario(study, tuple(knob or ()))
    if fluid:
        loaded = loaded.model_copy(update={"fidelity": "fluid"})
    run_study(
        loaded,
        path,
        SweepChoice(
            folder=out or Path("results") / "runs" / loaded.name,
            jobs=jobs or os.cpu_count() or 1,
            workloads=tuple(workload or ()),
            policies=tuple(policy or ()),
            seeds=seeds_of(seeds),
            overrides=tuple(set_ or ()),
            traces_folder=traces_folder(traces),
            quick=quick,
        ),
    )


def run_study(study: Study, path: Path, choice: SweepChoice) -> None:
    """Do it, show it, write its files; ends with exit code 130 when interrupted, 1 when a run failed."""
    stdout.print(Text(f"{study.name} → {choice.folder}"), style="bold", soft_wrap=True)
    with interruptible(), show_sweep(stdout) as view:
        done = sweep(study, path, choice, view)
    page = write_study_files(done)
    _print(done)
    stdout.print(Text(f"page: {page}"), soft_wrap=True)
    if done.interrupted:
        stdout.print("[yellow]interrupted[/]: the same command goes on from here")
        raise SystemExit(INTERRUPTED)
    if done.failed:
        raise SystemExit(FAILED)


def _print(done: Sweep) -> None:
    comparisons = done.comparisons()
    if done.interrupted:
        of = f"{len(done.finished)} of {len(done.planned)} runs"
        stdout.print(f"[yellow]interrupted[/] after {of}: what follows compares these alone", soft_wrap=True)
    if len(comparisons) > 1 and (overview := overview_table(comparisons)).rows:
        _print_table(overview)
        stdout.print()
    for comparison in comparisons:
        for table in (matched_table(comparison, brief=_narrow()), standing_table(comparison)):
            if table.rows:
                _print_table(table)
        for holds, line in headline_lines(comparison):
            stdout.print(Text(line), style={True: "green", False: "red", None: "dim"}[holds], soft_wrap=True)
        stdout.print()
    for line in done.failed.values():
        stdout.print(Text(f"failed: {line}"), style="red", soft_wrap=True)


def _print_table(table: TextTable) -> None:
    stdout.print(Text(table.title), style="bold")
    shown = Table(box=None, pad_edge=False)
    for place, name in enumerate(table.columns):
        shown.add_column(Text(name), justify="left" if place == 0 else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell) for cell in row))
    # In a file or a pipe there is no width to keep to.
    (stdout if stdout.is_terminal else Console(width=WIDE)).print(shown)
    for note in table.notes:
        stdout.print(Text(note), style="dim", soft_wrap=True)


def _narrow() -> bool:
    return stdout.is_terminal and stdout.width < WIDE


def seeds_of(text: str | None) -> Sequence[int]:
    """The seeds in `1,2,3`; none of none. Raises BadInput."""
    if text is None:
        return ()
    try:
        found = tuple(int(seed) for seed in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 0 or len(set(found)) < len(found):
        raise BadInput(f"--seeds {text}: wanted whole numbers from 0, each once, such as 1,2,3")
    return found
