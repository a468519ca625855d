"""`testbed profile show` and `testbed profile compare`: profiles to look at."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from profiler.profile import ServerProfile, load_profile, profile_path
from profiler.profile_parts import LatencySlo, StepSample
from profiler.raw_samples import read_samples
from results.atomic_file import replace_text
from results.drawing import Drawing, save_drawings
from results.profile_comparison import comparison_tables, profile_labels
from results.profile_figures import comparison_drawings, profile_drawings
from results.profile_page import comparison_page, profile_page
from results.profile_tables import profile_tables
from results.reference_load import ReferenceLoad, common_load
from testbed.bad_input import BadInput
from testbed.terminal_tables import print_tables

stdout = Console()


class FigureFormat(StrEnum):
    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write one page with figures; must not exist.")]
Figures = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write each figure to a file of its own; none may exist.")
]
Format = Annotated[FigureFormat, typer.Option("--format", help="Of the files that --figures writes.")]


def show(
    profile: Annotated[str, typer.Argument(help="A profile's file, or the name of a bundled one.", metavar="PROFILE")],
    html: Html = None,
    figures: Figures = None,
    figure_format: Format = FigureFormat.PNG,
) -> None:
    """Tell what a server profile holds.

    Capacity, lifecycle, step times and their errors, load, theta, energy.
    """
    found = _load(profile)
    _refuse_existing(html)
    samples, remark = _samples(found, profile) if html or figures else ((), "")
    drawings = _refuse_files_in_the_way(profile_drawings(found, samples) if figures else (), figures, figure_format)
    print_tables(stdout, profile_tables(found))
    if remark:
        stdout.print(Text(remark), soft_wrap=True)
    if html is not None:
        _write(html, profile_page(found, samples, remark))
    _save(drawings, figures, figure_format)


def compare(
    profiles: Annotated[
        list[str], typer.Argument(help="Two or more: files, or names of bundled ones.", metavar="PROFILE...")
    ],
    html: Html = None,
    figures: Figures = None,
    figure_format: Format = FigureFormat.PNG,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="Mean prompt for theta. Default: of the first theta that was measured.")
    ] = None,
    output_tokens: Annotated[float | None, typer.Option(min=1, help="Mean answer for theta.")] = None,
    ttft_s: Annotated[float | None, typer.Option(min=1e-6, help="Limit on the p95 of TTFT for theta.")] = None,
    tpot_s: Annotated[float | None, typer.Option(min=1e-6, help="Limit on the p95 of TPOT for theta.")] = None,
) -> None:
    """Put profiles side by side.

    What they differ in, then capacity, times, theta, energy; ratios are to the first.
    """
    if len(profiles) < 2:
        raise BadInput(f"one profile, {profiles[0]}; name two or more, or look at it with `testbed profile show`")
    found = [_load(profile) for profile in profiles]
    _refuse_existing(html)
    load = _asked_load(common_load(found), prompt_tokens, output_tokens, ttft_s, tpot_s)
    labelled = dict(zip(profile_labels(found), found, strict=True))
    drawings = _refuse_files_in_the_way(comparison_drawings(labelled) if figures else (), figures, figure_format)
    print_tables(stdout, comparison_tables(found, load))
    if html is not None:
        _write(html, comparison_page(found, load))
    _save(drawings, figures, figure_format)


def _load(name: str) -> ServerProfile:
    try:
        return load_profile(name)
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is no server profile: it is not text; write profiles with `testbed profile`") from error
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


def _samples(profile: ServerProfile, name: str) -> tuple[tuple[StepSample, ...], str]:
    """The raw samples beside a profile; without them, a line that says why."""
    try:
        return read_samples(profile, profile_path(name)), ""
    except (ValueError, OSError) as error:
        return (), f"The figures show no samples: {str(error).splitlines()[0]}"


def _asked_load(
    common: ReferenceLoad,
    prompt_tokens: float | None,
    output_tokens: float | None,
    ttft_s: float | None,
    tpot_s: float | None,
) -> ReferenceLoad:
    slo = common.slo if ttft_s is None and tpot_s is None else LatencySlo(ttft_s=ttft_s, tpot_s=tpot_s)
    return ReferenceLoad(
        prompt_tokens=prompt_tokens or common.prompt_tokens,
        output_tokens=output_tokens or common.output_tokens,
        prompt_cv=common.prompt_cv,
        output_cv=common.output_cv,
        slo=slo,
    )


def _refuse_existing(path: Path | None) -> None:
    if path is not None and path.exists():
        raise BadInput(f"--html {path} exists already; name a file that does not")


def _refuse_files_in_the_way(
    drawings: Sequence[Drawing], folder: Path | None, file_format: FigureFormat
) -> Sequence[Drawing]:
    """`drawings`, unless a file is where one of theirs would be."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise BadInput(f"--figures {folder} is a file; name a folder")
    for drawing in drawings:
        if folder is not None and (folder / f"{drawing.name}.{file_format.value}").exists():
            raise BadInput(f"--figures {folder} has {drawing.name}.{file_format.value} already; name another folder")
    return drawings


def _write(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, page)
    except OSError as error:
        raise BadInput(f"--html {path} cannot be written: {error.strerror}") from error
    stdout.print(Text(f"→ {path}"), soft_wrap=True)


def _save(drawings: Sequence[Drawing], folder: Path | None, file_format: FigureFormat) -> None:
    if folder is None:
        return
    try:
        paths = save_drawings(drawings, folder, file_format.value)
    except OSError as error:
        raise BadInput(f"--figures {folder} cannot be written: {error.strerror}") from error
    stdout.print(Text(f"→ {', '.join(str(path) for path in paths)}"), soft_wrap=True)
