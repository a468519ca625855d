"""`testbed profile`: measure a running server."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
import uvloop
from rich.console import Console

from profiler.measure import MeasurementError, ServerFactsError, profile_server
from profiler.profile import EngineArgs, ProfiledGpu, ServerProfile
from profiler.sweep import Sweep
from testbed.bad_input import BadInput
from testbed.gpu_inventory import gpu_inventory

stdout = Console()


def profile(
    base_url: Annotated[str, typer.Option(help="Address of a running vLLM server, without /v1.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write; must not exist.")],
    gpu: Annotated[str, typer.Option(help='GPU type the server runs on, for instance h100; "cpu" without one.')],
    model: Annotated[
        str | None, typer.Option(help="Served model name; default: the only one that the server has.")
    ] = None,
    tensor_parallel_size: Annotated[int, typer.Option(min=1, help="As the server was started.")] = 1,
    dtype: Annotated[str, typer.Option(help="As the server was started.")] = "bfloat16",
    max_num_seqs: Annotated[int, typer.Option(min=1, help="As the server was started.")] = 256,
    max_num_batched_tokens: Annotated[int, typer.Option(min=1, help="As the server was started.")] = 8192,
    weights: Annotated[str, typer.Option(help="real, or dummy (--load-format dummy).")] = "real",
    quick: Annotated[bool, typer.Option(help="A coarse grid: minutes instead of tens of minutes.")] = False,
) -> None:
    """Measure a running server and write its profile: prefill, decode, load; then the fit of its step times.

    Send nothing else to the server meanwhile. HTTP does not tell how it was started: say so with the options.
    """
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")
    if weights not in ("real", "dummy"):
        raise BadInput(f"--weights {weights}: wanted real or dummy")
    inventory = gpu_inventory()
    running = inventory.gpus[0] if inventory.gpus and gpu != "cpu" else None
    known: Literal["real", "dummy"] = "real" if weights == "real" else "dummy"

    async def measure() -> ServerProfile:
        return await profile_server(
            base_url.rstrip("/"),
            gpu=ProfiledGpu(
                type=gpu, count=tensor_parallel_size, memory_bytes=running.memory_total_bytes if running else None
            ),
            engine=EngineArgs(
                tensor_parallel_size=tensor_parallel_size,
                dtype=dtype,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens,
            ),
            weights=known,
            model=model,
            driver=running.driver_version if running else None,
            date=f"{datetime.now(UTC):%Y-%m-%d}",
            sweep=QUICK if quick else None,
            progress=lambda line: stdout.print(line, highlight=False, soft_wrap=True),
        )

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure())
    except (ServerFactsError, MeasurementError) as error:
        raise BadInput(str(error)) from error
    found.save(out)
    fit = found.fit
    stdout.print(
        f"{found.name}: {len(found.samples)} samples" + (f", mean error of the fit {fit.mape:.1%}" if fit else "")
    )
    stdout.print(f"→ {out}", soft_wrap=True)


QUICK = Sweep(
    prompt_tokens=(16, 64, 256, 1024, 4096),
    decode_seqs=(1, 4, 16, 64),
    context_tokens=(64, 1024),
    closed_loop_concurrency=(1, 8),
    closed_loop_prompt_tokens=128,
    closed_loop_output_tokens=32,
    decode_steps=16,
)
