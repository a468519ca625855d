"""HPA: target tracking on a window, as Kubernetes does it; the baseline that every forecast has to beat."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, floor
from types import MappingProxyType

from controller.draft import PlanDraft, next_multiple, previous_memory
from controller.policies.hpa_memory import SiloPast, numbers_of, pasts_of
from controller.policies.hpa_parameters import HpaParameters, RatePolicy, ScalingRules
from controller.rules.target_tracking import (
    Change,
    Recommendation,
    changed_within,
    for_demand,
    for_mean,
    least_after,
    most_after,
    stabilised,
    still_largest,
    with_change,
)
from controller.thresholds import in_demand
from controller.types import Observation, Placement, Role, ScalingPlan, Silo

_NOISE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizontalAutoscaler:
    """Kubernetes' HorizontalPodAutoscaler v2 for every pool: desired = ceil(current x metric / target), down only to
    the largest recommendation of the last five minutes.

    With several GPU types servers count as equivalents of the pool's cheapest: by theta where the metric is tokens,
    each as one where it is utilisation. They are added cheapest first and removed dearest first. Not Kubernetes': the
    minimum may be 0, and a pool without any server gets one when its model is in demand.
    """

    parameters: HpaParameters
    name: str = "hpa"
    roles: tuple[Role, ...] = (Role.SHARED,)

    def decide(self, seen: Observation) -> ScalingPlan:
        memory = previous_memory(seen)
        draft = PlanDraft(seen)
        draft.restore_minimums()
        remembered: dict[str, float] = {}
        pasts = pasts_of(memory.numbers)
        for silo in draft.silos:
            remembered.update(numbers_of(silo, self._track(draft, silo, pasts.get(str(silo), SiloPast()))))
        return draft.plan(
            next_decision_s=next_multiple(seen.at_s, self.parameters.interval_s),
            memory=replace(memory, numbers=MappingProxyType(remembered)),
        )

    def _track(self, draft: PlanDraft, silo: Silo, past: SiloPast) -> SiloPast:
        """Bring one silo to its target; what to remember of it."""
        given, at_s = self.parameters, draft.seen.at_s
        window_s = given.scale_down.stabilisation_s
        weights = self._weights(draft, silo)
        before = sum(draft.state(p).active for p in draft.silos[silo])
        current = _equivalents(draft, weights)
        recommended, reason = self._recommended(draft, silo, current, weights)
        # As Kubernetes: what stands at the first look counts as recommended then, so nothing shrinks at once.
        earlier = past.recommendations or (Recommendation(at_s=at_s, servers=current),)
        earlier = still_largest(earlier, at_s, window_s + self._slack_s)
        wanted = stabilised(current, recommended, earlier)
        if recommended < wanted < current:
            reason += f", {wanted:g} within the last {window_s:g} s"
        _move(draft, weights, wanted, self._count_limits(draft.in_silo(silo), past, at_s), reason)
        latest = Recommendation(at_s=at_s, servers=recommended)
        longest_s = max(p.period_s for rules in (given.scale_up, given.scale_down) for p in rules.policies)
        change = Change(at_s=at_s, servers=draft.in_silo(silo) - before)
        return SiloPast(
            recommendations=still_largest((*earlier, latest), at_s, window_s + self._slack_s),
            changes=with_change(past.changes, change, longest_s),
        )

    def _weights(self, draft: PlanDraft, silo: Silo) -> dict[Placement, float]:
        """What a server of each placement is worth, in servers of the silo's cheapest GPU type."""
        if self.parameters.metric == "utilisation":
            return dict.fromkeys(draft.silos[silo], 1.0)
        thetas = {p: draft.limits.capacity[p.model, p.gpu_type].theta_tokens_per_s for p in draft.silos[silo]}
        cheapest = thetas[draft.silos[silo][0]]
        return {placement: theta / cheapest for placement, theta in thetas.items()}

    def _recommended(
        self, draft: PlanDraft, silo: Silo, current: float, weights: Mapping[Placement, float]
    ) -> tuple[float, str]:
        """Servers that the metric asks for, one at least while the model is in demand; and why in words."""
        given, least = self.parameters, 1 if in_demand(draft, silo) else 0
        if given.metric == "utilisation":
            states = {p: draft.state(p) for p in weights}
            ready = sum(state.ready for state in states.values())
            mean = sum(s.utilisation * s.ready for s in states.values()) / ready if ready else 0.0
            unready = draft.in_silo(silo) - ready
            asked = for_mean(mean, target=given.target, ready=ready, unready=unready, tolerance=given.tolerance)
            asked = max(asked, least)
            return asked, f"utilisation {mean:.2f} against {given.target:.2f}: {asked:g} servers"
        demand = self._demand_tokens_per_s(draft.seen, silo)
        cheapest = draft.silos[silo][0]
        theta = draft.limits.capacity[cheapest.model, cheapest.gpu_type].theta_tokens_per_s
        asked = for_demand(demand, per_server=given.target * theta, current=current, tolerance=given.tolerance)
        asked = max(asked, least)
        equal = f" of {cheapest.gpu_type}" if len(weights) > 1 else ""
        return asked, f"{demand:.0f} tokens/s at {given.target:.2f} x {theta:.0f} a server: {asked:g} servers{equal}"

    def _demand_tokens_per_s(self, seen: Observation, silo: Silo) -> float:
        """The highest bin of interactive demand in the window, and the share of NIW; of each only what the silo takes.

        It is demand of the region of origin: where the router sends it is not known beforehand.
        """
        key, demand, given = silo.pool, seen.demand, self.parameters
        bins = max(1, round(given.window_s / demand.bin_s))
        latest = demand.interactive[key][-bins:] if silo.role.takes_interactive and key in demand.interactive else ()
        niw = demand.latest_niw(key, given.niw_window_s) if silo.role.takes_niw and key in demand.niw else 0.0
        return max(map(float, latest), default=0.0) + given.niw_share * niw

    def _count_limits(self, current: int, past: SiloPast, at_s: float) -> tuple[int, int]:
        """The lowest and the highest count that the rates allow now."""
        up, down = self.parameters.scale_up, self.parameters.scale_down
        most = [
            most_after(current, begun, value=policy.value, percent=policy.kind == "percent")
            for policy, begun in self._begun(up, current, past, at_s)
        ]
        least = [
            least_after(current, begun, value=policy.value, percent=policy.kind == "percent")
            for policy, begun in self._begun(down, current, past, at_s)
        ]
        return (
            current if down.select == "disabled" else min(least) if down.select == "max" else max(least),
            # A share of none is none, for ever.
            current if up.select == "disabled" else max(1, max(most) if up.select == "max" else min(most)),
        )

    def _begun(
        self, rules: ScalingRules, current: int, past: SiloPast, at_s: float
    ) -> Iterator[tuple[RatePolicy, int]]:
        """Each rate policy with the servers that stood as its period began."""
        for policy in rules.policies:
            added, removed = changed_within(past.changes, at_s, policy.period_s - self._slack_s)
            yield policy, current - added + removed

    @property
    def _slack_s(self) -> float:
        """As in next_multiple: a decision a little early is on time."""
        return 0.01 * self.parameters.interval_s


