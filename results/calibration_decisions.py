"""The decisions of a real run against those of an emulated one: which were the same, and where they first part."""

from collections.abc import Mapping
from itertools import pairwise
from statistics import median

from controller.records import decode_all
from controller.types import Observation, Placement, PlacementState, ScalingPlan
from results.calibration import DecisionAgreement, Difference
from results.run_folder import PolicyFolder

_Decision = tuple[Observation, ScalingPlan]


def decision_agreement(real: PolicyFolder, emulated: PolicyFolder) -> DecisionAgreement:
    """Decisions pair up when they were made within half an interval of each other; what pairs with none is counted.

    Raises ValueError for records that cannot be read.
    """
    ours, theirs = decode_all(real.decisions()), decode_all(emulated.decisions())
    pairs = _matched(ours, theirs)
    same = placements = same_counts = largest_gap = 0
    first: tuple[Difference, ...] = ()
    for one, other in pairs:
        gaps = {
            placement: other[1].counts.get(placement, 0) - one[1].counts.get(placement, 0)
            for placement in sorted({*one[1].counts, *other[1].counts}, key=str)
        }
        placements += len(gaps)
        same_counts += sum(not gap for gap in gaps.values())
        largest_gap = max([largest_gap, *map(abs, gaps.values())])
        same += not any(gaps.values())
        if not first:
            first = tuple(_difference(placement, one, other) for placement, gap in gaps.items() if gap)
    return DecisionAgreement(
        real=len(ours),
        emulated=len(theirs),
        matched=len(pairs),
        unmatched=len(ours) + len(theirs) - 2 * len(pairs),
        same=same,
        placements=placements,
        same_counts=same_counts,
        largest_gap=largest_gap,
        first=first,
    )


def _matched(ours: list[_Decision], theirs: list[_Decision]) -> list[tuple[_Decision, _Decision]]:
    times_s = [seen.at_s for seen, _ in ours]
    gaps_s = [later - earlier for earlier, later in pairwise(times_s)]
    within_s = 0.5 * median(gaps_s) if gaps_s else float("inf")
    pairs, at = [], 0
    for one in ours:
        at_s = one[0].at_s
        while at < len(theirs) and theirs[at][0].at_s <= at_s - within_s:
            at += 1
        if at < len(theirs) and theirs[at][0].at_s < at_s + within_s:
            pairs.append((one, theirs[at]))
            at += 1
    return pairs


def _difference(placement: Placement, one: _Decision, other: _Decision) -> Difference:
    return Difference(
        at_s=one[0].at_s,
        placement=str(placement),
        real_count=one[1].counts.get(placement, 0),
        emulated_count=other[1].counts.get(placement, 0),
        real_saw=_seen(one[0].placements, placement),
        emulated_saw=_seen(other[0].placements, placement),
        real_because=_because(one[1], placement),
        emulated_because=_because(other[1], placement),
    )


def _seen(placements: Mapping[Placement, PlacementState], placement: Placement) -> str:
    state = placements.get(placement)
    if state is None:
        return "not there"
    return f"{state.ready} ready, {state.starting} starting, utilisation {state.utilisation:.2f}"


def _because(plan: ScalingPlan, placement: Placement) -> str:
    reasons = [step.reason for step in plan.steps if step.placement == placement]
    return "; ".join(reasons) or "no change"
