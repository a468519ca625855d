"""`testbed export` and `testbed import`: profiles to and from other simulators."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from profiler.exports.export import export as write_export
from profiler.exports.formats import EXPORT_FORMATS
from profiler.exports.settings import ExportError, ExportSettings
from profiler.imports.dynamo import read_dynamo
from profiler.imports.imported import Imported, ImportedFileError, profile_of
from profiler.imports.splitwise import read_splitwise
from profiler.imports.units import UNITS, Units
from profiler.profile import OutsideDomainError, ServerProfile, load_profile
from testbed.bad_input import BadInput

stdout = Console()


class Source(StrEnum):
    """Formats that can be imported."""

    SPLITWISE = "splitwise"
    SAGESERVE = "sageserve"
    DYNAMO = "dynamo"


def export(
    profiles: Annotated[list[str], typer.Argument(metavar="PROFILE...", help="Profile files, or bundled names.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"One of: {', '.join(EXPORT_FORMATS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; empty or new.")],
    extrapolate: Annotated[bool, typer.Option("--extrapolate", help="Go beyond what a profile has measured.")] = False,
    canonical: Annotated[
        bool, typer.Option("--canonical", help="splitwise, sageserve: the true axes instead of the loader's.")
    ] = False,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Prompt of the request that a format with one length is written for.")
    ] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Its answer.")] = None,
    max_context_tokens: Annotated[int | None, typer.Option(min=2, help="Cut every grid at this context.")] = None,
    model_name: Annotated[str | None, typer.Option(help="What the other simulator calls the model.")] = None,
    model_config: Annotated[
        Path | None, typer.Option(metavar="CONFIG.JSON", help="Hugging Face config of a model unknown here.")
    ] = None,
    peak_flops_per_s: Annotated[
        float | None, typer.Option(min=1, help="Dense bf16 FLOP/s of a GPU type unknown here.")
    ] = None,
    peak_memory_bytes_per_s: Annotated[float | None, typer.Option(min=1, help="Its memory bandwidth.")] = None,
) -> None:
    """Write profiles for another simulator, with a README.md that says what each file means and where it goes."""
    if to not in EXPORT_FORMATS:
        raise BadInput(f"--to {to!r} is no format; one of {', '.join(EXPORT_FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is not an empty folder; name another")
    if model_name is not None and len(profiles) > 1:
        raise BadInput(f"--model-name {model_name} is for one profile; {len(profiles)} were given")
    settings = ExportSettings(
        extrapolate=extrapolate,
        canonical=canonical,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        max_context_tokens=max_context_tokens,
        model_name=model_name,
        model_config=model_config,
        peak_flops_per_s=peak_flops_per_s,
        peak_memory_bytes_per_s=peak_memory_bytes_per_s,
    )
    try:
        done = write_export([_load(name) for name in profiles], EXPORT_FORMATS[to], out, settings)
    except (ExportError, OutsideDomainError) as error:
        raise BadInput(str(error)) from error
    for note in done.notes:
        stdout.print(note, soft_wrap=True, highlight=False, markup=False)
    stdout.print(f"{len(done.files)} files → {out}  (read {out / 'README.md'})", soft_wrap=True, markup=False)


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="A table, npz files, or their folder.")],
    from_: Annotated[Source, typer.Option("--from", help="What wrote them.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PROFILE.JSON", help="Profile to write; must not exist.")],
    model: Annotated[str | None, typer.Option(help="Which model of the table; dynamo: its name.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Which hardware of the table; dynamo: the GPU type.")] = None,
    tensor_parallel_size: Annotated[int | None, typer.Option(min=1, help="Which of the table; dynamo: GPUs.")] = None,
    units: Annotated[
        str | None, typer.Option(metavar="UNITS", help=f"Instead of what is detected: {', '.join(UNITS)}.")
    ] = None,
    kv_tokens: Annotated[int | None, typer.Option(min=16, help="KV cache of the server; a table has none.")] = None,
) -> None:
    """Fit a profile of kind "imported" to another simulator's table."""
    if out.exists():
        raise BadInput(f"--out {out} exists already; name a file that does not")
    try:
        if from_ is Source.DYNAMO:
            imported = _dynamo(files, model, gpu, tensor_parallel_size)
        else:
            imported = _table(files, model, gpu, tensor_parallel_size, units, kv_tokens)
        profile = profile_of(imported, files)
    except ImportedFileError as error:
        raise BadInput(str(error)) from error
    profile.save(out)
    for note in profile.provenance.notes:
        stdout.print(note, soft_wrap=True, highlight=False, markup=False)
    if profile.fit is not None:
        errors = profile.fit.residuals
        stdout.print(f"fitted to {errors.n} points: mean error {errors.mape:.1%}, largest {errors.max_ape:.1%}")
    stdout.print(f"{profile.name} → {out}", soft_wrap=True, markup=False)


def _table(
    files: list[Path],
    model: str | None,
    gpu: str | None,
    tensor_parallel_size: int | None,
    units: str | None,
    kv_tokens: int | None,
) -> Imported:
    if len(files) != 1:
        raise BadInput(f"{len(files)} files were given; a table is one")
    known: Units | None = next((name for name in UNITS if name == units), None)
    if units is not None and known is None:
        raise BadInput(f"--units {units!r}; one of {', '.join(UNITS)}")
    return read_splitwise(
        files[0], model=model, gpu=gpu, tensor_parallel_size=tensor_parallel_size, units=known, kv_tokens=kv_tokens
    )


def _dynamo(files: list[Path], model: str | None, gpu: str | None, tensor_parallel_size: int | None) -> Imported:
    if model is None or gpu is None:
        raise BadInput("Dynamo's files do not name the server; say --model and --gpu")
    return read_dynamo(files, model=model, gpu=gpu, tensor_parallel_size=tensor_parallel_size or 1)


def _load(name: str) -> ServerProfile:
    try:
        return load_profile(name)
    except ValueError as error:
        raise BadInput(str(error)) from error
