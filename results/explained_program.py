"""What a decision reckoned with, as tables: forecasts, and what binds in the program."""

from collections.abc import Sequence

from controller.types import Forecast, Observation, Pool, ScalingPlan, SolveReport
from results.quantities import clock, percent
from results.text_table import TextTable

_FAMILIES = {
    "local": "local share of a pool",
    "global": "all demand of a model",
    "quota": "GPUs of a region",
    "minimum": "minimum of a pool",
}


def forecast_tables(
    decisions: Sequence[tuple[Observation, ScalingPlan]], index: int, pool: Pool | None
) -> list[TextTable]:
    """The forecasts in force and when they were made; none for a policy that does not forecast."""
    seen, plan = decisions[index]
    forecasts = {p: f for p, f in plan.memory.forecasts.items() if pool is None or p == pool}
    if not forecasts:
        return []
    made = index
    while made > 0 and decisions[made - 1][1].memory.forecasts == plan.memory.forecasts:
        made -= 1
    remarks: dict[str, list[str]] = {}
    for of, forecast in forecasts.items():
        because = [f"fell back: {forecast.fell_back_because}"] if forecast.fell_back_because else []
        for remark in (*because, *dict.fromkeys(forecast.warnings)):
            remarks.setdefault(remark, []).append(str(of))
    return [
        TextTable(
            title=f"What was forecast, at {clock(decisions[made][0].at_s)}: tokens/s",
            columns=("from", "method", "for", "mean now", "highest mean", "highest upper", "fell back"),
            rows=tuple(_forecast_row(p, f, seen.at_s) for p, f in forecasts.items()),
            notes=tuple(f"{', '.join(of)}: {remark}" for remark, of in remarks.items()),
        )
    ]


def _forecast_row(pool: Pool, forecast: Forecast, at_s: float) -> tuple[str, ...]:
    until_s = forecast.from_s + forecast.step_s * len(forecast.mean_tokens_per_s)
    step = int((at_s - forecast.from_s) // forecast.step_s)
    covered = 0 <= step < len(forecast.mean_tokens_per_s)
    return (
        str(pool),
        forecast.method,
        f"{clock(forecast.from_s)} to {clock(until_s)}",
        f"{forecast.mean_tokens_per_s[step]:,.0f}" if covered else "-",
        f"{forecast.peak_mean_tokens_per_s:,.0f}",
        f"{forecast.peak_upper_tokens_per_s:,.0f} ({percent(forecast.upper_quantile)})",
        "yes" if forecast.fell_back_because else "no",
    )


def program_tables(
    decisions: Sequence[tuple[Observation, ScalingPlan]], index: int, pool: Pool | None
) -> list[TextTable]:
    """The last program solved up to this decision: how it ended, and what binds in it; none where none was solved."""
    solved = next((i for i in range(index, -1, -1) if decisions[i][1].solve is not None), None)
    if solved is None:
        return []
    report = decisions[solved][1].solve
    assert report is not None
    at_s, until_s = decisions[solved][0].at_s, decisions[solved][1].memory.budget_until_s
    standing = f"; its counts are the budget until {clock(until_s)}" if until_s > at_s else ""
    bound = "none" if report.best_bound is None else f"{report.best_bound:,.6g}"
    gap = "" if report.gap is None else f" (gap {percent(report.gap)})"
    return [
        TextTable(
            title=f"What the program said, at {clock(at_s)}",
            columns=("", ""),
            rows=(
                ("ended with", report.termination),
                ("objective", f"{report.objective:,.6g}"),
                ("best bound", f"{bound}{gap}"),
                ("demand not served", f"{report.shortfall_tokens_per_s:,.0f} tokens/s"),
                ("size", f"{report.variables:,} variables, {report.constraints:,} constraints"),
            ),
            lead=f"Solved {'for this decision' if solved == index else 'earlier'}{standing}.",
            prose=True,
        ),
        _binding_table(report, pool),
    ]


def _binding_table(report: SolveReport, pool: Pool | None) -> TextTable:
    rows = [
        (_FAMILIES.get(row.family, row.family), row.subject, f"{row.shadow_price:,.4g}")
        for row in sorted(report.binding, key=lambda row: -abs(row.shadow_price))
        if pool is None or row.subject in (str(pool), pool.model) or row.subject.startswith(pool.region)
    ]
    return TextTable(
        title="What binds in it",
        columns=("constraint", "of", "shadow price"),
        rows=tuple(rows),
        lead="" if rows else "No row is recorded as binding.",
        notes=("Shadow price: what one more unit of the right side costs in the objective, in the LP relaxation.",)
        if rows
        else (),
    )
