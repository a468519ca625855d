"""`testbed bound`: the least GPU-hours that any controller needs, with perfect foresight."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controller.bound.foresight import least_gpu_hours
from controller.bound.problem import ForesightProblem
from controller.bound.whole_demand import whole_demand
from controller.types import Capacity, FleetLimits
from results.bound import BoundRecord, bound_record
from results.bound_table import bound_table
from results.manifest import MANIFEST_FILE, ManifestError, RunManifest
from testbed.bad_input import BadInput, require_folder_of
from testbed.capacities import capacities, fleet_limits, load_profiles
from testbed.offered_load import offered_load
from testbed.run_bound import DEFAULT_BUDGET, gpu_hours_bound
from testbed.scenario import Scenario
from testbed.scenario_file import bundled_scenarios, load_scenario
from testbed.trace_changes import duration_s
from workloads.formats.options import ReadOptions
from workloads.formats.reading import read_trace
from workloads.request import Tier
from workloads.trace import Trace
from workloads.trace_checks import TraceError

# What a region of a trace file has: more than any demand fills.
UNLIMITED_GPUS = 1e9
stdout = Console()


def bound(
    what: Annotated[
        str,
        typer.Argument(
            help="A trace in any format (then give --theta and --start-s), a scenario (a file or a bundled name), or "
            "the folder of a run.",
            metavar="TRACE|SCENARIO|RUN",
        ),
    ],
    theta: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL=]N", help="Tokens/s that one server sustains within its SLO. Repeatable."),
    ] = None,
    start_s: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL=]N", help="Seconds from the start of a server until it is READY. Repeatable."),
    ] = None,
    gpus: Annotated[
        list[str] | None, typer.Option(metavar="[MODEL=]N", help="GPUs of one server; default: 1. Repeatable.")
    ] = None,
    min_servers: Annotated[
        int, typer.Option(min=0, help="Of a trace: servers that every model has in every region at all times.")
    ] = 0,
    model: Annotated[str | None, typer.Option(help="Model of a trace whose format names none.")] = None,
    region: Annotated[str | None, typer.Option(help="Region of a trace whose format names none.")] = None,
    tier: Annotated[Tier | None, typer.Option(help="Tier of a trace whose format names none.")] = None,
    budget: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the steps in which a model may miss its SLO.")
    ] = DEFAULT_BUDGET,
    epsilon: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a region's demand to be served in that region.")
    ] = 0.0,
    niw: Annotated[bool, typer.Option("--niw/--no-niw", help="Serve NIW requests too, by their deadlines.")] = True,
    step: Annotated[
        str | None, typer.Option(help="Grid on which demand is counted, such as 5m; default: the scenario's, or 60 s.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key of the scenario. Repeatable.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="File to write the result to; must not exist.")] = None,
) -> None:
    """The least GPU-hours that serve a workload within its SLOs, with perfect foresight and these start-up times.

    Prints a proven lower bound and a plan that a fleet could carry out, with the gap between them. The fleet's limits,
    capacities and start state are those of the scenario or run; for a trace, give --theta, --start-s and --gpus.
    """
    if json is not None and json.exists():
        raise BadInput(f"--json {json} exists already; name a file that does not")
    require_folder_of(json, "--json")
    step_s, path = None if step is None else duration_s(step, "--step"), Path(what)
    if step_s == 0:
        raise BadInput(f"--step {step}: must be above 0")
    of_server = {"--theta": theta, "--start-s": start_s, "--gpus": gpus}
    if not path.exists() and what not in bundled_scenarios():
        raise BadInput(f"{what}: no file, no folder and no bundled scenario ({', '.join(bundled_scenarios())})")
    question = _Question(violated_share=budget, epsilon=epsilon, niw=niw, step_s=step_s)
    if _is_scenario(what):
        for option, given in of_server.items():
            if given:
                raise BadInput(f"{option} is for a trace; a scenario has it from its profiles (see --set)")
        record = _of_scenario(what, tuple(set_ or ()), question)
    else:
        if set_:
            raise BadInput("--set is for a scenario; of a trace give --theta, --start-s, --gpus, --min-servers")
        trace = _read(path, ReadOptions(model=model, region=region, tier=tier))
        record = _of_trace(trace, of_server, min_servers, question)
    _print(record)
    if json is not None:
        json.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked whatever the workload; the terms are controller.bound.problem.ForesightProblem's."""

    violated_share: float
    epsilon: float
    niw: bool
    step_s: float | None


