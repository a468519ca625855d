"""`testbed clean`: the end of what killed testbeds left."""

from typing import Annotated

import typer
from rich.console import Console

from testbed.bad_input import FAILED
from testbed.clean import LeftGroup, Leftovers, end, leftovers
from testbed.process_record import RUN

stdout = Console(highlight=False)


def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")] = False,
) -> None:
    """End what testbeds of yours that were killed left on this machine, and remove their temporary files.

    A process is ended only if it is one that a testbed recorded, by its number and its start, and that testbed is gone.
    What belongs to a run that goes on is left alone, and so is every run folder. Exit code 1 when something is left.
    """
    left = leftovers()
    _tell(left, dry_run)
    if dry_run:
        return
    withstand = end(left)
    for group in withstand:
        stdout.print(f"[red]still runs[/]  {_group(group)}: it withstands SIGKILL; see dmesg", soft_wrap=True)
    if withstand or left.unknown:
        raise SystemExit(FAILED)


def _tell(left: Leftovers, dry_run: bool) -> None:
    would = "would " if dry_run else ""
    lines = [f"{would}end      {_group(group)}" for group in left.groups]
    lines += [
        f"left alone  {_group(group)}: none of these was recorded; if they are the testbed's, end them with kill"
        for group in left.unknown
    ]
    for run in left.runs:
        if run.folder.is_dir():
            files = f", {len(run.temporary)} temporary files" if run.temporary else ""
            lines.append(f"killed run  {run.folder}{files}: `testbed report` reads it")
    runs = [record for record in left.going_on if record.what == RUN]
    lines += [f"going on    {record.folder} (process {record.owner_pid}): left alone" for record in runs]
    removed = {
        "records": len(left.stale) + len(left.runs),
        "temporary folders": len(left.folders),
        "files of shared memory": len(left.shared_memory),
    }
    if any(removed.values()):
        counts = ", ".join(f"{number} {what}" for what, number in removed.items() if number)
        lines.append(f"{would}remove   {counts}")
    if left.elsewhere:
        lines.append(f"left alone  {len(left.elsewhere)} records of other machines, containers or versions")
    for line in lines or ["nothing is left of earlier runs on this machine"]:
        stdout.print(line, soft_wrap=True, markup=False)


def _group(group: LeftGroup) -> str:
    pids = ", ".join(map(str, group.pids))
    of = f" of {group.record.folder}" if group.record.folder else ""
    return f"{group.record.what}{of} (processes {pids})"
