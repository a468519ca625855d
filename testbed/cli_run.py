"""`testbed run` and `testbed report`: an experiment, and what it left."""

import socket
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from results.comparison import compare
from results.csv_tables import write_csv
from results.quantities import duration
from results.report import write_report
from results.run_folder import RunFolder
from results.summary import RunSummary
from testbed.bad_input import INTERRUPTED, BadInput
from testbed.cli_sweep import sweep_command
from testbed.comparison_terminal import print_comparison
from testbed.dashboard.thread import DEFAULT_HOST, DEFAULT_PORT, listen
from testbed.resumed import ResumedRun, resumed_run
from testbed.run import Experiment, RunOutcome, conclude, prepare, run_experiment
from testbed.run_view import run_view
from testbed.scenario import Mode
from testbed.scenario_file import load_scenario
from testbed.study import is_study

stdout = Console()


def run(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario file, or the name of a bundled one.", metavar="SCENARIO")
    ] = None,
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
        typer.Option(
            "--set",
            metavar="A.B=C",
            help="Override a key of the scenario: --set min_servers=2. A name with a dot: in quotes. Repeatable.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run that was cut off: its folder. SCENARIO is needed for a trace with history alone.",
        ),
    ] = None,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Serve a page that shows the run under way.")] = False,
    dashboard_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help=f"--dashboard on this port; 0 takes any. Default: {DEFAULT_PORT}."),
    ] = None,
    dashboard_host: Annotated[
        str | None,
        typer.Option(
            help=f"--dashboard on this address; beyond this machine everybody may look. Default: {DEFAULT_HOST}."
        ),
    ] = None,
) -> None:
    """Run a scenario and write a run folder with records, summary and report; a study is handed to `testbed sweep`.

    Bundled scenarios: quickstart (a day in virtual time), paper-day, paper-week and burst (SageServe's load), vllm-cpu
    (real vLLM without a GPU), chaos (a day of faults), calibrate-cpu, single-gpu, eight-gpu.
    """
    overrides = [*(set_ or [])]
    shown = dashboard or dashboard_port is not None or dashboard_host is not None
    if resume is not None:
        given = {"--mode": mode, "--policy": policy, "--seed": seed, "--out": out, "--set": set_}
        if refused := [name for name, value in given.items() if value not in (None, [])]:
            raise BadInput(f"{refused[0]} is not for --resume, which goes on with the run as it was; leave it out")
        with _listening(dashboard_host, dashboard_port) if shown else nullcontext() as listening:
            _resume(resume, scenario, listening)
        return
    if scenario is None:
        raise BadInput("no SCENARIO given; wanted one, or a run that was cut off: --resume RUN")
    if is_study(scenario):
        if mode is not None:
            raise BadInput(f"--mode {mode.value} is for a scenario; of a study set it with --set mode={mode.value}")
        if shown:
            raise BadInput("--dashboard is for a scenario; a study runs many at once")
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
    # First: to prepare takes long, and a port that is taken is known at once.
    with _listening(dashboard_host, dashboard_port) if shown else nullcontext() as listening:
        _run(prepare(loaded, path, policy or []), folder, listening)


def _resume(folder: Path, scenario: str | None, listening: socket.socket | None) -> None:
    resumed = resumed_run(folder, scenario)
    if not resumed.left:
        stdout.print("nothing was left to run: every policy had ended, and its report is made now")
        _print_outcome(conclude(resumed))
        return
    point, first = resumed.starting_point, resumed.left[0]
    where = f"from {duration(point.from_s)} on" if point else "from its start"
    stdout.print(f"goes on with {first} {where}", soft_wrap=True)
    experiment = prepare(resumed.scenario, resumed.scenario_path, resumed.left, resumed.load)
    _run(experiment, folder, listening, resumed)


def _run(
    experiment: Experiment, folder: Path, listening: socket.socket | None, resumed: ResumedRun | None = None
) -> None:
    scenario, trace = experiment.setting.scenario, experiment.setting.load.trace
    what = f"{scenario.mode.value}  seed {scenario.seed}  {len(trace):,} requests"
    stdout.print(Text.assemble((scenario.name, "bold"), f"  {what}  → {folder}"), soft_wrap=True)
    with run_view(experiment, stdout, listening) as view:
        outcome = run_experiment(experiment, folder, view, resumed=resumed)
    _print_outcome(outcome)
    if outcome.interrupted:
        raise SystemExit(INTERRUPTED)


def report(
    run_folder: Annotated[Path, typer.Argument(help="A run folder, finished or not.", metavar="RUN")],
    csv: Annotated[
        Path | None, typer.Option(help="Write the run's tables as CSV too, to this folder; must not exist.")
    ] = None,
) -> None:
    """Rebuild summary.json and report.html of a run folder, also of a run that was killed."""
    if csv is not None and csv.exists():
        raise BadInput(f"--csv {csv} exists already; name a folder that does not")
    run = RunFolder.open(run_folder)
    _print_summary(write_report(run))
    _print_report(run_folder / "report.html")
    if csv is not None:
        try:
            written = write_csv(run, csv)
        except OSError as error:
            raise BadInput(f"--csv {csv}: {error.strerror} ({error.filename}); name a folder") from error
        stdout.print(Text(f"tables: {len(written)} files in {csv}"), soft_wrap=True)


def _listening(host: str | None, port: int | None) -> AbstractContextManager[socket.socket]:
    return listen(DEFAULT_HOST if host is None else host, DEFAULT_PORT if port is None else port)


def _print_outcome(outcome: RunOutcome) -> None:
    _print_summary(outcome.summary)
    if outcome.interrupted:
        stdout.print("[yellow]interrupted[/]: every server was stopped; the folder holds what was done")
    _print_report(outcome.folder / "report.html")


def _print_report(path: Path) -> None:
    stdout.print(Text(f"report: {path}"), soft_wrap=True)


def _print_summary(summary: RunSummary) -> None:
    print_comparison(stdout, compare(summary))
