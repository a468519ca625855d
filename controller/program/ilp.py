"""The long-term integer program of SageServe, solved by HiGHS through PuLP.

Indices as in the paper: i model, j region, k GPU type. Variables x[i,j,k] = n + delta >= 0, whole servers, and
s[i,j,k] >= x - n, s >= 0, servers to start: at an optimum s = max(0, delta). This form needs no big-M and solves a
hundred times sooner than with one.

    minimise    sum alpha[i,k] x[i,j,k] + sum sigma[i,k] s[i,j,k]
    subject to  sum_k theta[i,k] x[i,j,k] >= epsilon rho[i,j]                     local share, for each i, j
                sum_jk theta[i,k] x[i,j,k] >= sum_j rho[i,j] + anywhere[i]        all of it somewhere, for each i
                sum_i gpus[i,k] x[i,j,k] <= quota[j,k]                            GPUs, for each j, k
                sum_k x[i,j,k] >= minimum                                         for each i, j

(SageServe, arXiv 2502.14617; the minimum is per pool, summed over GPU types.)

Where no x satisfies the rows with demand or minimum, a second program lets each of these rows fall short and finds the
plan whose worst and average relative shortfalls are least, so that no model starves to feed another; a third finds the
cheapest plan with these shortfalls. Quotas never give way.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pulp

from controller.program.demand import Demand
from controller.program.prices import hourly_price, start_up_price
from controller.types import FleetLimits, Placement, Pool, SolveReport

_TOLERANCE = 1e-6
_DUST = 1e-5
"""A share of demand too small to be more than the solver's tolerance."""
_SHORTFALL_GAP = 0.02
"""Sharing out what is missing to the last per cent takes minutes and serves nobody."""
_SHORTFALL_SLACK = 0.005
"""Of each row, when demand cannot be served anyway: without it the third program is as hard as a puzzle."""
_MINIMUM_WEIGHT = 100.0
"""A missing minimum weighs this many times a missing demand: an empty pool cannot even be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverSettings:
    """Relative gap to stop at and the time limit in seconds for each of at most three programs.

    An answer at the time limit depends on the machine's speed; the report's termination says so.
    """

    gap: float = 0.005
    time_limit_s: float = 60.0


DEFAULT_SETTINGS = SolverSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingProblem:
    """`standing`: n, the servers there now; `period_s`: how long the answer will stand, which weighs running costs
    against start-up costs; `epsilon`: the share of a region's demand that must be served in the region.
    """

    limits: FleetLimits
    standing: Mapping[Placement, int]
    demand: Demand
    epsilon: float
    period_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSolution:
    """Servers for every placement of the limits, and how the solver came to them."""

    counts: Mapping[Placement, int]
    report: SolveReport


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """Sum of coefficient x[p] over `terms` >= `least`, which may fall short only where demand cannot be served."""

    name: str
    terms: Mapping[Placement, float]
    least: float
    weight: float = 1.0


def solve(problem: ScalingProblem, settings: SolverSettings = DEFAULT_SETTINGS) -> ScalingSolution:
    """The cheapest counts that serve the demand, or fall least short of it; deterministic, and silent.

    Objective, bound and gap are those of the last program solved: USD of the period (or GPU-hours), running costs of
    all of x and start-up costs. When the solver finds no answer at all, the counts are those that stand and the
    report's termination says so.
    """
    program = _Program(problem)
    lp = program.build({})
    seconds = _run(lp, settings)
    if lp.sol_status != pulp.LpSolutionInfeasible:
        return _solution(program, lp, seconds)
    shortfall = program.build_least_shortfall()
    seconds += _run(shortfall, replace(settings, gap=max(settings.gap, _SHORTFALL_GAP)))
    least = _solution(program, shortfall, seconds, "least shortfall only")
    if not _answered(shortfall):
        return least
    cheapest = program.build(program.shortfalls())
    seconds += _run(cheapest, settings)
    if not _answered(cheapest):
        return replace(least, report=replace(least.report, solve_wall_s=seconds))
    return _solution(program, cheapest, seconds, "with a shortfall")


def check_limits(limits: FleetLimits) -> None:
    """For scenarios, before a run: raise ValueError when the minimum of every pool does not fit the GPU quotas."""
    nothing = Demand(local={}, anywhere={})
    program = _Program(ScalingProblem(limits=limits, standing={}, demand=nothing, epsilon=0.0, period_s=3600.0))
    if not program.placements:
        raise ValueError(
            "no model can be served anywhere: no (model, GPU type) with a capacity has a GPU quota in any region; "
            "give a profile for a GPU type that a region owns"
        )
    lp = program.build_least_shortfall()
    _run(lp, DEFAULT_SETTINGS)
    short = [name for name, missing in program.missing.items() if missing.value() > _DUST]
    if short:
        raise ValueError(
            f"min_servers={limits.min_servers} of every model in every region does not fit the GPU quotas "
            f"(first pool without room: {short[0].removeprefix('minimum ')}); "
            "lower min_servers, or give the region more GPUs"
        )


class _Program:
    """Builds the programs of one problem; `x`, `s` and `missing` are the variables of the one built last."""

    def __init__(self, problem: ScalingProblem) -> None:
        self.problem = problem
        self.placements = problem.limits.placements()
        self.rows = self._rows_to_reach()
        self.x: dict[Placement, pulp.LpVariable] = {}
        self.missing: dict[str, pulp.LpVariable] = {}

    def _rows_to_reach(self) -> list[_Row]:
        """Minimum, local and global rows. Where a model cannot stand it has no local row, only the global one."""
        problem, limits = self.problem, self.problem.limits
        pools: dict[Pool, list[Placement]] = {}
        models: dict[str, list[Placement]] = {}
        for p in self.placements:
            pools.setdefault(p.pool, []).append(p)
            models.setdefault(p.model, []).append(p)
        theta = {p: limits.capacity[p.model, p.gpu_type].theta_tokens_per_s for p in self.placements}
        rows = []
        for pool, members in pools.items():
            count = dict.fromkeys(members, 1.0)
            rows.append(_Row(name=f"minimum {pool}", terms=count, least=limits.min_servers, weight=_MINIMUM_WEIGHT))
            local = problem.epsilon * problem.demand.local.get(pool, 0.0)
            rows.append(_Row(name=f"local {pool}", terms={p: theta[p] for p in members}, least=local))
        for model, members in models.items():
            everything = problem.demand.of_model(model)
            rows.append(_Row(name=f"global {model}", terms={p: theta[p] for p in members}, least=everything))
        return [row for row in rows if row.least > 0]

    def _with_quotas(self) -> pulp.LpProblem:
        limits = self.problem.limits
        lp = pulp.LpProblem("scaling", pulp.LpMinimize)
        held: dict[tuple[str, str], list[Placement]] = {}
        self.x = {}
        for index, p in enumerate(self.placements):
            quota, gpus = limits.quota_gpus[p.region, p.gpu_type], limits.capacity[p.model, p.gpu_type].gpus
            most = int(quota / gpus + _TOLERANCE)
            self.x[p] = lp.add_variable(f"x{index:05d}", 0, most, cat=pulp.LpInteger)
            held.setdefault((p.region, p.gpu_type), []).append(p)
        for key, members in held.items():
            gpus_held = pulp.lpSum(limits.capacity[p.model, p.gpu_type].gpus * self.x[p] for p in members)
            lp.addConstraint(gpus_held <= limits.quota_gpus[key] + _TOLERANCE)
        return lp

    def _share_reached(self, row: _Row) -> pulp.LpAffineExpression:
        """The row over its right side: so the solver's feasibility tolerance means the same for every row."""
        return pulp.lpSum(coefficient / row.least * self.x[p] for p, coefficient in row.terms.items())

    def build(self, allowed: Mapping[str, float]) -> pulp.LpProblem:
        """The cheapest plan; the row of each name in `allowed` may fall short by that share of its right side."""
        problem, limits = self.problem, self.problem.limits
        lp = self._with_quotas()
        hours = problem.period_s / 3600.0
        cost = []
        for index, (p, x) in enumerate(self.x.items()):
            started = lp.add_variable(f"s{index:05d}", 0, None)
            lp.addConstraint(started >= x - problem.standing.get(p, 0))
            cost += [hourly_price(limits, p) * hours * x, start_up_price(limits, p) * started]
        lp.setObjective(pulp.lpSum(cost))
        for row in self.rows:
            lp.addConstraint(self._share_reached(row) >= 1.0 - allowed.get(row.name, 0.0))
        return lp

    def build_least_shortfall(self) -> pulp.LpProblem:
        """The least worst and average relative shortfall over the rows."""
        lp = self._with_quotas()
        worst = lp.add_variable("worst", 0, None)
        self.missing = {row.name: lp.add_variable(f"m{i:05d}", 0, 1) for i, row in enumerate(self.rows)}
        average = pulp.lpSum(row.weight / len(self.rows) * self.missing[row.name] for row in self.rows)
        lp.setObjective(worst + average)
        for row in self.rows:
            missing = self.missing[row.name]
            lp.addConstraint(self._share_reached(row) + missing >= 1.0)
            lp.addConstraint(worst >= row.weight * missing)
        return lp

    def shortfalls(self) -> dict[str, float]:
        """The share that each row may lack: what it lacks in the plan just found and a little more."""
        share = {name: max(0.0, missing.value() or 0.0) for name, missing in self.missing.items()}
        return {name: min(1.0, lacking + _SHORTFALL_SLACK) for name, lacking in share.items()}


