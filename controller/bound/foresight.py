"""The least GPU-hours with perfect foresight: a proven lower bound, and a plan that a fleet could carry out."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.bound.budget import Bracket
from controller.bound.need import Counts
from controller.bound.oracle_plan import OraclePlan, bracket_of, oracle_plans
from controller.bound.pooled import PooledModel, pooled
from controller.bound.problem import ForesightProblem
from controller.bound.regions import regions_gpu_steps
from controller.types import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelBound:
    """One model. `plan_gpu_hours` is None where no plan within the quotas was found.

    `mean_demand_servers`: all tokens, interactive or not, over what one server serves in as many steps.
    `violated_steps`: of the plan, at most `budget_steps`. `capped_steps`: steps in which no controller could serve all,
    which nobody is charged for.
    """

    model: str
    mean_demand_servers: float
    lower_gpu_hours: float
    plan_gpu_hours: float | None
    violated_steps: int
    budget_steps: int
    capped_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """`lower_gpu_hours` <= the least that any controller needs <= `plan_gpu_hours` (None: no plan found).

    `proved_by` names the relaxation that gives the larger lower bound: "one pool per model" (the sum over `models`)
    or "regions and quotas". `plan`: servers READY by placement, each of shape (steps,).
    """

    lower_gpu_hours: float
    plan_gpu_hours: float | None
    proved_by: str
    models: tuple[ModelBound, ...]
    plan: Mapping[Placement, Counts]

    @property
    def gap(self) -> float | None:
        """How far the plan lies above the lower bound, as a fraction of it."""
        if self.plan_gpu_hours is None or not self.lower_gpu_hours > 0:
            return None
        return self.plan_gpu_hours / self.lower_gpu_hours - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alone:
    """A model as one pool, and the lower bound of that."""

    gpu_types: tuple[str, ...]
    pool: PooledModel
    bracket: Bracket

    @property
    def lower_gpu_steps(self) -> float:
        return self.bracket.lower * self.pool.unit_gpus


def least_gpu_hours(problem: ForesightProblem, *, time_limit_s: float = 60.0) -> Bound:
    """The bound of `problem`, and the plan found. `time_limit_s` is for each linear program.

    Raises ValueError where a model needs more servers than can be counted one by one (controller.bound.pooled).
    """
    limits, hours_per_step = problem.limits, problem.demand.step_s / 3600.0
    alone: dict[str, _Alone] = {}
    for model in limits.models:
        gpu_types = tuple(dict.fromkeys(p.gpu_type for p in limits.placements() if p.model == model))
        if gpu_types:
            pool = pooled(problem, model, gpu_types)
            bracket = bracket_of(problem, pool, time_limit_s)
            alone[model] = _Alone(gpu_types=gpu_types, pool=pool, bracket=bracket)
    # Who needs most is put first: the rest finds room more easily.
    order = sorted(alone, key=lambda model: -alone[model].lower_gpu_steps)
    plans = oracle_plans(
        problem, {m: (alone[m].gpu_types, alone[m].pool, alone[m].bracket) for m in order}, time_limit_s
    )
    by_pool = sum(each.lower_gpu_steps for each in alone.values())
    whole_plan = sum(plan.gpu_steps for plan in plans.values()) if len(plans) == len(alone) else None
    lower, proved_by = by_pool, "one pool per model"
    if problem.epsilon > 0 or whole_plan is None:
        together = regions_gpu_steps(
            problem,
            {model: each.pool for model, each in alone.items()},
            {model: each.lower_gpu_steps for model, each in alone.items()},
            time_limit_s=time_limit_s,
        )
        if together is not None and together > by_pool * (1 + 1e-9):
            lower, proved_by = together, "regions and quotas"
    return Bound(
        lower_gpu_hours=lower * hours_per_step,
        plan_gpu_hours=None if whole_plan is None else whole_plan * hours_per_step,
        proved_by=proved_by,
        models=tuple(_model_bound(problem, model, each, plans.get(model)) for model, each in alone.items()),
        plan={placement: counts for plan in plans.values() for placement, counts in plan.servers.items()},
    )


def _model_bound(problem: ForesightProblem, model: str, alone: _Alone, plan: OraclePlan | None) -> ModelBound:
    demand, hours_per_step = problem.demand, problem.demand.step_s / 3600.0
    theta = max(c.theta_tokens_per_s for (m, _), c in problem.limits.capacity.items() if m == model)
    waiting = demand.waiting.get(model)
    later = 0.0 if waiting is None else float(waiting.tokens.sum()) / (demand.steps * demand.step_s)
    return ModelBound(
        model=model,
        mean_demand_servers=(float(demand.of_model(model).mean()) + later) / theta,
        lower_gpu_hours=alone.lower_gpu_steps * hours_per_step,
        plan_gpu_hours=None if plan is None else plan.gpu_steps * hours_per_step,
        violated_steps=0 if plan is None else plan.violated_steps,
        budget_steps=problem.budget,
        capped_steps=alone.pool.capped,
    )
