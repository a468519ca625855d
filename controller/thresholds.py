"""One server more or less, by utilisation: the rule that reactive and long-term policies share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.draft import PlanDraft
from controller.parameters import Thresholds
from controller.types import Placement, Pool, Silo

_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Counts that steps may lead up to (`most`) and down to (`least`); `beyond` words why a pool's differ from the
    long-term program's budget.
    """

    most: Mapping[Placement, int]
    least: Mapping[Placement, int]
    beyond: Mapping[Pool, str] = field(default_factory=dict)


def step_by_utilisation(
    draft: PlanDraft,
    thresholds: Thresholds,
    *,
    last_change_s: Mapping[Placement, float],
    bounds: Bounds | None = None,
) -> None:
    """At most one step for each silo: +1 where any of its placements is above `scale_out_above`, on the GPU type
    cheapest for the work that has room; else -1 where one is below `scale_in_below`, on the dearest of these.

    Without `bounds` only the fleet's limits hold. Placements without a READY server have no utilisation: they are
    never scaled in. A silo whose model is in demand gets a server where it has none, and keeps its last one.
    """
    for silo, placements in draft.silos.items():
        quiet_s = draft.seen.at_s - max(last_change_s.get(p, float("-inf")) for p in placements)
        if quiet_s + _SLACK_S >= thresholds.cooldown_out_s and _step_out(draft, thresholds, silo, bounds):
            continue
        if quiet_s + _SLACK_S >= thresholds.cooldown_in_s:
            _step_in(draft, thresholds, silo, bounds)


def _step_out(draft: PlanDraft, thresholds: Thresholds, silo: Silo, bounds: Bounds | None) -> bool:
    placements = draft.silos[silo]
    hottest = max((draft.state(p).utilisation for p in placements if draft.state(p).ready > 0), default=None)
    if hottest is not None and hottest > thresholds.scale_out_above:
        because = f"utilisation {hottest:.2f} > {thresholds.scale_out_above:.2f}"
    elif draft.in_silo(silo) == 0 and in_demand(draft, silo):
        because = "requests and no server"
    else:
        return False
    for placement in placements:
        # No budget keeps requests waiting where there is no server at all.
        within = bounds if hottest is not None else None
        if within is not None and draft.counts[placement] >= within.most[placement]:
            continue
        budget = "" if within is None else within.beyond.get(silo.pool, f"below budget {within.most[placement]}")
        if draft.add(placement, 1, ", ".join(filter(None, (because, budget)))):
            return True
    return False


def _step_in(draft: PlanDraft, thresholds: Thresholds, silo: Silo, bounds: Bounds | None) -> None:
    if draft.in_silo(silo) == 1 and in_demand(draft, silo):
        return  # it would get one again at the next decision
    for placement in reversed(draft.silos[silo]):
        state = draft.state(placement)
        if state.ready == 0 or state.utilisation >= thresholds.scale_in_below:
            continue
        if bounds is not None and draft.counts[placement] <= bounds.least[placement]:
            continue
        because = f"utilisation {state.utilisation:.2f} < {thresholds.scale_in_below:.2f}"
        budget = "" if bounds is None else bounds.beyond.get(silo.pool, f"above budget {bounds.least[placement]}")
        if draft.remove(placement, 1, ", ".join(filter(None, (because, budget)))):
            return


def in_demand(draft: PlanDraft, silo: Silo) -> bool:
    """Whether the silo's model was asked for in its region in the last bin, or NIW requests wait for the model; of
    each only what the silo takes. Or its first server is on its way: whoever it was ordered for still waits.
    """
    states = [draft.state(p) for p in draft.silos[silo]]
    if any(state.starting for state in states) and not any(state.ready for state in states):
        return True
    demand, pool = draft.seen.demand, silo.pool
    asked = pool in demand.interactive and demand.latest(pool, demand.bin_s) > 0
    waits = draft.seen.niw_queued_tokens.get(pool.model, 0) > 0
    return (asked and silo.role.takes_interactive) or (waits and silo.role.takes_niw)
