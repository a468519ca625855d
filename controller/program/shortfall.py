"""Demand that cannot be served: sharing out what there is, and saying what is missing."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from controller.program.problem import ScalingProblem
from controller.program.relaxation import relax
from controller.program.repair import repaired, rounded, within_quotas
from controller.program.search import branch_and_bound
from controller.program.table import DUST, Ints, Table
from controller.types import Placement

_SHARING_GAP = 0.02
"""Sharing out what is missing to the last per cent takes minutes and serves nobody."""


def shared_out(table: Table, *, by_branching: bool, time_limit_s: float) -> Ints:
    """Counts within the quotas whose worst and average relative shortfalls over all rows are small.

    `by_branching`: near the least there are, by the elastic program (see `formulation`); otherwise rounded from its
    relaxation, the row that lacks most being filled first.
    """
    relaxation = relax(table, elastic=True)
    if relaxation is None:
        return repaired(table, table.standing)
    # Its duals are in shares of rows and say nothing about money.
    counts = rounded(table, replace(relaxation, worth=0 * relaxation.worth, rent=0 * relaxation.rent))
    if by_branching and not table.reaches_all(counts):
        plan, _ = branch_and_bound(table, counts, gap=_SHARING_GAP, time_limit_s=time_limit_s, elastic=True)
        counts = counts if plan is None else within_quotas(table, plan)
    return counts


def unserved_tokens_per_s(problem: ScalingProblem, counts: Mapping[Placement, int]) -> float:
    """Demand that `counts` leave without capacity, tokens/s: per model, the larger of what is missing in all and the
    sum of what is missing of the local shares of regions where the model can stand.
    """
    served: dict[str, float] = {}
    in_pool = dict.fromkeys((p.pool for p in counts), 0.0)
    for p, count in counts.items():
        tokens = problem.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s * count
        in_pool[p.pool] += tokens
        served[p.model] = served.get(p.model, 0.0) + tokens
    asked, locally = {model: max(0.0, tokens) for model, tokens in problem.demand.anywhere.items()}, dict[str, float]()
    for pool, rho in problem.demand.local.items():
        asked[pool.model] = asked.get(pool.model, 0.0) + max(0.0, rho)
        if pool in in_pool:
            missing = max(0.0, problem.epsilon * rho - in_pool[pool])
            locally[pool.model] = locally.get(pool.model, 0.0) + missing
    missing_of = {m: max(tokens - served.get(m, 0.0), locally.get(m, 0.0)) for m, tokens in asked.items()}
    return float(np.sum([missing for m, missing in missing_of.items() if missing > DUST * asked[m]]))
