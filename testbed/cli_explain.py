"""`testbed explain`: why a policy did what it did."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from controller.types import Pool
from results.explanation import Decided, UnreadableDecisions, changes_table, changing, decisions_of, explain, latest_at
from results.manifest import ManifestError
from results.quantities import clock
from results.run_folder import PolicyFolder, RunFolder
from results.schema import DECISIONS_FILE
from testbed.bad_input import BadInput
from testbed.strict import nearest
from testbed.terminal_tables import print_tables

stdout = Console()


def explain_run(
    run_folder: Annotated[Path, typer.Argument(help="A run folder, finished or not.", metavar="RUN")],
    policy: Annotated[str | None, typer.Option(help="Of which policy. Default: of each that the run has.")] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The decision in force then: seconds, H:MM or H:MM:SS of the run."),
    ] = None,
    pool: Annotated[
        str | None, typer.Option(metavar="MODEL@REGION", help="Only what concerns one model in one region.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="List the last N decisions that changed something, up to --at."),
    ] = None,
) -> None:
    """Explain a decision: what was seen, what was forecast, what binds in the program, what was done and why.

    Without --at, the last decision that changed something.
    """
    at_s = None if at is None else _seconds(at)
    try:
        run = RunFolder.open(run_folder)
    except ManifestError as error:
        raise BadInput(str(error)) from error
    for folder in _policies(run, policy):
        decisions = _decisions(run, folder)
        asked = None if pool is None else _pool(pool, decisions)
        index = _index(folder, decisions, at_s, asked)
        if last is not None:
            upto = len(decisions) - 1 if at_s is None else index
            indices = [each for each in changing(decisions, asked) if each <= upto][-last:]
            print_tables(stdout, [changes_table(folder.name, decisions, indices, asked)])
        else:
            print_tables(stdout, explain(folder.name, decisions, index, asked))


def _policies(run: RunFolder, name: str | None) -> tuple[PolicyFolder, ...]:
    begun = {folder.name: folder for folder in run.policies()}
    if name is None:
        if not begun:
            raise BadInput(f"{run.path}: no policy of this run had begun; there is nothing to explain")
        return tuple(begun.values())
    if name not in begun:
        raise BadInput(f"--policy {name}: {run.path} has none of that name{nearest(name, begun)}")
    return (begun[name],)


def _decisions(run: RunFolder, folder: PolicyFolder) -> list[Decided]:
    path = folder.path / DECISIONS_FILE
    try:
        decisions = decisions_of(list(folder.decisions()))
    except UnreadableDecisions as error:
        commit = f", or explain it with commit {run.manifest.commit}" if run.manifest.commit else ""
        raise BadInput(f"{path}: {error}; run the scenario again{commit}") from error
    if not decisions:
        raise BadInput(f"{path} holds no decision; the run ended before its first")
    return decisions


def _index(folder: PolicyFolder, decisions: list[Decided], at_s: float | None, pool: Pool | None) -> int:
    """The decision in force at a time; without one the last that changed something, or the last of all."""
    if at_s is None:
        return (changing(decisions, pool) or [len(decisions) - 1])[-1]
    index = latest_at(decisions, at_s)
    if index is None:
        first_s = decisions[0][0].at_s
        raise BadInput(f"--at {clock(at_s)}: {folder.name} decided first at {clock(first_s)}; give a later time")
    return index


def _pool(text: str, decisions: list[Decided]) -> Pool:
    known = {str(placement.pool): placement.pool for placement in decisions[0][0].limits.placements()}
    if text not in known:
        raise BadInput(f"--pool {text}: not in this run{nearest(text, known)}")
    return known[text]


def _seconds(text: str) -> float:
    """Seconds of "43200", "12:00" or "12:00:30"."""
    match = re.fullmatch(r"(\d+):([0-5]\d)(?::([0-5]\d))?", text)
    if match:
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return hours * 3600.0 + minutes * 60.0 + seconds
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    raise BadInput(f"--at {text}: give seconds of the run, as 43200, or H:MM or H:MM:SS, as 12:00")
