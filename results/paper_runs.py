"""What the figures of SageServe's evaluation are drawn from, and what each of them is: a drawing and its numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from results.atomic_file import replace_text
from results.drawing import Drawing, Mark, MarkKind
from results.figures import PALETTE
from results.run_folder import RunFolder
from results.study_record import csv_text
from results.summary import PolicySummary


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperRun:
    """One policy's run on one workload.

    `case` is the workload, `policy` as it is labelled, `catalogue_name` its folder in the run. `apart_from_niw`: equal
    for cases that differ in the share of NIW requests alone. `hour_s`: an hour of the workload's day, in seconds of the
    run; `start_hour`: the hour of that day at which the run starts; `bursts`: whether the first minute of each hour
    asks more.
    """

    case: str
    policy: str
    catalogue_name: str
    seed: int
    folder: RunFolder
    summary: PolicySummary
    apart_from_niw: str
    hour_s: float
    start_hour: float
    bursts: bool

    @property
    def niw_share(self) -> float:
        """NIW requests, of all that were recorded."""
        recorded = self.summary.requests.total - self.summary.requests.not_recorded
        return self.summary.niw_before_deadline.total / recorded if recorded else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperFigure:
    """A drawing, and the numbers in it as a table."""

    drawing: Drawing
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def save(self, folder: Path, formats: Sequence[str]) -> list[Path]:
        """NAME.csv, and NAME.FORMAT for each format."""
        table = folder / f"{self.drawing.name}.csv"
        replace_text(table, csv_text(self.columns, self.rows))
        return [table, *(self.drawing.save(folder, file_format) for file_format in formats)]


def policies_of(runs: Sequence[PaperRun]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.policy for run in runs))


def mean_over_seeds(runs: Sequence[PaperRun], policy: str, take: Callable[[PaperRun], float | None]) -> float | None:
    """Of a policy's runs that have such a value; None where none has."""
    values = [value for run in runs if run.policy == policy and (value := take(run)) is not None]
    return sum(values) / len(values) if values else None


def colours_of(names: Sequence[str]) -> dict[str, str]:
    return {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(names)}


def marks_of(colours: Mapping[str, str], kind: MarkKind = "line") -> tuple[Mark, ...]:
    return tuple(Mark(label=name, colour=colour, kind=kind) for name, colour in colours.items())
