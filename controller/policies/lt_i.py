"""LT-I: the long-term program's whole answer at once."""

from dataclasses import dataclass, field

from controller.draft import PlanDraft
from controller.forecasts.forecast import Forecaster
from controller.long_term import budget_for, next_decision_s, one_where_asked
from controller.parameters import LongTermParameters
from controller.types import Observation, Role, ScalingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTermImmediate:
    """SageServe's LT-I (arXiv 2502.14617): all of delta at once, as far as GPUs are free; the rest as they drain."""

    parameters: LongTermParameters
    name: str = "lt-i"
    roles: tuple[Role, ...] = (Role.SHARED,)
    _forecaster: Forecaster = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_forecaster", self.parameters.forecast.forecaster())

    def decide(self, seen: Observation) -> ScalingPlan:
        budget = budget_for(seen, self.parameters, self._forecaster)
        draft = PlanDraft(seen)
        draft.restore_minimums()
        wanted = one_where_asked(draft, budget.memory.budget)
        draft.move_to(wanted, lambda count: f"budget {count} {budget.source}")
        return draft.plan(
            next_decision_s=next_decision_s(seen, self.parameters.interval_s, budget.memory.budget_until_s),
            memory=budget.memory,
            solve=budget.solve,
        )
