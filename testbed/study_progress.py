"""Shows how far a sweep is: a bar in a terminal, a line per run elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from results.quantities import hours, percent
from results.study_record import StudyRun
from testbed.study_runs import PlannedRun
from testbed.study_sweep import SweepView


class _Bar(Protocol):
    def update(self, *, completed: int | None = None, total: int | None = None, under_way: str = "") -> None: ...


class _Shown:
    """A SweepView over a console: every run that ends is a line, above the bar where there is one."""

    def __init__(self, console: Console, bar: _Bar) -> None:
        self._console = console
        self._bar = bar
        self._done = 0
        self._total = 0
        self._under_way: list[str] = []

    def told(self, line: str) -> None:
        self._console.print(escape(line), style="yellow", soft_wrap=True, highlight=False)

    def round_begins(self, finished: int, total: int) -> None:
        if finished != self._done:
            self._console.print(f"{finished} of {total} runs are done already", highlight=False)
        self._done, self._total = finished, total
        self._redraw()

    def run_begins(self, run: PlannedRun) -> None:
        self._under_way.append(run.label)
        self._redraw()

    def run_ended(self, run: PlannedRun, result: StudyRun | None, error: str) -> None:
        self._under_way.remove(run.label)
        self._done += 1
        place = f"[{self._done}/{self._total}]"
        if result is None:
            text = f"{place} {run.label}: failed: {error}"
        else:
            text = f"{place} {run.label}: {hours(result.gpu_hours)} GPU-hours, {percent(result.missed)} missed"
        style = "red" if result is None else None
        self._console.print(escape(text), style=style, soft_wrap=True, highlight=False)
        self._redraw()

    def _redraw(self) -> None:
        self._bar.update(completed=self._done, total=self._total, under_way="; ".join(self._under_way))


class _NoBar:
    def update(self, *, completed: int | None = None, total: int | None = None, under_way: str = "") -> None:
        """Lines say it all."""


class _RichBar:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def update(self, *, completed: int | None = None, total: int | None = None, under_way: str = "") -> None:
        self._progress.update(self._task, completed=completed, total=total, description=escape(under_way))


@contextmanager
def show_sweep(console: Console) -> Iterator[SweepView]:
    """A view of a sweep while the context lasts."""
    if not console.is_terminal:
        yield _Shown(console, _NoBar())
        return
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Shown(progress.console, _RichBar(progress))
