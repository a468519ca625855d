"""What a description of a trace says, as rows of text for the terminal and for a page."""

from collections.abc import Sequence

from results.text_table import TextTable
from workloads.description import TraceDescription
from workloads.targets import TargetResult, Verdict


def target_table(results: Sequence[TargetResult]) -> TextTable:
    """The targets of production-style traces with their verdicts; its notes tell of which weeks some are measured."""
    weeks = sorted({result.on_week for result in results if result.on_week})
    return TextTable(
        title="Targets of production-style traces",
        columns=("#", "target", "measured", "wanted", "verdict", "note"),
        rows=tuple(_target_row(result) for result in results),
        notes=(*(f"* {week}" for week in weeks), f"targets: {target_counts(results)}"),
    )


def target_counts(results: Sequence[TargetResult]) -> str:
    """25 pass, 3 miss, 1 not applicable."""
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def statistics_table(description: TraceDescription) -> TextTable:
    """Everything that is told of the trace; a statistic that cannot be had says why."""
    return TextTable(
        title="Statistics",
        columns=("subject", "statistic", "value"),
        rows=tuple(
            (row.subject, row.statistic, f"- ({row.reason})" if row.value is None else f"{row.value:,.6g}")
            for row in description.to_rows()
        ),
    )


def _target_row(result: TargetResult) -> tuple[str, ...]:
    target, values = result.target, list(result.values.values())
    measured = "-" if not values else f"{min(values):,.4g}"
    if len(values) > 1:
        measured += f" .. {max(values):,.4g}"
    wanted = " or ".join(str(each) for each in target.wanted) or "as declared"
    note = "; ".join(part for part in (result.note, "of its weeks*" if result.on_week else "") if part)
    return (target.number, target.name, measured, wanted, str(result.verdict), note)
