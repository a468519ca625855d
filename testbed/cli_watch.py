"""`testbed watch`: a recorded run as it happened."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from results.manifest import ManifestError
from results.run_folder import PolicyFolder, RunFolder
from testbed.bad_input import BadInput
from testbed.dashboard.thread import DEFAULT_HOST, DEFAULT_PORT, listen, serve_dashboard
from testbed.live_run import LiveRuns
from testbed.rerun import Rerun, recorded_facts
from testbed.strict import nearest

stdout = Console()

# Without --speed a policy takes so long.
LASTS_S = 60.0


def watch(
    run_folder: Annotated[Path, typer.Argument(help="A run folder, finished or not.", metavar="RUN")],
    policy: Annotated[str | None, typer.Option(help="Of which policy. Default: of each, one after the other.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="Seconds of the run per second; inf shows its end. Default: a policy takes a minute."),
    ] = None,
    dashboard_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where the page is served; 0 takes any free port.")
    ] = DEFAULT_PORT,
    dashboard_host: Annotated[
        str, typer.Option(help="Where the dashboard listens; beyond this machine everybody may look.")
    ] = DEFAULT_HOST,
) -> None:
    """Serve the dashboard of a recorded run, which happens again at any speed. Ctrl-C ends it."""
    if speed is not None and not speed > 0:
        raise BadInput(f"--speed {speed:g}: give seconds of the run per second, above 0")
    try:
        run = RunFolder.open(run_folder)
    except ManifestError as error:
        raise BadInput(str(error)) from error
    folders = _folders(run, policy)
    runs = LiveRuns(recorded_facts(run))
    pace = run.manifest.horizon_s / LASTS_S if speed is None else speed
    with (
        listen(dashboard_host, dashboard_port) as listening,
        serve_dashboard(runs, listening) as address,
    ):
        stdout.print(f"dashboard: {address} (Ctrl-C ends it)", soft_wrap=True)
        try:
            asyncio.run(_play(run, folders, runs, pace))
        except KeyboardInterrupt:
            return


async def _play(run: RunFolder, folders: tuple[PolicyFolder, ...], runs: LiveRuns, speed: float) -> None:
    for folder in folders:
        await Rerun(run.manifest, folder, runs).play(speed)
    # The end stays in sight.
    await asyncio.Event().wait()


def _folders(run: RunFolder, name: str | None) -> tuple[PolicyFolder, ...]:
    begun = {folder.name: folder for folder in run.policies()}
    if not begun:
        raise BadInput(f"{run.path}: no policy of this run had begun; there is nothing to watch")
    if name is None:
        return tuple(begun.values())
    if name not in begun:
        raise BadInput(f"--policy {name}: {run.path} has none of that name{nearest(name, begun)}")
    return (begun[name],)
