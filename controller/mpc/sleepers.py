"""Servers that sleep instead of stopping: near at hand for a burst, and no GPU held until it comes."""

from collections.abc import Mapping
from math import ceil

from controller.types import Observation, Placement, ScalingPlan


def sleeping_tokens_per_s(seen: Observation, model: str, thetas: Mapping[Placement, float]) -> float:
    """Capacity of the model's sleeping servers, tokens/s."""
    return sum(state.sleeping * thetas[p] for p, state in seen.placements.items() if p.model == model)


def servers_asleep(
    seen: Observation,
    counts: Mapping[Placement, int],
    thetas: Mapping[Placement, float],
    highest_tokens_per_s: Mapping[str, float],
    most: int | None,
) -> dict[Placement, int]:
    """How many servers of each placement sleep beside `counts`: those that do, those that `counts` takes out of
    service, without those that it wakes.

    No more than `most` of a placement, and of a model no more than would serve its highest demand in the last season
    beside `counts`: what has never been needed need not be kept in host memory.
    """
    asleep: dict[Placement, int] = {}
    for model in seen.limits.models:
        own = [p for p in counts if p.model == model]
        if not own:
            continue
        room = highest_tokens_per_s.get(model, 0.0) - sum(counts[p] * thetas[p] for p in own)
        for p in own:
            if not seen.limits.capacity[p.model, p.gpu_type].can_sleep or thetas[p] <= 0:
                continue
            wanted = max(0, _kept(seen, p) - max(0, counts[p] - seen.placements[p].active))
            wanted += max(0, seen.placements[p].active - counts[p])
            allowed = max(0, ceil(room / thetas[p] - 1e-6))
            asleep[p] = min(wanted, allowed if most is None else min(allowed, most))
            room -= asleep[p] * thetas[p]
    return asleep


def _kept(seen: Observation, p: Placement) -> int:
    """Those asleep, and those on their way there: draining at the last plan's word."""
    state = seen.placements[p]
    told = _told(seen.previous, p)
    return max(state.sleeping, min(told, state.sleeping + state.draining))


def _told(previous: ScalingPlan | None, p: Placement) -> int:
    return 0 if previous is None else previous.sleeping.get(p, 0)