def _of_scenario(what: str, overrides: tuple[str, ...], asked: _Question) -> BoundRecord:
    scenario, path, trace = _scenario(what, overrides)
    load = offered_load(scenario, path)
    limits = fleet_limits(scenario, capacities(scenario, load_profiles(scenario), load.mix))
    return gpu_hours_bound(
        scenario,
        limits if trace is None else _as_planned(limits, Path(what)),
        load.trace if trace is None else trace,
        violated_share=asked.violated_share,
        epsilon=asked.epsilon,
        niw=asked.niw,
        step_s=asked.step_s,
    )


def _as_planned(limits: FleetLimits, run_folder: Path) -> FleetLimits:
    """With the theta that the run began with: of a trace with history it was that history's, which no run keeps."""
    try:
        known = RunManifest.read(run_folder).bound
    except ManifestError as error:
        raise BadInput(str(error)) from error
    planned = {
        (model, gpu_type): terms.planned_theta_tokens_per_s
        for model, part in (known.models if known is not None else {}).items()
        for gpu_type, terms in part.servers.items()
    }
    return replace(
        limits,
        capacity={
            key: replace(capacity, theta_tokens_per_s=planned.get(key) or capacity.theta_tokens_per_s)
            for key, capacity in limits.capacity.items()
        },
    )


def _of_trace(trace: Trace, of_server: dict[str, list[str] | None], min_servers: int, asked: _Question) -> BoundRecord:
    problem = ForesightProblem(
        demand=whole_demand(trace, step_s=asked.step_s or 60.0, niw=asked.niw),
        limits=_limits(trace, of_server, min_servers),
        violated_share=asked.violated_share,
        epsilon=asked.epsilon,
    )
    try:
        found = least_gpu_hours(problem)
    except ValueError as error:
        raise BadInput(str(error)) from error
    return bound_record(problem, found, {}, niw=asked.niw)


def _is_scenario(what: str) -> bool:
    path = Path(what)
    if path.is_dir():
        return (path / MANIFEST_FILE).exists()
    return not path.exists() or path.suffix in (".yaml", ".yml")


def _scenario(what: str, overrides: tuple[str, ...]) -> tuple[Scenario, Path, Trace | None]:
    """The scenario, where it was read from, and the trace that its run replayed where `what` is a run's folder."""
    folder = Path(what)
    if not folder.is_dir():
        return (*load_scenario(what, overrides), None)
    replayed = folder / "trace.parquet"
    scenario, path = load_scenario(str(folder / "scenario.yaml"), overrides)
    if not replayed.exists():
        return scenario, path, None
    if scenario.workload.trace is not None:
        # Its path was relative to the scenario's own file; the run kept the requests themselves.
        kept = scenario.workload.model_copy(update={"trace": replayed.resolve(), "history_h": 0.0})
        scenario = scenario.model_copy(update={"workload": kept})
    return scenario, path, _read(replayed)


def _read(path: Path, unsaid: ReadOptions | None = None) -> Trace:
    try:
        return read_trace(path, unsaid)[0]
    except TraceError as error:
        raise BadInput(str(error)) from error


def _limits(trace: Trace, of_server: dict[str, list[str] | None], min_servers: int) -> FleetLimits:
    models, regions = trace.labels("model").names, trace.labels("region").names
    values = {option: _by_model(option, given or [], models) for option, given in of_server.items()}
    for option in ("--theta", "--start-s"):
        for model in models:
            if model not in values[option]:
                raise BadInput(f"{option} is not given for model {model}; give {option} N, or {option} {model}=N")
    return FleetLimits(
        models=models,
        regions=regions,
        capacity={
            (model, "gpu"): Capacity(
                theta_tokens_per_s=values["--theta"][model],
                start_s=values["--start-s"][model],
                gpus=values["--gpus"].get(model, 1.0),
            )
            for model in models
        },
        quota_gpus={(region, "gpu"): UNLIMITED_GPUS for region in regions},
        min_servers=min_servers,
    )


def _by_model(option: str, given: Sequence[str], models: Sequence[str]) -> dict[str, float]:
    """Values of a repeatable [MODEL=]N; one without a model is for those that have none of their own."""
    found: dict[str, float] = {}
    for text in given:
        model, _, number = text.rpartition("=")
        if model and model not in models:
            raise BadInput(f"{option} {text}: the trace has no model {model!r}, but {', '.join(models)}")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        least, wanted = (0.0, "of 0 or more") if option == "--start-s" else (1e-9, "above 0")
        if not least <= value < UNLIMITED_GPUS:
            raise BadInput(f"{option} {text}: wanted [MODEL=]N, a number {wanted}")
        for name in (model,) if model else (m for m in models if m not in found):
            found[name] = value
    return found


def _print(record: BoundRecord) -> None:
    told = bound_table(record)
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(told.columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in told.rows:
        table.add_row(*(escape(cell) for cell in row))
    stdout.print(table)
    for note in told.notes:
        stdout.print(note, soft_wrap=True, highlight=False, markup=False)