def unserved_tokens_per_s(problem: ScalingProblem, counts: Mapping[Placement, int]) -> float:
    """Demand that `counts` leave without capacity, tokens/s: per model, the larger of what is missing in all and the
    sum of what is missing of the local shares of regions where the model can stand.
    """
    served: dict[Pool, float] = {}
    for p, count in counts.items():
        theta = problem.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s
        served[p.pool] = served.get(p.pool, 0.0) + theta * count
    demand, total = problem.demand, 0.0
    for model in {pool.model for pool in demand.local} | set(demand.anywhere):
        asked = demand.of_model(model)
        everywhere = asked - sum(tokens for pool, tokens in served.items() if pool.model == model)
        locally = sum(
            max(0.0, problem.epsilon * demand.local.get(pool, 0.0) - tokens)
            for pool, tokens in served.items()
            if pool.model == model
        )
        missing = max(everywhere, locally)
        total += missing if missing > _DUST * asked else 0.0
    return total


def _solution(program: "_Program", lp: pulp.LpProblem, seconds: float, note: str = "") -> ScalingSolution:
    problem, answered, info = program.problem, _answered(lp), lp.solverModel.getInfo()
    if answered:
        counts = {p: max(0, round(x.value())) for p, x in program.x.items()}
    else:
        counts, note = {p: problem.standing.get(p, 0) for p in program.x}, "standing counts kept"
    report = SolveReport(
        termination=": ".join(filter(None, (str(pulp.LpSolution[lp.sol_status]), note))),
        objective=float(info.objective_function_value) if answered else 0.0,
        best_bound=_finite(info.mip_dual_bound) if answered else None,
        gap=_finite(info.mip_gap) if answered else None,
        shortfall_tokens_per_s=unserved_tokens_per_s(problem, counts),
        variables=lp.numVariables(),
        constraints=lp.numConstraints(),
        solve_wall_s=seconds,
    )
    return ScalingSolution(counts=counts, report=report)


def _run(lp: pulp.LpProblem, settings: SolverSettings) -> float:
    """Solve in place; the seconds it took. One thread and a fixed seed: the same problem gives the same answer."""
    lp.solve(pulp.HiGHS(msg=False, threads=1, gapRel=settings.gap, timeLimit=settings.time_limit_s, random_seed=0))
    return float(lp.solutionTime)


def _answered(lp: pulp.LpProblem) -> bool:
    return lp.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)


def _finite(value: float) -> float | None:
    return float(value) if abs(value) < 1e20 else None
