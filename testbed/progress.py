"""Shows how far a run is: live tables in a terminal, plain lines elsewhere."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from testbed.live_run import LiveRun
from testbed.live_terminal import live_tables
from testbed.policy_run import Progress
from testbed.server import ServerState
from workloads.completion import Outcome

PLAIN_EVERY_S = 5.0


@contextmanager
def show_progress(progress: Progress, console: Console, live: LiveRun | None = None) -> Iterator[None]:
    """While the context lasts, show `progress`: redrawn by a thread of its own, so a busy run is not held up.

    In a terminal `live`, where it is given, tells of latencies and decisions too.
    """
    if console.is_terminal:
        with Live(get_renderable=lambda: _shown(progress, live), console=console, refresh_per_second=2, transient=True):
            yield
    else:
        with _plain_lines(progress, console):
            yield
    console.print(_line(progress), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _plain_lines(progress: Progress, console: Console) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(PLAIN_EVERY_S):
            console.print(_line(progress), highlight=False, markup=False, soft_wrap=True)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _line(progress: Progress) -> str:
    counts = progress.outcomes
    by_region = _servers_by_region(progress)
    servers = " ".join(f"{region}:{sum(states.values())}" for region, states in by_region.items())
    return (
        f"{progress.policy}  {clock_text(progress.now_s)} of {clock_text(progress.horizon_s)}  "
        f"{progress.ended:,}/{progress.offered:,} requests "
        f"({counts[Outcome.REJECTED]:,} rejected, {counts[Outcome.FAILED]:,} failed)  servers {servers or '-'}"
    )


def _shown(progress: Progress, live: LiveRun | None) -> RenderableType:
    return _table(progress) if live is None else Group(_table(progress), live_tables(live.snapshot()))


def _table(progress: Progress) -> RenderableType:
    head = Text.assemble(
        (progress.policy, "bold"),
        f"  {clock_text(progress.now_s)} of {clock_text(progress.horizon_s)}  ",
        f"{progress.ended:,} of {progress.offered:,} requests ended, ",
        f"{progress.arrived - progress.ended:,} under way ({progress.niw_queued:,} in the NIW queue)",
    )
    table = Table(box=None, pad_edge=False)
    asleep = any(state is ServerState.SLEEPING for _, state in progress.servers)
    shown = [s for s in ServerState if s is not ServerState.STOPPED and (asleep or s is not ServerState.SLEEPING)]
    table.add_column("region")
    for state in shown:
        table.add_column(state.value, justify="right")
    for region, states in _servers_by_region(progress).items():
        table.add_row(region, *(str(states.get(state, 0) or "·") for state in shown))
    bar = ProgressBar(total=max(progress.offered, 1), completed=progress.ended, width=60)
    # A bar alone does not end its line.
    return Group(head, Padding(bar, 0), table)


def _servers_by_region(progress: Progress) -> dict[str, dict[ServerState, int]]:
    found: dict[str, dict[ServerState, int]] = {}
    for (region, state), count in sorted(progress.servers.items()):
        found.setdefault(region, {})[state] = count
    return found


def clock_text(seconds: float) -> str:
    """Seconds as people read them: 45.0 s, 3:20 min, 17:05 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
