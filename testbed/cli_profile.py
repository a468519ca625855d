"""`testbed profile`: measure a model and write its profile; `validate`, `show` and `compare` profiles."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from profiler.measure import Subject
from profiler.model_shapes import MODEL_SHAPES
from profiler.plan import LengthMix, MeasurementPlan
from profiler.profile import ServerProfile
from profiler.profile_parts import EngineArgs, LatencySlo, ProfiledGpu
from testbed import cli_profile_show, cli_profile_validate
from testbed.bad_input import BadInput, require_folder_of
from testbed.cli_profile_validate import BaseUrl, Budget, Gpus
from testbed.layer_profiling import profile_by_layers
from testbed.model_argument import Weights, resolve_model
from testbed.profile_job import (
    DTYPE,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    ProfileJob,
    Serving,
    chosen_gpus,
    gpu_type_of,
    work_folder,
)
from testbed.profile_progress import measured_with_progress
from testbed.profiling import profile_model, profile_running
from testbed.vllm_command import check_extra_args

stdout = Console()


class LoadFormat(StrEnum):
    DUMMY = "dummy"
    AUTO = "auto"


class MeasureByDefault(TyperGroup):
    """`testbed profile llama-3.1-8b` is `testbed profile measure llama-3.1-8b`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["measure", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=MeasureByDefault,
    no_args_is_help=True,
    add_completion=False,
    help="Measure a model on this machine and write its profile: testbed profile MODEL, which is short for testbed "
    "profile measure MODEL. Or look at profiles: show, compare, validate. Without a GPU, try tiny-llama.",
)


