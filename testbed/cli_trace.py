"""`testbed trace`: make synthetic traces, describe any."""

from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from testbed.bad_input import BadInput
from testbed.offered_load import offered_load
from testbed.scenario import load_scenario, override
from testbed.strict import one_line
from workloads.describe import describe
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.trace import Trace
from workloads.trace_checks import TraceError

app = typer.Typer(no_args_is_help=True, help="Make a production-style trace, or tell the statistics of one.")
stdout = Console()


@app.command()
def make(
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write; must not exist.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")],
    workload: Annotated[
        Path | None, typer.Argument(help="YAML file with the numbers of a synthetic workload; default: all defaults.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Take the workload of this scenario instead (a file or a bundled name).")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a number of the workload. Repeatable.")
    ] = None,
) -> None:
    """Write a synthetic trace: four models, three regions, three tiers, a week, unless told otherwise."""
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")
    if workload is not None and scenario is not None:
        raise BadInput("give either a workload file or --scenario, not both")
    if scenario is not None:
        overrides = (f"seed={seed}", *(f"workload.synthetic.{text}" for text in set_ or []))
        loaded, path = load_scenario(scenario, overrides)
        trace = offered_load(loaded, path).trace
    else:
        trace = synthesise(_workload(workload, set_ or []), seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    trace.write(out)
    stdout.print(
        f"{len(trace):,} requests in {trace.horizon_s / 3600:g} h → {out}  digest {trace.digest()}", soft_wrap=True
    )


@app.command("describe")
def describe_(trace: Annotated[Path, typer.Argument(help="A Parquet trace of ours.", metavar="TRACE")]) -> None:
    """Print the statistics of a trace; one that cannot be had says why."""
    if not trace.exists():
        raise BadInput(f"no trace {trace}; make one with `testbed trace make`")
    try:
        description = describe(Trace.read(trace))
    except TraceError as error:
        raise BadInput(str(error)) from error
    table = Table(box=None, pad_edge=False)
    for column in ("subject", "statistic"):
        table.add_column(column)
    table.add_column("value", justify="right")
    for row in description.to_rows():
        value = f"[dim]- ({row.reason})[/]" if row.value is None else f"{row.value:,.6g}"
        table.add_row(row.subject, row.statistic, value)
    stdout.print(table)


def _workload(path: Path | None, overrides: list[str]) -> SyntheticWorkload:
    values: object = {}
    try:
        if path is not None:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise BadInput(f"no workload file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path}: holds {type(values).__name__}, wanted a mapping")
    for text in overrides:
        override(values, text)
    try:
        return SyntheticWorkload.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{path or 'workload'}: {one_line(error, SyntheticWorkload)}") from error