def _move(
    draft: PlanDraft,
    weights: Mapping[Placement, float],
    wanted: float,
    limits: tuple[int, int],
    reason: str,
) -> None:
    """Go to `wanted` equivalents, cheapest GPU type first up, dearest first down, within the counts of `limits`."""
    silo = next(iter(weights)).silo
    least, most = limits
    added = 0
    for placement, weight in weights.items():
        missing = ceil((wanted - _equivalents(draft, weights)) / weight - _NOISE)
        allowed = most - draft.in_silo(silo)
        if missing > 0:
            short = f"; rates allow {most}" if missing > allowed else ""
            added += draft.add(placement, min(missing, allowed), reason + short)
    for placement, weight in reversed(list(weights.items())):
        spare = floor((_equivalents(draft, weights) - wanted) / weight + _NOISE)
        allowed = draft.in_silo(silo) - least
        if added:
            # A server much larger than what was missing makes small ones needless, those that serve once it is READY.
            allowed = min(allowed, draft.counts[placement] - draft.state(placement).ready)
        if spare > 0:
            short = f"; rates allow {least}" if spare > allowed else ""
            draft.remove(placement, min(spare, allowed), "enough without it" if added else reason + short)


def _equivalents(draft: PlanDraft, weights: Mapping[Placement, float]) -> float:
    return sum(draft.counts[placement] * weight for placement, weight in weights.items())
