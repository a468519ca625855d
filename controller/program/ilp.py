"""The long-term program of SageServe (stated in `formulation`), solved: by which route, and how good the answer is.

The route ends as soon as the plan is within the gap that is asked for, or out of time:

1. The linear relaxation gives a bound, and what each row is worth. It runs to its end whatever the time limit.
2. Its fractions are rounded and repaired (`repair`), and single exchanges make that cheaper (`exchange`); so is the
   plan that stands (up to MIDDLE), and the cheaper of the two is taken. From here on there is a plan, with its gap.
3. Up to SMALL placements, branch and bound over the whole, started from the plan.
   Up to MIDDLE, first models one at a time (`search.model_by_model`), then branch and bound from there.
   Above, models one at a time, then a better bound one model at a time (`rents`).

Where no plan is known to satisfy the rows with demand or minimum, what there is gets shared out first (`shortfall`),
and then comes the cheapest plan with these shortfalls by the same route.
"""

from collections.abc import Mapping

import numpy as np

from controller.program.demand import Demand
from controller.program.exchange import exchanged
from controller.program.highs import Stopwatch
from controller.program.problem import DEFAULT_SETTINGS, ScalingProblem, ScalingSolution, SolverSettings
from controller.program.relaxation import Relaxation, relax
from controller.program.rents import tighter_bound
from controller.program.repair import repaired, rounded
from controller.program.search import Found, branch_and_bound, model_by_model
from controller.program.shortfall import shared_out, unserved_tokens_per_s
from controller.program.table import DUST, Ints, Table, tabulate
from controller.types import FleetLimits, Placement, SolveReport

__all__ = [
    "DEFAULT_SETTINGS",
    "ScalingProblem",
    "ScalingSolution",
    "SolverSettings",
    "check_limits",
    "solve",
    "unserved_tokens_per_s",
]

SMALL = 100
"""Placements; 4 models x 3 regions x 1 GPU type are 12, done in milliseconds."""
MIDDLE = 2000
"""20 x 10 x 3 are 600, done in a second; at 12,000 branch and bound proves little in minutes."""
_SHORTFALL_SLACK = 0.005
"""Of each row, when demand cannot be served anyway: without it the cheapest such plan is as hard as a puzzle."""


def solve(problem: ScalingProblem, settings: SolverSettings = DEFAULT_SETTINGS) -> ScalingSolution:
    """The cheapest counts that serve the demand, or fall least short of it; deterministic, and silent.

    Objective, bound and gap are USD of the period (or GPU-hours): running costs of all of x, and start-up costs. Where
    a shortfall is reported they are those of the cheapest plan with that shortfall.
    """
    stopwatch, table = Stopwatch(), tabulate(problem)
    if not np.any(table.most > 0):
        nothing = Found(counts=np.zeros_like(table.most), cost=0.0, bound=0.0, route="no placement has room")
        note = "" if table.reaches_all(nothing.counts) else "with a shortfall"
        return _solution(problem, table, nothing, None, note, settings, stopwatch)
    relaxation, found, note = relax(table), None, ""
    if relaxation is not None:
        found = _start(table, relaxation) or _first_plan(table, relaxation, settings)
    if relaxation is None or found is None:
        few = len(table.placements) <= SMALL
        counts = shared_out(table, by_branching=few, time_limit_s=settings.time_limit_s)
        table, note = table.lowered_to(counts, slack=_SHORTFALL_SLACK if few else 0.0), "with a shortfall"
        relaxation = relax(table)
        if relaxation is None:
            shared = Found(counts=counts, cost=table.cost(counts), bound=-np.inf, route="shared out, no bound")
            return _solution(problem, table, shared, None, note, settings, stopwatch)
        held = Found(counts=counts, cost=table.cost(counts), bound=relaxation.bound, route="shared out")
        found = _start(table, relaxation, counts) or held
    return _solution(
        problem, table, _improved(table, found, relaxation, settings, stopwatch), relaxation, note, settings, stopwatch
    )


