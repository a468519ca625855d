"""What every exporter takes and gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from profiler.exports.settings import ExportSettings
from profiler.exports.step_times import StepTimes
from profiler.profile import ServerProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The files written, and lines for the user: what was cut, what is missing, how well coefficients fit."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


Writer = Callable[[Sequence[ServerProfile], Path, ExportSettings], Export]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """`page`: Markdown in `profiler/exports/pages` that says what the files mean; it becomes DIR/README.md."""

    name: str
    consumer: str
    page: str
    write: Writer

    def text(self) -> str:
        """The page of this format."""
        return (files("profiler.exports") / "pages" / self.page).read_text(encoding="utf-8")


def export(
    profiles: Sequence[ServerProfile], to: ExportFormat, folder: Path, settings: ExportSettings | None = None
) -> Export:
    """Write `profiles` into `folder` (missing or empty) with a README.md.

    Raises ExportError when a profile lacks what the format needs, OutsideDomainError when a request was named that a
    measured profile does not cover.
    """
    settings = settings or ExportSettings()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is whole: a failed export leaves nothing behind.
    with TemporaryDirectory(dir=folder.parent) as scratch:
        staged = Path(scratch) / "export"
        staged.mkdir()
        done = to.write(profiles, staged, settings)
        notes = [note for profile in profiles for note in _reach(profile, settings)] + list(done.notes)
        readme = staged / "README.md"
        readme.write_text(to.text() + "\n" + _this_export(profiles, notes), encoding="utf-8")
        staged.rename(folder)
    written = (*done.files, readme)
    return Export(files=tuple(folder / path.relative_to(staged) for path in written), notes=tuple(notes))


def _reach(profile: ServerProfile, settings: ExportSettings) -> list[str]:
    if settings.extrapolate:
        return [f"{profile.name}: extrapolated beyond what was measured"] if profile.domain is not None else []
    times = StepTimes(profile, max_context_tokens=settings.max_context_tokens)
    if not times.is_cut():
        return []
    return [
        f"{profile.name}: grids end where the measurements do: prompts of {times.largest_prompt_tokens} tokens,"
        f" {times.largest_seqs(1)} sequences, {times.largest_context_tokens} tokens of context (--extrapolate goes"
        " further)"
    ]


def _this_export(profiles: Sequence[ServerProfile], notes: Sequence[str]) -> str:
    lines = ["## This export", ""]
    for profile in profiles:
        gpus = f"{profile.gpu.count} x {profile.gpu.type}"
        lines.append(f"- `{profile.name}`: {profile.model.name} on {gpus}, {profile.kind}. {profile.provenance.source}")
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"
