"""`testbed profile validate`: fresh points against what a profile says."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from profiler.gpu_types import CPU
from profiler.plan import MeasurementPlan
from profiler.profile import ServerProfile, load_profile
from testbed.bad_input import BadInput
from testbed.model_argument import ModelToProfile, resolve_model
from testbed.profile_job import ProfileJob, Serving, chosen_gpus
from testbed.profile_progress import measured_with_progress
from testbed.profile_validation import Validation, validate_on_new_server, validate_running
from testbed.temporary_folder import temporary_folder

stdout = Console()

Gpus = Annotated[
    str | None,
    typer.Option(help="GPUs of the server by NVML's numbers, as in 0,1; cpu: vLLM's CPU build. Default: the first."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        help="Measure the server that runs there (http://HOST:PORT, no /v1) instead of starting one. HTTP does not "
        "tell how it was started: repeat its dtype, tensor parallelism and batch limits."
    ),
]
Budget = Annotated[
    float,
    typer.Option(
        min=0.5, help="Minutes to aim at, server starts included; the first grid is measured whatever it takes."
    ),
]


def validate(
    profile: Annotated[str, typer.Argument(help="A profile's file, or the name of a bundled one.", metavar="PROFILE")],
    model: Annotated[str | None, typer.Option(help="What to start. Default: the model that the profile names.")] = None,
    points: Annotated[int, typer.Option(min=1, help="How many random points to measure.")] = 12,
    gpus: Gpus = None,
    base_url: BaseUrl = None,
    budget_minutes: Budget = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the points; another one measures others.")] = 1,
) -> None:
    """Measure fresh random points, and tell how far a profile is off.

    Starts a server as the profile describes it, measures within the profile's domain, and stops it.
    """
    try:
        expected = load_profile(profile)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    engine = expected.engine
    chosen = chosen_gpus(CPU if expected.gpu.type == CPU else gpus, engine.tensor_parallel_size)
    with temporary_folder() as folder:
        found = resolve_model(model or expected.model.name, folder)
        job = ProfileJob(
            model=found,
            gpus=chosen,
            serving=Serving(
                tensor_parallel_size=engine.tensor_parallel_size,
                dtype=engine.dtype,
                max_model_len=engine.max_model_len,
                max_num_seqs=engine.max_num_seqs,
                max_num_batched_tokens=engine.max_num_batched_tokens,
                gpu_memory_utilization=engine.gpu_memory_utilization,
                kv_cache_memory_bytes=engine.kv_cache_memory_bytes,
                extra_args=engine.extra_args,
                env=engine.env,
            ),
            weights=expected.provenance.weights or found.weights_possible[0],
            plan=MeasurementPlan(budget_s=60 * budget_minutes, seed=seed),
        )
        for difference in _differences(expected, job, found):
            stdout.print(f"mind: {difference}", style="yellow", markup=False)
        if base_url is None:
            outcome = measured_with_progress(lambda tell: validate_on_new_server(expected, job, points, tell), None)
        else:
            address = base_url.rstrip("/")
            outcome = measured_with_progress(lambda tell: validate_running(expected, address, job, points, tell), None)
    _print(expected, outcome)


def _differences(expected: ServerProfile, job: ProfileJob, found: ModelToProfile) -> list[str]:
    """Why the profile need not hold here."""
    said = []
    if job.gpu_type != expected.gpu.type:
        said.append(f"the profile is of {expected.gpu.type}, this machine has {job.gpu_type}")
    digest = expected.model.config_sha256
    if digest is not None and found.config_sha256 is not None and digest != found.config_sha256:
        said.append(f"the config of {found.name} is not the one that was profiled")
    return said


def _print(profile: ServerProfile, outcome: Validation) -> None:
    table = Table(box=None, pad_edge=False)
    for name, justify in (("point", "left"), ("measured", "right"), ("profile", "right"), ("error", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for point in sorted(outcome.points, key=lambda point: -abs(point.error)):
        table.add_row(
            point.point, f"{point.observed_s * 1e3:.1f} ms", f"{point.predicted_s * 1e3:.1f} ms", f"{point.error:+.1%}"
        )
    stdout.print(table)
    for note in outcome.notes:
        stdout.print(f"  {note}", style="dim", markup=False, highlight=False)
    kinds = ", ".join(f"{kind} {errors.median_ape:.1%} (n={errors.n})" for kind, errors in outcome.by_kind.items())
    errors = outcome.errors
    stdout.print(
        f"{profile.name}: absolute error at {errors.n} fresh points: median {errors.median_ape:.1%}, mean "
        f"{errors.mape:.1%}, largest {errors.max_ape:.1%}; medians by kind: {kinds}",
        soft_wrap=True,
    )
