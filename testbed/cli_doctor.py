"""`testbed doctor`: what this machine offers."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testbed.bad_input import FAILED
from testbed.doctor import diagnose, modes
from testbed.scenario import Mode

stdout = Console()


def doctor() -> None:
    """Tell what this machine offers, and which modes it can run. Exit code 1 when not even virtual mode can."""
    findings = diagnose()
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        advice = f"  [dim]→ {escape(finding.advice)}[/]" if not finding.ok and finding.advice else ""
        mark = "[green]ok[/]" if finding.ok else "[yellow]missing[/]"
        table.add_row(mark, finding.name, f"{escape(finding.detail)}{advice}")
    stdout.print(table)
    lacking = modes(findings)
    for mode, missing in lacking.items():
        stdout.print(f"mode {mode}: " + (f"[yellow]needs {', '.join(missing)}[/]" if missing else "[green]can run[/]"))
    if lacking[Mode.VIRTUAL.value]:
        raise SystemExit(FAILED)
