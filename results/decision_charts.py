"""Every scaling decision on a time line: what it changed where, why, and what the solver said."""

from collections.abc import Sequence

from results.charts import Chart, ChartGroup
from results.decisions import Decision
from results.drawing import Mark
from results.plot import Plot
from results.quantities import clock, percent, seconds
from results.scales import Scale, decades, from_zero, run_time

# More marks than this no page shows and no eye tells apart.
MOST_MARKS = 3000
_LANE_PX = 15
_WIDTH_PX = 1100
_MORE, _FEWER = "#2ea36b", "#e8833a"
_PROVED, _TROUBLED = "#3b82f6", "#e05252"


def troubled(decision: Decision) -> bool:
    """Whether its solver did not prove an optimum, or left demand unserved."""
    solve = decision.solve
    return solve is not None and (
        not solve.termination.lower().startswith("optimal") or solve.shortfall_tokens_per_s > 0
    )


def solver_text(decision: Decision) -> str:
    """The solver's status, gap and time; "" where nothing was solved."""
    solve = decision.solve
    if solve is None:
        return ""
    gap = "" if solve.gap is None else f", gap {percent(solve.gap)}"
    short = f", short of {solve.shortfall_tokens_per_s:,.0f} tokens/s" if solve.shortfall_tokens_per_s > 0 else ""
    return f"{solve.termination}{gap}, {seconds(solve.solve_wall_s)}{short}"


def decision_group(decisions: Sequence[Decision], acted: int, end_s: float) -> ChartGroup | None:
    """`decisions` are those shown of the `acted` that did something; None when none did."""
    if not decisions:
        return None
    charts = [_lanes(decisions, end_s)]
    if any(decision.solve is not None for decision in decisions):
        charts.append(_solver(decisions, end_s))
    left_out = f" The {len(decisions):,} most telling of {acted:,}." if len(decisions) < acted else ""
    return ChartGroup(
        title="Decisions on a time line",
        charts=tuple(charts),
        legend=(
            Mark(label="servers added", colour=_MORE, kind="square"),
            Mark(label="servers taken away", colour=_FEWER, kind="square"),
            Mark(label="solved to a proved optimum", colour=_PROVED, kind="dot"),
            Mark(label="not proved, or demand left unserved", colour=_TROUBLED, kind="dot"),
        ),
        note=f"Point at a mark for its reason. Larger marks change more servers.{left_out}",
        shown=True,
    )


def _lanes(decisions: Sequence[Decision], end_s: float) -> Chart:
    names = sorted({str(step.placement) for decision in decisions for step in decision.steps})
    lane = {name: len(names) - 1 - index for index, name in enumerate(names)}
    y = Scale(low=-0.7, high=max(len(names), 1) - 0.3, ticks=tuple((float(lane[name]), name) for name in names))
    height = max(30, _LANE_PX * len(names))
    plot = Plot("Decisions by placement", run_time(end_s, ticks=14), y, width=_WIDTH_PX, height=height)
    budget = MOST_MARKS
    for decision in decisions:
        for step in decision.steps[:budget]:
            told = f"{clock(decision.at_s)}  {step.placement} {step.change:+d}: {step.reason}"
            if solved := solver_text(decision):
                told += f" ({solved})"
            more = step.change > 0
            size = min(2.0 + abs(step.change), 6.0)
            place = float(lane[str(step.placement)])
            plot.mark(decision.at_s, place, _MORE if more else _FEWER, "up" if more else "down", size, told)
        budget -= min(budget, len(decision.steps))
    return Chart(title="Changes by placement", plots=(plot.svg(),))


def _solver(decisions: Sequence[Decision], end_s: float) -> Chart:
    solved = [decision for decision in decisions if decision.solve is not None]
    gaps = [decision.solve.gap or 0.0 for decision in solved if decision.solve is not None]
    walls = [max(decision.solve.solve_wall_s, 1e-4) for decision in solved if decision.solve is not None]
    time = run_time(end_s, ticks=14)
    above = Plot(
        "Solver's gap",
        time.untitled,
        from_zero(max(*gaps, 1e-3), show=lambda value: f"{value * 100:g} %", ticks=3),
        width=_WIDTH_PX,
        height=50,
    )
    below = Plot("Solver's time", time, decades(min(walls), max(walls), seconds), width=_WIDTH_PX, height=50)
    for decision, gap, wall in zip(solved, gaps, walls, strict=True):
        ink, told = _TROUBLED if troubled(decision) else _PROVED, f"{clock(decision.at_s)}  {solver_text(decision)}"
        above.mark(decision.at_s, gap, ink, "dot", 2.2, told)
        below.mark(decision.at_s, wall, ink, "dot", 2.2, told)
    return Chart(title="The program: gap above, solving time below", plots=(above.svg(), below.svg()))
