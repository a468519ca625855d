"""Reactive: no forecast; one server more above a utilisation, one less below another, per pool, with a cooldown."""

from dataclasses import dataclass

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.parameters import ReactiveParameters
from controller.thresholds import step_by_utilisation
from controller.types import Observation, Role, ScalingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Reactive:
    """SageServe's baseline (arXiv 2502.14617)."""

    parameters: ReactiveParameters
    name: str = "reactive"
    roles: tuple[Role, ...] = (Role.SHARED,)

    def decide(self, seen: Observation) -> ScalingPlan:
        memory = previous_memory(seen)
        draft = PlanDraft(seen)
        draft.restore_minimums()
        step_by_utilisation(draft, self.parameters.thresholds(), last_change_s=memory.last_change_s)
        return draft.plan(next_decision_s=next_multiple(seen.at_s, self.parameters.interval_s), memory=memory)
