"""`testbed compare`: policies and runs side by side, against a baseline."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from results.comparison import compare_groups
from results.comparison_page import ComparedCase, write_comparison
from testbed.bad_input import BadInput
from testbed.compared_runs import cases_of
from testbed.comparison_terminal import print_comparison

stdout = Console()


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or the folder of a sweep.", metavar="RUN...")],
    baseline: Annotated[
        str | None,
        typer.Option(metavar="POLICY|RUN", help="What the others are compared to. Default: the first policy."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where compare.html and compare.csv are written.")] = Path(
        "results"
    )
    / "compare",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare runs of different workloads or fleets too, and say in what.")
    ] = False,
) -> None:
    """Compare policies over runs: cost, waste, SLOs, latencies, goodput, NIW, each against a baseline.

    Runs of the same scenario and policy with different seeds form a group: its means are shown, changes are paired by
    seed and have a bootstrap interval.
    """
    cases, remarks = cases_of(runs, anyway=anyway)
    compared = [ComparedCase(name=case.name, comparison=compare_groups(case.groups(baseline))) for case in cases]
    for case in compared:
        if case.name:
            stdout.print(Text(case.name), style="bold")
        print_comparison(stdout, case.comparison)
        stdout.print(Text(case.seeds_text), style="dim", soft_wrap=True)
    for line in remarks:
        stdout.print(Text(line), style="yellow", soft_wrap=True)
    try:
        page, table = write_comparison(compared, remarks, out)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; name a folder") from error
    stdout.print(Text(f"page: {page}\ntable: {table}"), soft_wrap=True)