@app.command("measure")
def measure(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help=f"A Hugging Face id, a model's folder, or one of {', '.join(MODEL_SHAPES)}. With --base-url: the "
            "served name, needed where there are several.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file to write; must not exist. Default: MODEL-GPU.json.")
    ] = None,
    gpus: Gpus = None,
    gpu_type: Annotated[
        str | None, typer.Option(help="With --base-url: the GPU type behind it, as in h100, or cpu.")
    ] = None,
    tensor_parallel_size: Annotated[int, typer.Option(min=1, help="GPUs of the server.")] = 1,
    dtype: Annotated[str | None, typer.Option(help="Default: bfloat16, on the CPU float32.")] = None,
    load_format: Annotated[
        LoadFormat | None,
        typer.Option(
            help="dummy: random weights, as fast as real ones; auto: real ones. Default: real ones where there are any."
        ),
    ] = None,
    max_model_len: Annotated[int | None, typer.Option(min=2, help="Default: vLLM's; on the CPU 2048.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Default: 256; on the CPU 64.")] = None,
    max_num_batched_tokens: Annotated[int | None, typer.Option(min=16, help="Default: 8192; on the CPU 2048.")] = None,
    gpu_memory_utilization: Annotated[float | None, typer.Option(min=0.01, max=1.0, help="Default: vLLM's.")] = None,
    kv_cache_memory_bytes: Annotated[
        int | None, typer.Option(min=1, help="Default: vLLM's; on the CPU 64 MiB.")
    ] = None,
    vllm_args: Annotated[
        str, typer.Option(help='More arguments of vLLM, in one text: "--attention-backend TRITON_ATTN".')
    ] = "",
    budget_minutes: Budget = 10.0,
    points: Annotated[
        int, typer.Option(min=16, help="Most points of prefill and decode, held-out ones included.")
    ] = 40,
    repeats: Annotated[int, typer.Option(min=3, help="Interleaved repeats of each point.")] = 3,
    longest_prompt: Annotated[
        int, typer.Option(min=64, help="No prompt is longer, however long the model's are.")
    ] = 16384,
    prompt_tokens: Annotated[float, typer.Option(min=1, help="Mean prompt of the loads and of theta.")] = 512,
    output_tokens: Annotated[float, typer.Option(min=1, help="Mean answer of the loads and of theta.")] = 128,
    length_cv: Annotated[
        float, typer.Option(min=0, help="Coefficient of variation of both, open loops only; 0: all alike.")
    ] = 0.0,
    slo_ttft_s: Annotated[float, typer.Option(min=1e-3, help="Limit of TTFT: goodput, and p95 of theta.")] = 1.0,
    slo_tpot_s: Annotated[float | None, typer.Option(min=1e-4, help="Limit of TPOT, the same. Default: none.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="L1,L2",
            help="Measure copies cut to L1 and L2 layers and extend to all: for a model that does not fit.",
        ),
    ] = None,
    check_layers: Annotated[
        bool,
        typer.Option(
            "--check-layers", help="With --layers: measure the whole model too, where it fits, and tell the error."
        ),
    ] = False,
    base_url: BaseUrl = None,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts, orders and random points.")] = 0,
) -> None:
    """Measure a model on this machine and write its profile.

    Starts a server of its own: cold start, warm start, prefill, decode, mixed batches, loads, the largest rate within
    the SLO, power, drain, sleep. Interrupted or killed, the same command goes on where it was. The machine should do
    nothing else meanwhile.
    """
    plan = MeasurementPlan(
        budget_s=60 * budget_minutes,
        most_points=points,
        held_out=max(3, points // 5),
        repeats=repeats,
        longest_prompt=longest_prompt,
        mix=LengthMix(
            prompt_tokens=prompt_tokens, output_tokens=output_tokens, prompt_cv=length_cv, output_cv=length_cv
        ),
        slo=LatencySlo(ttft_s=slo_ttft_s, tpot_s=slo_tpot_s),
        seed=seed,
    )
    serving = Serving(
        tensor_parallel_size=tensor_parallel_size,
        dtype=dtype,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        gpu_memory_utilization=gpu_memory_utilization,
        kv_cache_memory_bytes=kv_cache_memory_bytes,
        extra_args=_vllm_args(vllm_args),
    )
    if base_url is not None:
        if layers:
            raise BadInput("--layers cuts a model before it is started, and --base-url names one that runs; choose one")
        where = gpu_type or "gpu"
        target = _free(out or Path(f"{_stem(model or 'server')}-{where}.json"))
        subject = _subject(where, serving, load_format)
        profile = measured_with_progress(
            lambda tell: profile_running(base_url.rstrip("/"), subject, plan, target, tell, model=model),
            work_folder(target),
        )
        _print(profile, target)
        return
    if model is None:
        raise BadInput("profile: no MODEL; name one, as in `testbed profile llama-3.2-3b`, or give --base-url")
    chosen = chosen_gpus(gpus, tensor_parallel_size)
    suffix = f"-tp{tensor_parallel_size}" if tensor_parallel_size > 1 else ""
    target = _free(out or Path(f"{_stem(model)}-{gpu_type_of(chosen)}{suffix}.json"))

    def job_of(count: int | None) -> ProfileJob:
        found = resolve_model(model, work_folder(target), count)
        return ProfileJob(
            model=found,
            gpus=chosen,
            serving=serving,
            weights=_weights(load_format, found.weights_possible, model),
            plan=plan,
        )

    if layers is None:
        if check_layers:
            raise BadInput("--check-layers: there is nothing to check without --layers L1,L2")
        job = job_of(None)
        profile = measured_with_progress(lambda tell: profile_model(job, target, tell), work_folder(target))
    else:
        counts = _layer_counts(layers)
        profile = measured_with_progress(
            lambda tell: profile_by_layers(job_of, counts, target, tell, measure_whole=check_layers),
            work_folder(target),
        )
    _print(profile, target)


def _vllm_args(text: str) -> tuple[str, ...]:
    try:
        arguments = tuple(shlex.split(text))
        check_extra_args(arguments)
    except ValueError as error:
        raise BadInput(f"--vllm-args {text!r}: {error}") from error
    return arguments


def _free(out: Path) -> Path:
    if out.suffix != ".json":
        raise BadInput(f"--out {out}: a profile is a JSON file; name it {out.with_suffix('.json')}")
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")
    require_folder_of(out, "--out")
    return out


def _stem(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].lower() or "model"


def _weights(asked: LoadFormat | None, possible: Sequence[Weights], model: str) -> Weights:
    """Random weights or real ones: what was asked for, else real ones where there are any."""
    if asked is None:
        return possible[0]
    wanted: Weights = "dummy" if asked is LoadFormat.DUMMY else "real"
    if wanted not in possible:
        raise BadInput(f"--load-format {asked}: {model} has no weights here; use --load-format dummy")
    return wanted


def _layer_counts(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise BadInput(f"--layers {text!r}; must be two numbers, as in --layers 8,16")
    few, many = sorted(int(part) for part in parts)
    if few == many:
        raise BadInput(f"--layers {text!r}; two different numbers make a line, one does not")
    return few, many


def _subject(gpu_type: str, serving: Serving, load_format: LoadFormat | None) -> Subject:
    """A server behind an address: HTTP does not tell how it was started."""
    return Subject(
        name="",
        model="",
        gpu=ProfiledGpu(type=gpu_type, count=serving.tensor_parallel_size),
        engine=EngineArgs(
            tensor_parallel_size=serving.tensor_parallel_size,
            dtype=serving.dtype or DTYPE,
            max_num_seqs=serving.max_num_seqs or MAX_NUM_SEQS,
            max_num_batched_tokens=serving.max_num_batched_tokens or MAX_NUM_BATCHED_TOKENS,
            max_model_len=serving.max_model_len,
            gpu_memory_utilization=serving.gpu_memory_utilization,
            kv_cache_memory_bytes=serving.kv_cache_memory_bytes,
            extra_args=serving.extra_args,
        ),
        weights=None if load_format is None else ("dummy" if load_format is LoadFormat.DUMMY else "real"),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        assumptions=("how the server was started is as told to the profiler: HTTP does not tell",),
    )


def _print(profile: ServerProfile, out: Path) -> None:
    fit = profile.fit
    if fit is not None:
        held_out = f"; {fit.held_out.mape:.1%} at {fit.held_out.n} points held out" if fit.held_out else ""
        stdout.print(
            f"{profile.name}: {fit.n_samples} samples at {fit.residuals.n} points; mean error of the fit"
            f" {fit.residuals.mape:.1%}{held_out}"
        )
    for note in profile.provenance.notes:
        stdout.print(f"  {note}", style="dim", markup=False, highlight=False)
    stdout.print(f"→ {out}; look at it with: testbed profile show {out}", soft_wrap=True, markup=False)


# Last, so that the help lists `measure` first.
app.command("show")(cli_profile_show.show)
app.command("compare")(cli_profile_show.compare)
app.command("validate")(cli_profile_validate.validate)
