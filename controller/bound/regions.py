"""All models, regions and GPU types together, as a linear program on a grid of several steps: a second lower bound.

It keeps what one pool per model leaves out (quotas that models share, starts region by region) and drops what that
keeps: servers are fractions, and so is a violated step. Averaged over several steps, the demand, the units needed and
the servers of any plan keep all rows, and an average rises and falls no more than what it is of: a coarser grid, too,
bounds from below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from controller.bound.linear import LinearProgram, solve
from controller.bound.need import Counts, Values
from controller.bound.pooled import PooledModel
from controller.bound.problem import ForesightProblem
from controller.types import Placement

# So that a day of four models in three regions takes seconds.
MOST_COARSE_STEPS = 720


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Coarse steps: `edges` (coarse + 1,) in steps, `length` (coarse,) of each in steps."""

    edges: Counts
    length: Values

    @classmethod
    def over(cls, steps: int) -> "_Grid":
        edges = np.append(np.arange(0, steps, -(-steps // MOST_COARSE_STEPS)), steps)
        return cls(edges=edges, length=np.diff(edges).astype(np.float64))

    def mean(self, series: Values | Counts) -> Values:
        return np.add.reduceat(np.asarray(series, dtype=np.float64), self.edges[:-1]) / self.length

    def largest(self, series: Values | Counts) -> Values:
        return np.maximum.reduceat(np.asarray(series, dtype=np.float64), self.edges[:-1])

    def last(self, series: Values) -> Values:
        last: Values = series[self.edges[1:] - 1]
        return last


@dataclass(slots=True)
class _Rows:
    """A program in the making: blocks of one column, and of one row, per coarse step."""

    coarse: int
    cost: list[Values] = field(default_factory=list)
    lower: list[Values] = field(default_factory=list)
    upper: list[Values] = field(default_factory=list)
    blocks: list[dict[int, sp.csr_array]] = field(default_factory=list)
    row_lower: list[Values] = field(default_factory=list)
    row_upper: list[Values] = field(default_factory=list)

    def columns(self, cost: Values, lower: Values, upper: Values) -> int:
        """A block of columns; its index."""
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        return len(self.cost) - 1

    def add(self, terms: Mapping[int, sp.csr_array], least: Values | None, most: Values | None) -> None:
        """least <= sum of matrices x columns <= most, row by row; each matrix has a column per coarse step."""
        rows = next(iter(terms.values())).shape[0]
        self.blocks.append(dict(terms))
        self.row_lower.append(np.full(rows, -np.inf) if least is None else least)
        self.row_upper.append(np.full(rows, np.inf) if most is None else most)

    def program(self) -> LinearProgram:
        grid = [[terms.get(i) for i in range(len(self.cost))] for terms in self.blocks]
        # A block of columns that no row mentions still needs its width.
        width = [sp.csr_array((0, self.coarse)) for _ in self.cost]
        return LinearProgram(
            cost=np.concatenate(self.cost),
            lower=np.concatenate(self.lower),
            upper=np.concatenate(self.upper),
            rows=sp.block_array([*grid, width], format="csc"),
            row_lower=np.concatenate(self.row_lower),
            row_upper=np.concatenate(self.row_upper),
        )


def regions_gpu_steps(
    problem: ForesightProblem,
    pools: Mapping[str, PooledModel],
    alone_gpu_steps: Mapping[str, float],
    *,
    time_limit_s: float,
) -> float | None:
    """The lower bound in GPU-steps (GPUs held x steps), no less than the sum of those of the models alone; None where
    the solver found no optimum in time, or where the quotas cannot hold what must be served.
    """
    grid = _Grid.over(problem.demand.steps)
    coarse = len(grid.length)
    rows, one = _Rows(coarse), sp.eye_array(coarse, format="csr")
    ready: dict[Placement, int] = {}
    constant = 0.0
    for model, pool in pools.items():
        first = len(rows.cost)
        waiting = _add_model(rows, problem, model, pool, grid, ready)
        # What is known of the model alone holds here too.
        costs = {i: sp.csr_array(rows.cost[i][None, :]) for i in range(first, len(rows.cost)) if rows.cost[i].any()}
        rows.add(costs, np.array([alone_gpu_steps[model] - waiting]), None)
        constant += waiting
    limits = problem.limits
    for (region, gpu_type), gpus in limits.quota_gpus.items():
        here = {p: i for p, i in ready.items() if (p.region, p.gpu_type) == (region, gpu_type)}
        if here:
            held = {i: limits.capacity[p.model, gpu_type].gpus * one for p, i in here.items()}
            rows.add(held, None, np.full(coarse, gpus))
    answer = solve(rows.program(), time_limit_s=time_limit_s)
    return answer.objective + constant if answer.optimal else None


def _add_model(
    rows: _Rows, problem: ForesightProblem, model: str, pool: PooledModel, grid: _Grid, ready: dict[Placement, int]
) -> float:
    """Columns and rows of one model; adds its columns of READY servers to `ready`. The cost of all waiting work."""
    limits, need, unit = problem.limits, pool.need, pool.unit_gpus
    coarse = rows.coarse
    one = sp.eye_array(coarse, format="csr")
    change = sp.diags_array([np.ones(coarse), -np.ones(coarse - 1)], offsets=[0, -1], format="csr")
    nothing, endless = np.zeros(coarse), np.full(coarse, np.inf)
    violated = rows.columns(nothing, nothing, np.ones(coarse))
    rows.add({violated: sp.csr_array(grid.length[None, :])}, None, np.array([float(problem.budget)]))
    mine = [p for p in limits.placements() if p.model == model]
    for p in mine:
        gpus, lead_s = limits.capacity[model, p.gpu_type].gpus, problem.lead_s(limits.capacity[model, p.gpu_type])
        ready[p] = rows.columns(gpus * grid.length, nothing, endless)
        started = rows.columns(np.full(coarse, gpus * lead_s / problem.demand.step_s), nothing, endless)
        stood = np.zeros(coarse)
        stood[0] = np.inf if problem.initial is None else problem.initial.get(p, 0)
        rows.add({ready[p]: change, started: -one}, None, stood)

    def total(of: Callable[[Placement], float], region: str | None = None) -> dict[int, sp.csr_array]:
        return {ready[p]: of(p) * one for p in mine if region in (None, p.region)}

    def units(p: Placement) -> float:
        return limits.capacity[model, p.gpu_type].gpus / unit

    def work(p: Placement) -> float:
        return limits.capacity[model, p.gpu_type].theta_tokens_per_s / pool.theta_tokens_per_s

    relief = sp.diags_array(grid.largest(need.required - need.least), format="csr")
    rows.add({**total(units), violated: relief}, grid.mean(need.required), None)
    for region, local in pool.local.items():
        excused = sp.diags_array(grid.largest(local - local.min()), format="csr")
        rows.add({**total(units, region), violated: excused}, grid.mean(local), None)
    served = {**total(work), violated: sp.diags_array(grid.largest(pool.load), format="csr")}
    if pool.work is None:
        rows.add(served, grid.mean(pool.load), None)
        return 0.0
    behind = np.zeros(coarse)
    behind[-1] = -unit
    done = rows.columns(behind, grid.last(pool.work.due), grid.last(pool.work.arrived))
    served[done] = -sp.diags_array(1.0 / grid.length, format="csr") @ change
    rows.add(served, grid.mean(pool.load), None)
    return unit * pool.work.total
