"""`testbed trace convert` and `testbed trace formats`: traces from and to other formats, changed on the way."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from testbed.bad_input import BadInput
from testbed.trace_changes import Keep, TraceChanges, duration_s, names_map, quantile_table, window_s
from workloads.formats.conversion import NotStreamable, stream_file, write_trace
from workloads.formats.findings import ReadReport
from workloads.formats.known import FORMATS, detected, format_named
from workloads.formats.number_times import UNITS_PER_S
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.formats.trace_format import TraceFormat
from workloads.merge import merge
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import TraceError
from workloads.trace_metadata import TraceMetadata

BY_SUFFIX = {".parquet": "parquet", ".csv": "csv", ".jsonl": "mooncake"}
stdout = Console()


def convert(
    inputs: Annotated[
        list[Path], typer.Argument(help="Files (or folders of ServeGen); several become one trace.", metavar="IN...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; must not exist.")],
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help="Default: by content. See `testbed trace formats`.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Default: by the suffix: .parquet, .csv (ours), .jsonl (mooncake)."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model of all requests, where the format names none.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of all requests, where the format names none.")] = None,
    tier: Annotated[Tier | None, typer.Option(help="Tier of all requests, where the format names none.")] = None,
    time_unit: Annotated[
        str | None, typer.Option(help="Unit of timestamps that are numbers, s, ms, us or ns; default: the format's.")
    ] = None,
    prompt_tokens: Annotated[
        str | None, typer.Option(help="Lengths to draw for a file of rates: 0:1,0.5:928,0.9:3830,1:7999.")
    ] = None,
    output_tokens: Annotated[str | None, typer.Option(help="The same for outputs.")] = None,
    strict: Annotated[bool, typer.Option(help="The first row that cannot be used is an error.")] = False,
    align: Annotated[
        str | None,
        typer.Option(
            help="Several files: clock (as their dates say; the default if all have them) or start (all at 0)."
        ),
    ] = None,
    same_world: Annotated[
        bool, typer.Option(help="Equal tenants, sessions and prefixes in several files are the same ones.")
    ] = False,
    cut: Annotated[str | None, typer.Option(metavar="FROM:TO", help="Only this window: 8h:12h.")] = None,
    map_model: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW", help="'*' is every other name.")] = None,
    map_region: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW")] = None,
    map_tier: Annotated[list[str] | None, typer.Option(metavar="OLD=NEW")] = None,
    niw_deadline: Annotated[str | None, typer.Option(help="Deadline of NIW requests without one: 24h.")] = None,
    jitter: Annotated[
        str | None, typer.Option(help="Spread arrivals over this much, such as the clock's step.")
    ] = None,
    stretch: Annotated[float | None, typer.Option(help="Multiply all times; below 1 raises the rate.")] = None,
    rate_scale: Annotated[float | None, typer.Option(help="Multiply the rate, burstiness kept.")] = None,
    keep: Annotated[
        str, typer.Option(help="How the rate is scaled: dispersion (draw anew) or clients (sample whole ones).")
    ] = "dispersion",
    clip_context: Annotated[
        list[str] | None, typer.Option(metavar="[MODEL=]N", help="Cut prompt + output to N tokens.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="For everything that is drawn.")] = None,
) -> None:
    """Convert traces between formats, and change them on the way.

    Changes are made in the order of the options: files are merged, then cut, mapped, jittered, stretched, scaled,
    clipped. Each is recorded in the new trace.
    """
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")
    if keep not in ("dispersion", "clients"):
        raise BadInput(f"--keep {keep}: wanted dispersion or clients")
    if align not in (None, "clock", "start"):
        raise BadInput(f"--align {align}: wanted clock or start")
    if time_unit is not None and time_unit not in UNITS_PER_S:
        raise BadInput(f"--time-unit {time_unit}: wanted one of {', '.join(UNITS_PER_S)}")
    kept: Keep = "clients" if keep == "clients" else "dispersion"
    changes = TraceChanges(
        cut_s=window_s(cut) if cut else None,
        models=names_map(map_model or [], "--map-model"),
        regions=names_map(map_region or [], "--map-region"),
        tiers=names_map(map_tier or [], "--map-tier"),
        niw_deadline_s=duration_s(niw_deadline, "--niw-deadline") if niw_deadline else None,
        jitter_s=duration_s(jitter, "--jitter") if jitter else None,
        stretch=stretch,
        rate_scale=rate_scale,
        keep=kept,
        clip_context=clip_context or (),
        seed=seed,
    )
    options = ReadOptions(
        model=model,
        region=region,
        tier=tier,
        time_unit=time_unit,
        seed=seed,
        prompt_tokens=quantile_table(prompt_tokens, "--prompt-tokens") if prompt_tokens else None,
        output_tokens=quantile_table(output_tokens, "--output-tokens") if output_tokens else None,
        window_s=changes.only_cut_s if len(inputs) == 1 else None,
        strict=strict,
    )
    try:
        write_as = _format_to_write(to, out)
        read_as = [format_named(from_, to="read") if from_ else detected(path) for path in inputs]
        out.parent.mkdir(parents=True, exist_ok=True)
        if len(inputs) == 1 and not changes.need_all_rows:
            try:
                report, metadata, lost = stream_file(inputs[0], out, read_as[0], write_as, options)
            except NotStreamable:
                pass
            else:
                return _tell([report], metadata, report.rows_kept, lost, out)
        read = [read_trace(path, options, format_name=found.name) for path, found in zip(inputs, read_as, strict=True)]
        reports = [report for _, report in read]
        trace = read[0][0] if len(read) == 1 else _merged([one for one, _ in read], reports, align, same_world)
        trace = changes.of(trace)
        lost = write_trace(trace, out, write_as)
    except BadInput:
        raise
    except (TraceError, ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    return _tell(reports, trace.metadata, len(trace), lost, out)


def formats() -> None:
    """List the formats that `convert` reads and writes."""
    table = Table(box=None, pad_edge=False)
    for column in ("format", "reads", "writes", "what"):
        table.add_column(column)
    for name, format_ in FORMATS.items():
        table.add_row(name, "yes" if format_.batches else "", "yes" if format_.write else "", format_.about)
    stdout.print(table)


def _format_to_write(to: str | None, out: Path) -> TraceFormat:
    if to is None and out.suffix not in BY_SUFFIX:
        raise BadInput(f"--out {out}: what format? End it in {', '.join(BY_SUFFIX)} or give --to FORMAT")
    return format_named(to or BY_SUFFIX[out.suffix], to="write")


def _merged(traces: list[Trace], reports: list[ReadReport], align: str | None, same_world: bool) -> Trace:
    zeros = [report.time_zero for report in reports]
    if align == "clock" and None in zeros:
        lacking = next(report.source for report in reports if report.time_zero is None)
        raise BadInput(f"--align clock: {lacking} has no dates; leave it out or use --align start")
    known = [zero for zero in zeros if zero is not None]
    if align == "start" or len(known) < len(zeros):
        return merge(traces, same_world=same_world)
    offsets_s = [(zero - min(known)).total_seconds() for zero in known]
    return merge(traces, offsets_s=offsets_s, same_world=same_world)


def _tell(reports: list[ReadReport], metadata: TraceMetadata, requests: int, lost: tuple[str, ...], out: Path) -> None:
    lines = [line for report in reports for line in report.lines()]
    for step in metadata.steps:
        if step.name not in ("import", "synthesise"):
            told = {name: value for name, value in step.parameters.items() if name != "steps"}
            lines.append(f"{step.name}: " + ", ".join(f"{name} {value}" for name, value in told.items()))
    lines.extend(lost)
    lines.append(f"{requests:,} requests in {metadata.horizon_s / 3600:g} h → {out}")
    for line in lines:
        stdout.print(line, soft_wrap=True, markup=False, highlight=False)
