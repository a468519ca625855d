"""The bound of perfect foresight as a record: what a run is compared to."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from controller.bound.foresight import Bound
from controller.bound.problem import ForesightProblem


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerTerms(_Record):
    """What the bound takes one server for, on one GPU type.

    `planned_theta_tokens_per_s` is what policies plan with, a margin below theta; None where there is no such.
    `lead_s`: GPUs held from a start until READY; the time to wake up where servers can sleep.
    """

    theta_tokens_per_s: float
    planned_theta_tokens_per_s: float | None
    gpus: float
    lead_s: float


class ModelBoundRecord(_Record):
    """One model's part; the terms are controller.bound.foresight.ModelBound's. `servers` by GPU type."""

    servers: dict[str, ServerTerms]
    mean_demand_servers: float
    lower_gpu_hours: float
    plan_gpu_hours: float | None
    violated_steps: int
    budget_steps: int
    capped_steps: int


class BoundRecord(_Record):
    """`lower_gpu_hours` <= the least of any controller <= `plan_gpu_hours` (None: no plan within the quotas found).

    In the fluid model: a step of `step_s` is within its SLO when the servers READY take all tokens that arrive in it.
    `niw`: whether NIW requests count, each by its deadline.
    """

    violated_share: float
    epsilon: float
    niw: bool
    step_s: float
    lower_gpu_hours: float
    plan_gpu_hours: float | None
    proved_by: str
    models: dict[str, ModelBoundRecord]

    @property
    def gap(self) -> float | None:
        """How far the plan lies above the lower bound, as a fraction of it."""
        return None if self.plan_gpu_hours is None else self.above(self.plan_gpu_hours)

    def above(self, gpu_hours: float) -> float | None:
        """How far `gpu_hours` lie above the lower bound, as a fraction of it; None where the bound is 0."""
        return gpu_hours / self.lower_gpu_hours - 1.0 if self.lower_gpu_hours > 0 else None


def bound_record(
    problem: ForesightProblem, bound: Bound, planned_theta: Mapping[tuple[str, str], float], *, niw: bool
) -> BoundRecord:
    """The record of `bound`; `planned_theta` is tokens/s by (model, gpu_type)."""
    capacity = problem.limits.capacity
    return BoundRecord(
        violated_share=problem.violated_share,
        epsilon=problem.epsilon,
        niw=niw,
        step_s=problem.demand.step_s,
        lower_gpu_hours=bound.lower_gpu_hours,
        plan_gpu_hours=bound.plan_gpu_hours,
        proved_by=bound.proved_by,
        models={
            each.model: ModelBoundRecord(
                servers={
                    gpu_type: ServerTerms(
                        theta_tokens_per_s=terms.theta_tokens_per_s,
                        planned_theta_tokens_per_s=planned_theta.get((model, gpu_type)),
                        gpus=terms.gpus,
                        lead_s=problem.lead_s(terms),
                    )
                    for (model, gpu_type), terms in capacity.items()
                    if model == each.model
                },
                mean_demand_servers=each.mean_demand_servers,
                lower_gpu_hours=each.lower_gpu_hours,
                plan_gpu_hours=each.plan_gpu_hours,
                violated_steps=each.violated_steps,
                budget_steps=each.budget_steps,
                capped_steps=each.capped_steps,
            )
            for each in bound.models
        },
    )
