"""Siloed: interactive and batch servers apart, each silo scaled reactively; what sharing a pool is measured against."""

from dataclasses import dataclass, replace
from types import MappingProxyType

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.parameters import ReactiveParameters
from controller.thresholds import step_by_utilisation
from controller.types import Observation, PlacementState, Role, ScalingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Siloed:
    """SageServe's siloed baseline (arXiv 2502.14617): IW and NIW requests have servers of their own.

    In the paper NIW requests go to their servers at once and wait there, so that what waits counts as load. Here they
    wait in the NIW queue, which lets go of them at a utilisation below the one that adds a server: the queue
    therefore counts as load of the batch servers. Without it, a queue of any length would never add one.
    """

    parameters: ReactiveParameters
    name: str = "siloed"
    roles: tuple[Role, ...] = (Role.INTERACTIVE, Role.BATCH)

    def decide(self, seen: Observation) -> ScalingPlan:
        memory = previous_memory(seen)
        draft = PlanDraft(with_queue(seen))
        draft.restore_minimums()
        step_by_utilisation(draft, self.parameters.thresholds(), last_change_s=memory.last_change_s)
        plan = draft.plan(next_decision_s=next_multiple(seen.at_s, self.parameters.interval_s), memory=memory)
        steps = tuple(
            replace(step, reason=f"{step.reason}, {queued} NIW tokens in the queue counted in")
            if step.placement.role is Role.BATCH and (queued := seen.niw_queued_tokens.get(step.placement.model, 0))
            else step
            for step in plan.steps
        )
        return replace(plan, steps=steps)


def with_queue(seen: Observation) -> Observation:
    """The observation with a model's queued tokens counted into the utilisation of its batch servers.

    A placement's share of the queue is its share of the model's READY batch servers. How many tokens fit is known where
    some are in flight: outstanding / utilisation. An idle placement stays as it is: it takes from the queue by itself.
    """
    ready: dict[str, int] = {}
    for placement, state in seen.placements.items():
        if placement.role is Role.BATCH:
            ready[placement.model] = ready.get(placement.model, 0) + state.ready
    counted = {
        placement: _with_tokens(
            state, seen.niw_queued_tokens.get(placement.model, 0) * state.ready / ready[placement.model]
        )
        if placement.role is Role.BATCH and state.ready
        else state
        for placement, state in seen.placements.items()
    }
    return replace(seen, placements=MappingProxyType(counted))


def _with_tokens(state: PlacementState, queued_tokens: float) -> PlacementState:
    if not state.outstanding_tokens:
        return state
    return replace(state, utilisation=state.utilisation * (1 + queued_tokens / state.outstanding_tokens))
