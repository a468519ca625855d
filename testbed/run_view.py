"""How a run is shown under way: in the terminal, and as a dashboard where one is asked for."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from testbed.dashboard.thread import serve_dashboard
from testbed.live_events import Listener
from testbed.live_run import LiveRuns
from testbed.live_snapshot import RunFacts
from testbed.policy_run import Progress
from testbed.progress import show_progress
from testbed.run import Experiment, ProgressView


@contextmanager
def run_view(experiment: Experiment, console: Console, dashboard: socket.socket | None) -> Iterator[ProgressView]:
    """What shows the policies of a run, one after the other; `dashboard` is where a page of them is served.

    A run that nobody can see live is not listened to.
    """
    runs = LiveRuns(run_facts(experiment)) if dashboard is not None or console.is_terminal else None

    @contextmanager
    def shown(progress: Progress) -> Iterator[Listener | None]:
        if runs is None:
            with show_progress(progress, console):
                yield None
            return
        live = runs.begin(progress.policy, progress.offered, lambda: progress.arrived)
        with show_progress(progress, console, live):
            try:
                yield live.tell
            finally:
                live.end()

    if runs is None or dashboard is None:
        yield shown
        return
    with serve_dashboard(runs, dashboard) as address:
        console.print(f"dashboard: {address}", soft_wrap=True)
        yield shown


def run_facts(experiment: Experiment) -> RunFacts:
    scenario = experiment.setting.scenario
    return RunFacts(
        scenario=scenario.name,
        mode=scenario.mode.value,
        seed=scenario.seed,
        policies=tuple(experiment.policies),
        horizon_s=experiment.setting.load.trace.horizon_s,
        grace_s=scenario.grace_s,
        demand_bin_s=scenario.demand_bin_s,
        slos=scenario.slos(),
    )
