"""Plans with perfect foresight that a fleet could carry out: the cheapest found of each model, one GPU type each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from controller.bound.allotment import FreeGpus, allot
from controller.bound.budget import Bracket, within_budget
from controller.bound.feasible import cost_in_all
from controller.bound.need import Counts, unit_steps
from controller.bound.pooled import PooledModel, pooled
from controller.bound.problem import ForesightProblem
from controller.bound.valleys import with_deferrable
from controller.types import Placement

Alone = tuple[tuple[str, ...], PooledModel, Bracket]


@dataclass(frozen=True, slots=True, kw_only=True)
class OraclePlan:
    """One model: servers READY by placement, each of shape (steps,), and what they cost, all work served."""

    servers: Mapping[Placement, Counts]
    gpu_steps: float
    violated_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """A plan of one model on one GPU type, before it is put into regions. `unit_steps`: with what is served late."""

    gpu_type: str
    pool: PooledModel
    bracket: Bracket
    unit_steps: float


def bracket_of(problem: ForesightProblem, pool: PooledModel, time_limit_s: float) -> Bracket:
    """The bracket of one pool, with or without work that may wait."""
    if pool.work is None:
        return within_budget(pool.need, problem.budget)
    return with_deferrable(pool.need, pool.load, pool.work, problem.budget, time_limit_s=time_limit_s)


def oracle_plans(problem: ForesightProblem, models: Mapping[str, Alone], time_limit_s: float) -> dict[str, OraclePlan]:
    """A plan for each model for which quotas leave room, in the order given.

    `models`: the GPU types of each, the pool of all of them, and its bracket.
    """
    free: FreeGpus = {key: np.full(problem.demand.steps, gpus) for key, gpus in problem.limits.quota_gpus.items()}
    plans = {}
    for model, alone in models.items():
        for choice in _choices(problem, model, alone, time_limit_s):
            room = {key: values.copy() for key, values in free.items()}
            found = allot(problem, model, choice.gpu_type, choice.pool, choice.bracket.plan, room)
            if found is not None:
                free = room
                behind = choice.unit_steps - unit_steps(choice.pool.need, choice.bracket.plan)
                plans[model] = OraclePlan(
                    servers=found.servers,
                    gpu_steps=(found.server_steps + behind) * choice.pool.unit_gpus,
                    violated_steps=int(choice.bracket.violated.sum()),
                )
                break
    return plans


def _choices(problem: ForesightProblem, model: str, alone: Alone, time_limit_s: float) -> list[_Choice]:
    """Plans that keep deadlines, cheapest first. A GPU type counts if every region has it, and enough of it."""
    gpu_types, whole, bracket = alone
    found = []
    for gpu_type in gpu_types:
        pool = whole
        if len(gpu_types) > 1:
            pool = pooled(problem, model, (gpu_type,))
            if set(pool.local) != set(whole.local) or pool.capped > whole.capped or pool.absent > whole.absent:
                continue
            bracket = bracket_of(problem, pool, time_limit_s)
        cost = cost_in_all(pool.need, pool.load_asked, pool.work, bracket.plan)
        if math.isfinite(cost):
            found.append(_Choice(gpu_type=gpu_type, pool=pool, bracket=bracket, unit_steps=cost))
    return sorted(found, key=lambda choice: choice.unit_steps * choice.pool.unit_gpus)
