"""`testbed trace`: make synthetic traces, describe any, learn a workload from any."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from results.atomic_file import replace_text
from results.text_table import TextTable
from results.trace_page import trace_page
from results.trace_tables import statistics_table, target_table
from testbed import cli_replay, cli_trace_convert
from testbed.bad_input import BadInput, require_folder_of
from testbed.offered_load import offered_load
from testbed.scenario_file import load_scenario, override
from testbed.strict import nearest, one_line
from workloads.describe import describe
from workloads.fitting.workload import FitError, fit_workload
from workloads.preset import PresetError, bundled_presets, read_values, summary
from workloads.synthesis import SyntheticWorkload, synthesise
from workloads.targets import Verdict, judge
from workloads.trace import Trace
from workloads.trace_checks import TraceError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Make a production-style trace, or tell the statistics of one."
)
app.command("convert")(cli_trace_convert.convert)
app.command("formats")(cli_trace_convert.formats)
app.command("replay")(cli_replay.replay)
stdout = Console()

OUR_TRACE = "A Parquet trace, as `trace make` and `trace convert` write it."
COLOUR = {Verdict.PASS: "green", Verdict.MISS: "red", Verdict.NOT_APPLICABLE: "dim"}


@app.command()
def make(
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write; must not exist.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")],
    preset: Annotated[
        str | None, typer.Argument(help="A bundled workload (see `testbed trace presets`); default: all defaults.")
    ] = None,
    params: Annotated[
        Path | None, typer.Option(help="Take the numbers from this YAML file instead: a changed preset, or a fit.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Take the workload of this scenario instead (a file or a bundled name).")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a number of the workload. Repeatable.")
    ] = None,
) -> None:
    """Write a synthetic trace.

    Unless told otherwise: four models, three regions, three tiers, a week.
    """
    if cli_trace_convert.BY_SUFFIX.get(out.suffix, "parquet") != "parquet":
        raise BadInput(f"--out {out}: wanted a .parquet file; `testbed trace convert` makes other formats of it")
    _must_not_exist(out)
    if sum(given is not None for given in (preset, params, scenario)) > 1:
        raise BadInput("give only one of a preset, --params and --scenario")
    if scenario is not None:
        overrides = (f"seed={seed}", *(f"workload.synthetic.{text}" for text in set_ or []))
        loaded, path = load_scenario(scenario, overrides)
        trace = offered_load(loaded, path).trace
    else:
        trace = synthesise(_workload(_preset_file(preset) if preset is not None else params, set_ or []), seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    trace.write(out)
    stdout.print(
        f"{len(trace):,} requests in {trace.horizon_s / 3600:g} h → {out}  digest {trace.digest()}",
        soft_wrap=True,
        markup=False,
    )


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Print this preset's file, to copy and change.")] = None,
) -> None:
    """List the bundled workloads, or print the file of one."""
    if name is not None:
        typer.echo(_preset_file(name).read_text(encoding="utf-8"), nl=False)
        return
    table = _table("preset", "what it is")
    for each, path in bundled_presets().items():
        table.add_row(each, escape(summary(path)))
    stdout.print(table)


@app.command("describe")
def describe_(
    trace: Annotated[Path, typer.Argument(help=OUR_TRACE, metavar="TRACE")],
    html: Annotated[Path | None, typer.Option(help="Page to write with the same, and drawn; must not exist.")] = None,
) -> None:
    """Print a trace's statistics, and how like production it is.

    The targets of production-style traces come last, each with its verdict. A statistic that cannot be had says why.
    What takes whole weeks is measured, for a shorter synthetic trace, on the two weeks around it, drawn again from the
    same workload and seed; each such target says so.
    """
    if html is not None and html.exists():
        raise BadInput(f"--html {html} exists already; name a file that does not")
    require_folder_of(html, "--html")
    read = _read(trace)
    if html is not None and not len(read):
        raise BadInput(f"{trace} has no requests to draw; leave out --html")
    description = describe(read)
    results = judge(read, description)
    stdout.print(_rich(statistics_table(description)))
    stdout.print()
    targets = target_table(results)
    stdout.print(_verdicts(targets))
    for note in targets.notes:
        stdout.print(f"\n{note}", soft_wrap=True, markup=False)
    if html is not None:
        replace_text(html, trace_page(trace.name, read, description, results))
        stdout.print(f"→ {html}", soft_wrap=True, markup=False)


@app.command()
def fit(
    trace: Annotated[Path, typer.Argument(help=OUR_TRACE, metavar="TRACE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="YAML file to write; must not exist.")],
) -> None:
    """Learn a synthetic workload from a trace.

    `testbed trace make --params FILE` then makes more like it.
    """
    _must_not_exist(out)
    try:
        fitted = fit_workload(_read(trace))
    except FitError as error:
        raise BadInput(f"{trace}: {error}") from error
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"# Learned from {trace.name}, digest {fitted.digest}.", *(f"# {note}" for note in fitted.notes)]
    values = fitted.workload.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)
    out.write_text("\n".join([*lines, text]), encoding="utf-8")
    stdout.print(f"workload of {trace} → {out}", soft_wrap=True, markup=False)
    for note in fitted.notes:
        stdout.print(f"  {note}", markup=False, soft_wrap=True)


def _rich(of: TextTable) -> Table:
    table = _table(*of.columns[:-1])
    table.add_column(of.columns[-1], justify="right")
    for *cells, value in of.rows:
        table.add_row(*map(escape, cells), f"[dim]{escape(value)}[/]" if value.startswith("- (") else value)
    return table


def _verdicts(of: TextTable) -> Table:
    table = _table("#", "target")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("wanted")
    table.add_column("verdict", no_wrap=True)
    table.add_column("note")
    for *cells, verdict, note in of.rows:
        table.add_row(*map(escape, cells), f"[{COLOUR[Verdict(verdict)]}]{verdict}[/]", escape(note))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _must_not_exist(out: Path) -> None:
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")


def _read(trace: Path) -> Trace:
    if not trace.exists():
        raise BadInput(f"no trace {trace}; make one with `testbed trace make`")
    try:
        return Trace.read(trace)
    except TraceError as error:
        hint = "" if trace.suffix == ".parquet" else "; `testbed trace convert` makes one of other formats"
        raise BadInput(f"{error}{hint}") from error


def _preset_file(name: str) -> Path:
    found = bundled_presets()
    if name not in found:
        hint = "; a file of your own goes to --params" if Path(name).exists() else nearest(name, found)
        raise BadInput(f"no preset {name!r}{hint}")
    return found[name]


def _workload(path: Path | None, overrides: list[str]) -> SyntheticWorkload:
    try:
        values: dict[str, Any] = {} if path is None else read_values(path)
    except PresetError as error:
        raise BadInput(" ".join(str(error).split())) from error
    for text in overrides:
        override(values, text)
    try:
        return SyntheticWorkload.model_validate(values)
    except ValidationError as error:
        raise BadInput(f"{path or 'workload'}: {one_line(error, SyntheticWorkload)}") from error
