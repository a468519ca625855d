"""The long-term integer program of SageServe, stated in PuLP.

Indices as in the paper: i model, j region, k GPU type. delta = up - down, and of the n servers that stand n - down are
kept: x[i,j,k] = kept + started, with whole 0 <= kept <= n and 0 <= started. Started servers cost more than kept ones,
so at an optimum started = max(0, delta), without a big-M and without a row for it.

    minimise    sum alpha[i,k] (kept + started)[i,j,k] + sum sigma[i,k] started[i,j,k]
    subject to  sum_k theta[i,k] x[i,j,k] >= epsilon rho[i,j]                     local share, for each i, j
                sum_jk theta[i,k] x[i,j,k] >= sum_j rho[i,j] + anywhere[i]        all of it somewhere, for each i
                sum_i gpus[i,k] x[i,j,k] <= quota[j,k]                            GPUs, for each j, k
                sum_k x[i,j,k] >= minimum                                         for each i, j

(SageServe, arXiv 2502.14617; the minimum is per pool, summed over GPU types.)

The elastic form lets every row with demand or minimum fall short by a share of its right side, and minimises the worst
and the average share instead of the cost, so that no model starves to feed another. Quotas never give way.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pulp

from controller.program.table import TOLERANCE, Floats, Ints, Table

Family = Literal["local", "global", "quota", "minimum"]
Terms = list[tuple[pulp.LpVariable, float]]

MINIMUM_WEIGHT = 100.0
"""A missing minimum weighs this many times a missing demand: an empty pool cannot even be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the program as PuLP has it. Rows to reach are divided by `right_side`, so that the solver's tolerance
    means the same for every one; those of quotas are not.
    """

    family: Family
    subject: str
    right_side: float
    constraint: pulp.LpConstraint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statement:
    """A program in PuLP: `kept` and `started` by placement, None where the bound would be 0."""

    lp: pulp.LpProblem
    kept: list[pulp.LpVariable | None]
    started: list[pulp.LpVariable | None]
    rows: list[Row]

    def counts(self) -> Floats:
        """x of the solution found, by placement."""
        pairs = zip(self.kept, self.started, strict=True)
        return np.array([_value(kept) + _value(started) for kept, started in pairs], dtype=np.float64)

    def set_counts(self, counts: Ints, standing: Ints) -> None:
        """Give every variable of the plain form its value in a plan, for a solver to start from."""
        for x, n, kept, started in zip(counts.tolist(), standing.tolist(), self.kept, self.started, strict=True):
            if kept is not None:
                kept.varValue = float(min(x, n))
            if started is not None:
                started.varValue = float(x - min(x, n))


def state(table: Table, *, whole: bool = True, elastic: bool = False) -> Statement:
    """The program of `table`; its linear relaxation unless `whole`."""
    lp = pulp.LpProblem("scaling", pulp.LpMinimize)
    category = pulp.LpInteger if whole else pulp.LpContinuous
    kept: list[pulp.LpVariable | None] = []
    started: list[pulp.LpVariable | None] = []
    servers: list[Terms] = [[] for _ in table.pools]
    local: list[Terms] = [[] for _ in table.pools]
    everywhere: list[Terms] = [[] for _ in table.models]
    gpus: list[Terms] = [[] for _ in table.slots]
    cost: Terms = []
    columns = zip(
        table.pool.tolist(),
        table.model.tolist(),
        table.slot.tolist(),
        table.theta.tolist(),
        table.gpus.tolist(),
        table.hold.tolist(),
        table.start.tolist(),
        table.standing.tolist(),
        table.most.tolist(),
        strict=True,
    )
    for index, (pool, model, slot, theta, size, hold, start, standing, most) in enumerate(columns):
        kept.append(lp.add_variable(f"kept{index}", 0, standing, category) if standing else None)
        # One more than the quota allows: the quota's own row must bind, for its dual tells what a GPU is worth.
        started.append(lp.add_variable(f"started{index}", 0, most - standing + 1, category) if most else None)
        for variable, price in ((kept[-1], hold), (started[-1], hold + start)):
            if variable is not None:
                cost.append((variable, price))
                servers[pool].append((variable, 1.0))
                local[pool].append((variable, theta))
                everywhere[model].append((variable, theta))
                gpus[slot].append((variable, size))
    rows = [
        Row(family="quota", subject="/".join(slot), right_side=quota, constraint=_at_most(lp, terms, quota + TOLERANCE))
        for slot, terms, quota in zip(table.slots, gpus, table.quota.tolist(), strict=True)
        if terms
    ]
    wanted: list[tuple[Family, str, float, Terms, float]] = []
    for pool_name, least, terms in zip(table.pools, table.minimum.tolist(), servers, strict=True):
        wanted.append(("minimum", str(pool_name), least, terms, MINIMUM_WEIGHT))
    for pool_name, least, terms in zip(table.pools, table.local.tolist(), local, strict=True):
        wanted.append(("local", str(pool_name), least, terms, 1.0))
    for model_name, least, terms in zip(table.models, table.everything.tolist(), everywhere, strict=True):
        wanted.append(("global", model_name, least, terms, 1.0))
    wanted = [row for row in wanted if row[2] > 0]
    worst = lp.add_variable("worst", 0)
    shares: Terms = [(worst, 1.0)]
    for index, (family, subject, least, terms, weight) in enumerate(wanted):
        reached = [(variable, coefficient / least) for variable, coefficient in terms]
        if elastic:
            missing = lp.add_variable(f"missing{index}", 0, 1)
            shares.append((missing, weight / len(wanted)))
            reached.append((missing, 1.0))
            _at_least(lp, [(worst, 1.0), (missing, -weight)], 0.0)
        rows.append(Row(family=family, subject=subject, right_side=least, constraint=_at_least(lp, reached, 1.0)))
    lp.setObjective(pulp.LpAffineExpression(shares if elastic else cost))
    return Statement(lp=lp, kept=kept, started=started, rows=rows)


def _at_least(lp: pulp.LpProblem, terms: Terms, least: float) -> pulp.LpConstraint:
    return _added(lp, terms, pulp.LpConstraintGE, least)


def _at_most(lp: pulp.LpProblem, terms: Terms, most: float) -> pulp.LpConstraint:
    return _added(lp, terms, pulp.LpConstraintLE, most)


def _added(lp: pulp.LpProblem, terms: Terms, sense: int, right_side: float) -> pulp.LpConstraint:
    constraint = pulp.LpConstraint(pulp.LpAffineExpression(terms), sense, rhs=right_side)
    lp.addConstraint(constraint)
    return constraint


def _value(variable: pulp.LpVariable | None) -> float:
    return 0.0 if variable is None else float(variable.varValue or 0.0)
