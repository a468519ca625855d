"""Runs a measurement with its progress on the terminal, and makes what can go wrong one line."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from profiler.progress import Progress, Tell
from profiler.server_facts import ServerFactsError
from profiler.target import MeasurementError
from testbed.bad_input import INTERRUPTED, BadInput, CommandFailed
from testbed.interruptible import interruptible
from testbed.server import ServerError
from testbed.sole_writer import sole_writer
from workloads.real_time_loop import real_time_loop

T = TypeVar("T")

stdout = Console()

# Where output is no terminal.
_LINE_EVERY_S = 30.0


def measured_with_progress(work: Callable[[Tell], Coroutine[Any, Any, T]], kept: Path | None) -> T:
    """The result of `work`, run on the real-time loop while its progress shows.

    Raises BadInput for what the user can mend, CommandFailed for what the server or the machine did wrong. An
    interruption ends the program. The line says where what was found is `kept`; meanwhile no other process measures
    there.
    """
    alone = nullcontext() if kept is None else sole_writer(kept.with_name(f".{kept.name}.lock"), str(kept))
    try:
        with alone, interruptible(), _shown() as tell, asyncio.Runner(loop_factory=real_time_loop) as runner:
            return runner.run(work(tell))
    except ServerFactsError as error:
        raise BadInput(str(error)) from error
    except (ServerError, MeasurementError) as error:
        raise CommandFailed(f"{error}{_where(kept)}") from error
    except KeyboardInterrupt:
        print(f"interrupted{_where(kept)}")
        raise SystemExit(INTERRUPTED) from None


def _where(kept: Path | None) -> str:
    if kept is None or not kept.exists():
        return ""
    return f"; what was found is kept in {kept}: the same command goes on from there"


@contextmanager
def _shown() -> Iterator[Tell]:
    """On a terminal one line that changes; elsewhere a line for each phase, and one now and then while it lasts."""
    if stdout.is_terminal:
        with stdout.status("starting") as status:

            def change(progress: Progress) -> None:
                left = f"{progress.left_s // 60:.0f}:{progress.left_s % 60:02.0f} left"
                status.update(f"[bold]{progress.phase}[/]  {progress.what}  [dim]{left}[/]")

            yield change
        return
    said: dict[str, float] = {}

    def line(progress: Progress) -> None:
        if progress.phase in said and said[progress.phase] - progress.left_s < _LINE_EVERY_S:
            return
        said[progress.phase] = progress.left_s
        stdout.print(
            f"{progress.phase}: {progress.what}  ({progress.left_s:.0f} s left)", highlight=False, markup=False
        )

    yield line
