"""Every scaling decision on a time line: what it changed where, why, and what the solver said."""

from collections.abc import Sequence
from math import ceil

from controller.types import Placement, Step
from results.charts import Chart, ChartGroup
from results.decisions import Decision
from results.drawing import Mark
from results.plot import Plot
from results.quantities import clock, percent, seconds
from results.scales import Scale, decades, from_zero, run_time

# Many more marks than this no page shows and no eye tells apart.
MOST_MARKS = 3000
_LANE_PX = 15
_WIDTH_PX = 1100

_MORE = Mark(label="servers added", colour="#2ea36b", kind="square")
_FEWER = Mark(label="servers taken away", colour="#e8833a", kind="square")
_PROVED = Mark(label="solved to a proved optimum", colour="#3b82f6", kind="dot")
_TROUBLED = Mark(label="not proved, or demand left unserved", colour="#e05252", kind="dot")


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
    marks = [(decision, step) for decision in decisions for step in decision.steps]
    drawn = _thinned(marks)
    charts = [_lanes(drawn, end_s)]
    if any(decision.solve is not None for decision in decisions):
        charts.append(_solver(decisions, end_s))
    left_out = ""
    if len(decisions) < acted:
        left_out += f" {len(decisions):,} of {acted:,} decisions: the most telling, the rest evenly spaced."
    if len(drawn) < len(marks):
        left_out += f" {len(drawn):,} of {len(marks):,} marks: evenly spaced ones of each placement."
    return ChartGroup(
        title="Decisions on a time line",
        charts=tuple(charts),
        legend=(_MORE, _FEWER, _PROVED, _TROUBLED),
        note=f"Point at a mark for its reason. Larger marks change more servers.{left_out}",
        shown=True,
    )


def _thinned(marks: Sequence[tuple[Decision, Step]]) -> list[tuple[Decision, Step]]:
    """Every n-th mark of each placement, so that no part of the run and no placement goes missing."""
    every = max(1, ceil(len(marks) / MOST_MARKS))
    by_placement: dict[Placement, list[tuple[Decision, Step]]] = {}
    for decision, step in marks:
        by_placement.setdefault(step.placement, []).append((decision, step))
    return [mark for lane in by_placement.values() for mark in lane[::every]]


def _lanes(marks: Sequence[tuple[Decision, Step]], end_s: float) -> Chart:
    names = sorted({str(step.placement) for _, step in marks})
    lane = {name: len(names) - 1 - index for index, name in enumerate(names)}
    y = Scale(low=-0.7, high=max(len(names), 1) - 0.3, ticks=tuple((float(lane[name]), name) for name in names))
    height = max(30, _LANE_PX * len(names))
    plot = Plot("Decisions by placement", run_time(end_s, ticks=14), y, width=_WIDTH_PX, height=height)
    for decision, step in marks:
        told = f"{clock(decision.at_s)}  {step.placement} {step.change:+d}: {step.reason}"
        if solved := solver_text(decision):
            told += f" ({solved})"
        more = step.change > 0
        ink = (_MORE if more else _FEWER).colour
        size = min(2.0 + abs(step.change), 6.0)
        plot.mark(decision.at_s, float(lane[str(step.placement)]), ink, "up" if more else "down", size, told)
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
        ink = (_TROUBLED if troubled(decision) else _PROVED).colour
        told = f"{clock(decision.at_s)}  {solver_text(decision)}"
        above.mark(decision.at_s, gap, ink, "dot", 2.2, told)
        below.mark(decision.at_s, wall, ink, "dot", 2.2, told)
    return Chart(title="The program: gap above, solving time below", plots=(above.svg(), below.svg()))