def check_limits(limits: FleetLimits) -> None:
    """For scenarios, before a run: raise ValueError when the minimum of every pool does not fit the GPU quotas."""
    nothing = Demand(local={}, anywhere={})
    table = tabulate(ScalingProblem(limits=limits, standing={}, demand=nothing, epsilon=0.0, period_s=3600.0))
    if not table.placements:
        raise ValueError(
            "no model can be served anywhere: no (model, GPU type) with a capacity has a GPU quota in any region; "
            "give a profile for a GPU type that a region owns"
        )
    counts = shared_out(table, by_branching=True, time_limit_s=DEFAULT_SETTINGS.time_limit_s)
    short = np.flatnonzero(table.servers(counts) < table.minimum - DUST)
    if len(short):
        raise ValueError(
            f"min_servers={limits.min_servers} of every model in every region does not fit the GPU quotas "
            f"(first pool without room: {table.pools[short[0]]}); lower min_servers, or give the region more GPUs"
        )


def _start(table: Table, relaxation: Relaxation, known: Ints | None = None) -> Found | None:
    """The cheapest of plans near the relaxation's, near what stands, `known`; None when none reaches the rows."""
    candidates = [(rounded(table, relaxation), "rounded")]
    if len(table.placements) <= MIDDLE:
        candidates.append((repaired(table, table.standing, relaxation), "as it stood"))
    plans = [(exchanged(table, counts), route) for counts, route in candidates]
    if known is not None:
        plans.append((exchanged(table, known), "shared out"))
    plans = [(counts, route) for counts, route in plans if table.reaches_all(counts)]
    if not plans:
        return None
    counts, route = min(plans, key=lambda plan: table.cost(plan[0]))
    return Found(counts=counts, cost=table.cost(counts), bound=relaxation.bound, route=route)


def _first_plan(table: Table, relaxation: Relaxation, settings: SolverSettings) -> Found | None:
    """Where rounding reaches no plan, branch and bound may, unless there are too many placements for it."""
    if len(table.placements) > MIDDLE:
        return None
    counts, ending = branch_and_bound(table, None, gap=settings.gap, time_limit_s=settings.time_limit_s)
    if counts is None or not table.holds(counts):
        return None
    bound = max(relaxation.bound, -np.inf if ending.bound is None else ending.bound)
    return Found(counts=counts, cost=table.cost(counts), bound=bound, route="branch and bound")


def _improved(
    table: Table, found: Found, relaxation: Relaxation, settings: SolverSettings, stopwatch: Stopwatch
) -> Found:
    """`found` or better, with a bound as good or better."""
    gap, until_s, size = settings.gap, settings.time_limit_s, len(table.placements)
    if size > SMALL and found.gap > gap:
        found = model_by_model(table, found, relaxation, gap=gap, stopwatch=stopwatch, until_s=until_s)
    left_s = until_s - stopwatch.seconds()
    if found.gap <= gap or left_s <= 0:
        return found
    if size > MIDDLE:
        return tighter_bound(table, found, relaxation, gap=gap, stopwatch=stopwatch, until_s=until_s)
    counts, ending = branch_and_bound(table, found.counts, gap=gap, time_limit_s=left_s)
    better = counts is not None and table.holds(counts) and table.cost(counts) < found.cost
    bound = max(found.bound, -np.inf if ending.bound is None else ending.bound)
    if counts is None or not better:
        return Found(counts=found.counts, cost=found.cost, bound=bound, route=found.route)
    return Found(counts=counts, cost=table.cost(counts), bound=bound, route="branch and bound")


def _solution(
    problem: ScalingProblem,
    table: Table,
    found: Found,
    relaxation: Relaxation | None,
    note: str,
    settings: SolverSettings,
    stopwatch: Stopwatch,
) -> ScalingSolution:
    counts: Mapping[Placement, int] = dict(zip(table.placements, found.counts.tolist(), strict=True))
    # Within rounding errors of the two sums a bound may lie above the cost.
    bound = min(found.bound, found.cost)
    words = "Optimal Solution Found" if found.gap <= settings.gap + DUST else "Solution Found"
    report = SolveReport(
        termination=": ".join(filter(None, (words, found.route, note))),
        objective=found.cost,
        best_bound=float(bound) if np.isfinite(bound) else None,
        gap=float(found.gap) if np.isfinite(bound) else None,
        shortfall_tokens_per_s=unserved_tokens_per_s(problem, counts),
        variables=0 if relaxation is None else relaxation.variables,
        constraints=0 if relaxation is None else relaxation.constraints,
        solve_wall_s=stopwatch.seconds(),
        binding=() if relaxation is None else relaxation.binding,
    )
    return ScalingSolution(counts=counts, report=report)
