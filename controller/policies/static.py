"""Static: the counts of the scenario from beginning to end; only what fails is replaced."""

from dataclasses import dataclass
from types import MappingProxyType

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.parameters import StaticParameters
from controller.types import Memory, Observation, Placement, Role, ScalingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """Keeps the counts given, or those of the first observation."""

    parameters: StaticParameters
    name: str = "static"
    roles: tuple[Role, ...] = (Role.SHARED,)

    def decide(self, seen: Observation) -> ScalingPlan:
        """Raises ValueError when a count is given for a placement that does not exist."""
        memory = previous_memory(seen)
        draft = PlanDraft(seen)
        kept = memory.budget or MappingProxyType(self._counts(draft))
        draft.restore_minimums()
        draft.move_to(kept, lambda count: f"{count} servers to keep")
        until_s = next_multiple(seen.at_s, self.parameters.interval_s)
        return draft.plan(
            next_decision_s=until_s,
            memory=Memory(budget=kept, budget_until_s=until_s, last_change_s=memory.last_change_s),
        )

    def _counts(self, draft: PlanDraft) -> dict[Placement, int]:
        counts = dict(draft.counts)
        if self.parameters.servers_per_pool is not None:
            for placements in draft.silos.values():
                cheapest = placements[0]
                counts.update({p: self.parameters.servers_per_pool if p == cheapest else 0 for p in placements})
        by_name = {str(placement): placement for placement in counts}
        for name, count in self.parameters.counts.items():
            if name not in by_name:
                raise ValueError(f"static counts name {name!r}; the placements are {', '.join(by_name)}")
            counts[by_name[name]] = count
        return counts
