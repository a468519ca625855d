"""LT-U: the program's answer is a budget that utilisation spends, one server at a time."""

from dataclasses import dataclass, field

from controller.draft import PlanDraft
from controller.forecasts.forecast import Forecaster
from controller.long_term import budget_for, next_decision_s
from controller.parameters import StepwiseParameters
from controller.thresholds import Bounds, step_by_utilisation
from controller.types import Memory, Observation, Role, ScalingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class LongTermByUtilisation:
    """SageServe's LT-U (arXiv 2502.14617): out above 0.70 and in below 0.30, up or down to the program's count."""

    parameters: StepwiseParameters
    name: str = "lt-u"
    roles: tuple[Role, ...] = (Role.SHARED,)
    _forecaster: Forecaster = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_forecaster", self.parameters.forecast.forecaster())

    def decide(self, seen: Observation) -> ScalingPlan:
        budget = budget_for(seen, self.parameters, self._forecaster)
        draft = PlanDraft(seen)
        draft.restore_minimums()
        step_by_utilisation(
            draft,
            self.parameters.thresholds,
            last_change_s=budget.memory.last_change_s,
            bounds=self.bounds(seen, budget.memory),
        )
        return draft.plan(
            next_decision_s=next_decision_s(seen, self.parameters.interval_s, budget.memory.budget_until_s),
            memory=budget.memory,
            solve=budget.solve,
        )

    def bounds(self, seen: Observation, memory: Memory) -> Bounds:  # noqa: ARG002 - LT-UA looks at the load
        """The counts that utilisation may lead up to and down to: the budget, both ways."""
        return Bounds(most=memory.budget, least=memory.budget)
