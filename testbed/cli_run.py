"""`testbed run` and `testbed report`: an experiment, and what it left."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from results.comparison import compare
from results.manifest import ManifestError
from results.report import write_report
from results.run_folder import RunFolder
from results.summary import RunSummary
from testbed.bad_input import INTERRUPTED, BadInput
from testbed.cli_sweep import sweep_command
from testbed.progress import show_progress
from testbed.run import RunOutcome, prepare, run_experiment
from testbed.scenario import Mode, load_scenario
from testbed.study import is_study

stdout = Console()


def run(
    scenario: Annotated[str, typer.Argument(help="A scenario file, or the name of a bundled one.", metavar="SCENARIO")],
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="virtual: emulated servers in virtual time; emulated: the same in real time; vllm: real servers. "
            "Default: the scenario's."
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy to run; several run one after the other on the same workload and are compared. "
            "Default: all of the scenario."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Instead of the scenario's seed.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; must not exist. Default: results/runs/SCENARIO-TIME.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="Override a key of the scenario: --set min_servers=2. Repeatable."),
    ] = None,
) -> None:
    """Run a scenario and write a run folder with records, summary and report; a study is handed to `testbed sweep`.

    Bundled scenarios: quickstart (a day in virtual time), vllm-cpu (real vLLM without a GPU), single-gpu, eight-gpu.
    """
    overrides = [*(set_ or [])]
    if is_study(scenario):
        if mode is not None:
            raise BadInput(f"--mode {mode.value} is for a scenario; of a study set it with --set mode={mode.value}")
        sweep_command(scenario, policy=policy, seeds=None if seed is None else str(seed), out=out, set_=overrides)
        return
    if mode is not None:
        overrides.append(f"mode={mode.value}")
    if seed is not None:
        overrides.append(f"seed={seed}")
    loaded, path = load_scenario(scenario, tuple(overrides))
    folder = out or Path("results") / "runs" / f"{loaded.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if folder.exists():
        raise BadInput(f"--out {folder} exists already; name a folder that does not")
    experiment = prepare(loaded, path, policy or [])
    requests = len(experiment.setting.load.trace)
    what = f"{loaded.mode.value}  seed {loaded.seed}  {requests:,} requests"
    stdout.print(f"[bold]{loaded.name}[/]  {what}  → {folder}", soft_wrap=True)
    outcome = run_experiment(experiment, folder, partial(show_progress, console=stdout))
    _print_outcome(outcome)
    if outcome.interrupted:
        raise SystemExit(INTERRUPTED)


def report(run_folder: Annotated[Path, typer.Argument(help="A run folder, finished or not.", metavar="RUN")]) -> None:
    """Rebuild summary.json and report.html of a run folder, also of a run that was killed."""
    try:
        summary = write_report(RunFolder.open(run_folder))
    except ManifestError as error:
        raise BadInput(str(error)) from error
    _print_summary(summary)
    stdout.print(f"report: {run_folder / 'report.html'}", soft_wrap=True)


def _print_outcome(outcome: RunOutcome) -> None:
    _print_summary(outcome.summary)
    if outcome.interrupted:
        stdout.print("[yellow]interrupted[/]: every server was stopped; the folder holds what was done")
    stdout.print(f"report: {outcome.folder / 'report.html'}", soft_wrap=True)


def _print_summary(summary: RunSummary) -> None:
    comparison = compare(summary)
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in comparison.policies:
        table.add_column(name, justify="right")
    for row in comparison.rows:
        cells = []
        for cell in row.cells:
            colour = {True: "green", False: "red", None: "dim"}[cell.better]
            cells.append(f"{cell.text} [{colour}]{cell.change}[/]" if cell.change else cell.text)
        table.add_row(row.label, *cells)
    stdout.print(table)
