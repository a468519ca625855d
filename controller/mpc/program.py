"""Where servers go when models compete for GPUs, GPU types differ, or distance has a price: an integer program.

Its variables and rows are in `controller.mpc.statement`. Everything is served wherever GPUs allow that. Where they do
not, the least shortage is found first and the cheapest plan with that after it: at a price for what is missing a small
need would be cheaper to leave than to serve, and a gap of the cost would be worth many servers.

Up to some hundred placements the whole is solved in a second. Where it takes longer, models are placed one at a time
while the others stand, which comes to within half a per cent of the bound (20 models x 10 regions x 3 GPU types: 0.4 to
0.6 % in six seconds, where branch and bound over the whole is at 1.5 % after five).

One step of the horizon is enough: a need is the peak from now to the lead's end, and in a program of several steps
whose only costs are holding and starting, every server stands or falls alone (a network matrix, see
`controller.bound`): it is kept exactly while the next need of it is nearer than a start costs, which is what the peak
over the lead says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from controller.mpc.statement import SLACK, PlacingProblem, Statement, stated
from controller.program.highs import Ending, Stopwatch, relative_gap, run
from controller.types import Placement, SolveReport

_GAP = 0.002
"""Of the cost: a smaller gain is not worth a change, and to prove it takes ten times as long."""
_WHOLE = 0.2
"""Of the time limit: after that, models one at a time find more."""
_PAYS = 1e-6
_SHARING_GAP = 0.001
"""Of all that is asked: what is missing is shared out so near to the least."""
_LESS_THAN_ONE = 0.9
"""Of servers."""
_NOISE = 1e-6
_NONE = "No Solution Found, standing servers kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingSolution:
    """Servers for every placement, and how the solver came to them."""

    counts: Mapping[Placement, int]
    report: SolveReport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Counts of the placements that can serve, what they cost (infinite where they are no plan) and leave unserved."""

    counts: Mapping[Placement, int]
    cost: float
    unserved_tokens_per_s: float


def place(problem: PlacingProblem) -> PlacingSolution:
    """The cheapest counts that serve the most. Demand beyond all GPUs is left unserved and reported; the standing
    counts are the answer, by name, where the solver finds none within `time_limit_s` for each of its steps.
    """
    statement, stopwatch = stated(problem), Stopwatch()
    standing = {p: problem.standing.get(p, 0) for p in problem.limits.placements()}
    found = _whole(statement, problem)
    if found.objective is None:
        kept = _Plan(counts=standing, cost=0.0, unserved_tokens_per_s=problem.asked_tokens_per_s)
        nothing = replace(found, bound=None, termination=_NONE)
        return PlacingSolution(counts=standing, report=_report(problem, nothing, kept, stopwatch))
    counts: Mapping[Placement, int] = standing | statement.counts()
    if not found.finished and not statement.shortage_allowed and len(problem.limits.models) > 1:
        counts = _model_by_model(problem, counts, stopwatch)
    plan = _least_changed(statement, problem, counts, standing)
    return PlacingSolution(counts={**standing, **plan.counts}, report=_report(problem, found, plan, stopwatch))


def _whole(statement: Statement, problem: PlacingProblem) -> Ending:
    """Everything served as cheaply as can be; where that cannot be, as much as can be, and that as cheaply."""
    found = _cheapest(statement, time_limit_s=_WHOLE * problem.time_limit_s)
    if found.objective is not None:
        return found
    statement.allow_shortage()
    least = _least_short(statement, problem)
    if least.objective is None:
        return least
    statement.lp.addConstraint(statement.shortage() <= least.objective + SLACK * problem.asked_tokens_per_s)
    return _cheapest(statement, time_limit_s=problem.time_limit_s)


def _least_changed(
    statement: Statement, problem: PlacingProblem, counts: Mapping[Placement, int], standing: Mapping[Placement, int]
) -> _Plan:
    """Of plans as good as each other within the gap the one that stands, else one that changes little: no change
    without a gain, and a plan that could be carried out only in part is gone on with."""
    cheapest, stays = (_held(statement, problem, each) for each in (counts, standing))
    most = cheapest.cost * (1 + _GAP) + _NOISE
    if stays.cost <= most:
        return stays
    statement.free()
    statement.lp.addConstraint(statement.money() <= most)
    statement.lp.setObjective(statement.changes(stays.counts))
    limit_s = _WHOLE * problem.time_limit_s
    ending = run(statement.lp, whole=True, gap_abs=_LESS_THAN_ONE, time_limit_s=limit_s, most_nodes=1)
    return cheapest if ending.objective is None else _held(statement, problem, statement.counts())


def _held(statement: Statement, problem: PlacingProblem, counts: Mapping[Placement, int]) -> _Plan:
    own = {p: counts[p] for p in statement.servers}
    statement.hold_to(own)
    cost = _cheapest(statement, time_limit_s=problem.time_limit_s).objective
    if cost is None:
        return _Plan(counts=own, cost=inf, unserved_tokens_per_s=inf)
    return _Plan(counts=own, cost=cost, unserved_tokens_per_s=statement.unserved_tokens_per_s())


def _cheapest(statement: Statement, *, time_limit_s: float) -> Ending:
    statement.lp.setObjective(statement.money())
    return run(statement.lp, whole=True, gap=_GAP, time_limit_s=time_limit_s)


def _model_by_model(
    problem: PlacingProblem, counts: Mapping[Placement, int], stopwatch: Stopwatch
) -> Mapping[Placement, int]:
    """The cheapest counts of each model while the others stand, again and again until nothing gets cheaper, or time is
    out; `counts` serve everything, and so does what is returned."""
    best, changed = dict(counts), True
    while changed:
        changed = False
        for model in problem.limits.models:
            if stopwatch.seconds() > problem.time_limit_s:
                return best
            alone = _alone(problem, model, best)
            answer, now = place(alone), _held(stated(alone), alone, best)
            if not answer.report.shortfall_tokens_per_s and answer.report.objective < now.cost * (1 - _PAYS):
                best.update(answer.counts)
                changed = True
    return best


def _alone(problem: PlacingProblem, model: str, counts: Mapping[Placement, int]) -> PlacingProblem:
    """One model, with the GPUs that the others leave."""
    limits = problem.limits
    free = dict(limits.quota_gpus)
    for p, count in counts.items():
        if p.model != model:
            free[p.region, p.gpu_type] -= count * limits.capacity[p.model, p.gpu_type].gpus
    return replace(problem, limits=replace(limits, models=(model,), quota_gpus=free))


def _least_short(statement: Statement, problem: PlacingProblem) -> Ending:
    statement.lp.setObjective(statement.shortage())
    gap = _SHARING_GAP * problem.asked_tokens_per_s
    return run(statement.lp, whole=True, gap=_GAP, gap_abs=gap, time_limit_s=problem.time_limit_s)


def _report(problem: PlacingProblem, ending: Ending, plan: _Plan, stopwatch: Stopwatch) -> SolveReport:
    """What is told of `plan`, which `ending` led to."""
    short = plan.unserved_tokens_per_s
    return SolveReport(
        termination=ending.termination,
        objective=plan.cost,
        # Within rounding errors of the two sums a bound may lie above the cost.
        best_bound=None if ending.bound is None else min(ending.bound, plan.cost),
        gap=None if ending.bound is None else relative_gap(plan.cost, ending.bound),
        shortfall_tokens_per_s=short if short > SLACK * problem.asked_tokens_per_s else 0.0,
        variables=ending.variables,
        constraints=ending.constraints,
        solve_wall_s=stopwatch.seconds(),
    )
