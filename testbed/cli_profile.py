"""`testbed profile`: measure a running server."""

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from profiler.measure import MeasurementError, ServerFactsError, profile_server
from profiler.profile import EngineArgs, ProfiledGpu, ServerProfile
from profiler.sweep import Sweep
from testbed.bad_input import BadInput
from testbed.gpu_inventory import gpu_inventory

stdout = Console()


class Weights(StrEnum):
    REAL = "real"
    DUMMY = "dummy"


QUICK = Sweep(
    prompt_tokens=(16, 64, 256, 1024, 4096),
    decode_seqs=(1, 4, 16, 64),
    context_tokens=(64, 1024),
    closed_loop_concurrency=(1, 8),
    closed_loop_prompt_tokens=128,
    closed_loop_output_tokens=32,
    decode_steps=16,
)


def profile(
    base_url: Annotated[str, typer.Option(help="Address of a running vLLM server, without /v1.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="JSON file to write; must not exist. Default: profile-TIME.json.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help='GPU type, for instance h100, or "cpu". Default: what this machine has.')
    ] = None,
    model: Annotated[str | None, typer.Option(help="Served model name. Default: the only one there is.")] = None,
    tensor_parallel_size: Annotated[int, typer.Option(min=1, help="As the server was started.")] = 1,
    dtype: Annotated[str, typer.Option(help="As the server was started.")] = "bfloat16",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="As the server was started.")] = 256,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="As the server was started.")] = 8192,
    weights: Annotated[Weights, typer.Option(help="dummy: started with --load-format dummy.")] = Weights.REAL,
    quick: Annotated[bool, typer.Option(help="A coarse grid, for a first look.")] = False,
) -> None:
    """Measure a running server and write its profile: prefill, decode, load; then the fit of its step times.

    Send nothing else to the server meanwhile. HTTP does not tell how it was started: say so with the options.
    """
    out = out or Path(f"profile-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(
                _measure(
                    base_url,
                    gpu,
                    model,
                    EngineArgs(
                        tensor_parallel_size=tensor_parallel_size,
                        dtype=dtype,
                        max_num_seqs=max_num_seqs,
                        max_num_batched_tokens=max_num_batched_tokens,
                    ),
                    weights,
                    QUICK if quick else Sweep(),
                )
            )
    except (ServerFactsError, MeasurementError) as error:
        raise BadInput(str(error)) from error
    found.save(out)
    error_of_fit = f", mean error of the fit {found.fit.mape:.1%}" if found.fit else ""
    stdout.print(f"{found.name}: {len(found.samples)} samples{error_of_fit}")
    stdout.print(f"→ {out}", soft_wrap=True)


async def _measure(
    base_url: str, gpu: str | None, model: str | None, engine: EngineArgs, weights: Weights, sweep: Sweep
) -> ServerProfile:
    gpus = gpu_inventory().gpus if gpu != "cpu" else ()
    return await profile_server(
        base_url.rstrip("/"),
        gpu=ProfiledGpu(
            type=gpu or (gpus[0].name if gpus else "cpu"),
            count=engine.tensor_parallel_size,
            memory_bytes=gpus[0].memory_total_bytes if gpus else None,
        ),
        engine=engine,
        weights=weights.value,
        model=model,
        driver=gpus[0].driver_version if gpus else None,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        sweep=sweep,
        progress=lambda line: stdout.print(line, highlight=False, soft_wrap=True),
    )
