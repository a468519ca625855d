"""`testbed forecast`: how well demand can be told in advance."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller.forecasts.evaluation import Rolling, evaluate, past_of_bins
from controller.forecasts.forecast import Past
from controller.forecasts.methods import METHODS, problem_with
from controller.forecasts.parameters import BEST_METHOD, ForecastParameters
from controller.forecasts.scores import Tally, total
from testbed.bad_input import BadInput, require_folder_of
from testbed.forecast_series import FileReading, TraceSeries, trace_series
from testbed.strict import nearest, one_line
from testbed.trace_changes import quantile_table
from workloads.trace_checks import TraceError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="How well demand can be told in advance.")
stdout = Console()
POOLED = ("all", "")
MOST_REASONS = 5
COLUMNS = (
    ("path\nWAPE", "path_wape", ".1%"),
    ("peak\nWAPE", "peak_wape", ".1%"),
    ("peak\nbias", "peak_bias", "+.1%"),
    ("peak\npinball", "peak_pinball", ".2%"),
    ("peak\ncovered", "peak_coverage", ".1%"),
    ("peak\nover", "peak_over_provision", "+.1%"),
    ("s per\nfit", "s_per_fit", ".3f"),
    ("s per\nstep", "s_per_step", ".3f"),
)
ByPool = dict[tuple[str, str], Tally]


@app.callback()
def _group() -> None:
    """Typer makes a group of an app that has a callback."""


@app.command("methods")
def methods() -> None:
    """List the methods, and what each needs that is not installed."""
    table = Table("method", "what", box=None, pad_edge=False)
    for name, known in METHODS.items():
        missing = f"; not installed: pip install 'sageserve-testbed[{known.needs}]'" if problem_with(name) else ""
        table.add_row(name, escape(known.about + missing))
    stdout.print(table)


@app.command("evaluate")
def evaluate_(
    trace: Annotated[
        Path, typer.Argument(metavar="TRACE", help="A file or folder in a format of `testbed trace formats`.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="One of `testbed forecast methods`. Repeatable. Default: ensemble and arima."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only series of this model.")] = None,
    region: Annotated[str | None, typer.Option(help="Only series of this region.")] = None,
    step: Annotated[float, typer.Option(min=1, help="Step of the forecast, s.")] = 900.0,
    horizon: Annotated[float, typer.Option(min=1, help="How far ahead, s: a multiple of --step.")] = 3600.0,
    every: Annotated[float | None, typer.Option(min=1, help="Time between forecasts, s; default: --step.")] = None,
    peak_step: Annotated[
        float, typer.Option(min=1, help="A peak is the highest mean over so long, s; divides --step.")
    ] = 60.0,
    season_h: Annotated[float, typer.Option(min=0.01, help="Length of a season, h.")] = 24.0,
    warmup_days: Annotated[float, typer.Option(min=0, help="History before the first forecast, days.")] = 2.0,
    refit: Annotated[float | None, typer.Option(min=1, help="Time between fits, s; default: half a season.")] = None,
    quantile: Annotated[
        float, typer.Option(min=0.01, max=0.999, help="Quantile of the peak to forecast and score.")
    ] = 0.9,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="FORMAT", help="Format of TRACE; default: by content.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the requests that are drawn where TRACE holds rates.")
    ] = None,
    prompt_tokens: Annotated[
        str | None, typer.Option(help="Lengths to draw, where TRACE has none, as in `trace convert`.")
    ] = None,
    output_tokens: Annotated[str | None, typer.Option(help="The same for outputs.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write every score of every series here.")] = None,
) -> None:
    """Forecast all along a trace from what came before, and score it.

    Errors are shares of the demand that came; docs/forecasts.md defines each. `covered` is the share of peaks at or
    below the peak's quantile, `over` what that quantile costs beyond the peaks that came.
    """
    names = list(dict.fromkeys(method or (BEST_METHOD, "arima")))
    forecasters = {name: _parameters(name, step, season_h, refit).forecaster() for name in names}
    _whole(step, peak_step, "--step", of="--peak-step")
    rolling = Rolling(
        steps=_whole(horizon, step, "--horizon"),
        every=_whole(every or step, step, "--every"),
        warmup=round(warmup_days * 86400 / step),
        quantile=quantile,
    )
    require_folder_of(json_, "--json")
    told = FileReading(
        format_name=from_,
        seed=seed,
        prompt_tokens=quantile_table(prompt_tokens, "--prompt-tokens") if prompt_tokens else None,
        output_tokens=quantile_table(output_tokens, "--output-tokens") if output_tokens else None,
    )
    try:
        found = trace_series(trace, peak_step, told)
        pasts = {
            key: past_of_bins(values, bin_s=found.bin_s, step_s=step, peak_step_s=peak_step)
            for key, values in found.series.items()
            if model in (None, key[0]) and region in (None, key[1]) and values.any()
        }
    except (TraceError, ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    _must_hold_an_origin(trace, found, pasts, rolling, step)
    results = {
        name: {key: evaluate(forecaster, past, rolling, clock=time.process_time) for key, past in pasts.items()}
        for name, forecaster in forecasters.items()
    }
    _print(results, quantile)
    if json_ is not None:
        json_.write_text(json.dumps(_document(results, found, rolling, step, peak_step), indent=1), encoding="utf-8")
        stdout.print(f"scores → {json_}", soft_wrap=True, markup=False)


def _parameters(name: str, step_s: float, season_h: float, refit_s: float | None) -> ForecastParameters:
    if name not in METHODS:
        raise BadInput(
            f"--method {name}: there is no such method{nearest(name, METHODS)}; see `testbed forecast methods`"
        )
    try:
        return ForecastParameters(method=name, step_s=step_s, season_s=season_h * 3600, refit_s=refit_s)
    except ValidationError as error:
        raise BadInput(one_line(error, ForecastParameters)) from error


def _whole(given_s: float, step_s: float, option: str, of: str = "--step") -> int:
    ratio = given_s / step_s
    if ratio < 1 - 1e-9 or abs(ratio - round(ratio)) > 1e-6:
        raise BadInput(f"{option} {given_s:g}: wanted a multiple of {of} {step_s:g}")
    return round(ratio)


def _must_hold_an_origin(
    trace: Path, found: TraceSeries, pasts: dict[tuple[str, str], Past], rolling: Rolling, step_s: float
) -> None:
    if not pasts:
        there = ", ".join(f"{model}@{region}" for model, region in found.series)
        raise BadInput(f"{trace}: no interactive demand in what was asked for; there is {there}")
    longest = max(len(past.values) for past in pasts.values())
    if not rolling.origins(longest):
        least_h = (rolling.warmup + rolling.steps) * step_s / 3600
        raise BadInput(
            f"{trace}: {longest * step_s / 3600:.3g} h; with this warm-up and horizon at least {least_h:.3g} h are "
            "wanted: give less of --warmup-days or --horizon"
        )


def _print(results: dict[str, ByPool], quantile: float) -> None:
    for key in _series_of(results):
        table = Table(box=None, pad_edge=False, collapse_padding=True)
        table.add_column("method", no_wrap=True)
        for heading in ("n", *(heading for heading, _, _ in COLUMNS), "fell\nback"):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, tallies in results.items():
            scores = (total(tallies.values()) if key == POOLED else tallies[key]).scores
            cells = (_cell(getattr(scores, field), form) for _, field, form in COLUMNS)
            table.add_row(name, f"{scores.forecasts:,}", *cells, f"{scores.fell_back:,}")
        stdout.print(f"{'@'.join(filter(None, key))}, quantile {quantile:g}", highlight=False, markup=False)
        stdout.print(table)
        stdout.print()
    for name, tallies in results.items():
        for reason, count in total(tallies.values()).why.most_common(MOST_REASONS):
            stdout.print(f"{name} fell back {count} x: {reason}", soft_wrap=True, markup=False, highlight=False)


def _series_of(results: dict[str, ByPool]) -> Sequence[tuple[str, str]]:
    keys = list(next(iter(results.values())))
    return keys if len(keys) == 1 else [*keys, POOLED]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _document(
    results: dict[str, ByPool], found: TraceSeries, rolling: Rolling, step_s: float, peak_step_s: float
) -> dict[str, Any]:
    def rows(tallies: ByPool) -> list[dict[str, Any]]:
        named = [*tallies.items(), ((None, None), total(tallies.values()))]
        return [
            {"model": model, "region": region, **asdict(tally.scores), "why": dict(tally.why)}
            for (model, region), tally in named
        ]

    return {
        "unit": found.unit,
        "step_s": step_s,
        "peak_step_s": peak_step_s,
        **asdict(rolling),
        "methods": {name: rows(tallies) for name, tallies in results.items()},
    }
