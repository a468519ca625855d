"""Where servers go when there is nothing to choose but the region: in closed form.

With one GPU type for every pool and room in the quotas a model's least count is ceil(need / theta), all regions
together: the quantile of a sum is less than the sum of quantiles, so pooling saves what each region would add for
itself. Which region gets the next server, and which loses one, follows from what each lacks.
"""

from collections.abc import Mapping
from math import ceil

from controller.mpc.needs import Needs
from controller.types import FleetLimits, Placement, Pool

_NOISE = 1e-6


def spread(
    limits: FleetLimits, needs: Needs, standing: Mapping[Placement, int], asleep: Mapping[Placement, int]
) -> dict[Placement, int] | None:
    """Counts for every placement, changed from `standing` no more than the needs ask for; where servers are `asleep`
    they are woken before any is started.

    None where this rule does not decide: several GPU types, or models that compete for a quota. Servers are not moved
    for the sake of distance alone: a start takes minutes of a server, a round trip is a fraction of a second.
    """
    placements = limits.placements()
    if len({p.pool for p in placements}) < len(placements):
        return None
    counts: dict[Placement, int] = {}
    for model in limits.models:
        own = [p for p in placements if p.model == model]
        if len({p.gpu_type for p in own}) > 1:
            return None
        if own:
            counts.update(_of_model(limits, needs, own, standing, asleep))
    return counts if _fits(limits, counts) else None


def _of_model(
    limits: FleetLimits,
    needs: Needs,
    own: list[Placement],
    standing: Mapping[Placement, int],
    asleep: Mapping[Placement, int],
) -> dict[Placement, int]:
    theta = limits.capacity[own[0].model, own[0].gpu_type].theta_tokens_per_s
    counts = {p: max(standing.get(p, 0), limits.min_servers) for p in own}
    if theta <= 0:
        return counts
    wanted = max(ceil(needs.tokens_per_s[own[0].model] / theta - _NOISE), limits.min_servers * len(own))

    def lacking(p: Placement) -> float:
        return needs.of_pool(Pool(p.model, p.region)) - counts[p] * theta

    def sleeps(p: Placement) -> bool:
        return counts[p] < standing.get(p, 0) + asleep.get(p, 0)

    while sum(counts.values()) < wanted:
        counts[max(own, key=lambda p: (sleeps(p), lacking(p)))] += 1
    while sum(counts.values()) > wanted:
        counts[min((p for p in own if counts[p] > limits.min_servers), key=lacking)] -= 1
    return counts


def _fits(limits: FleetLimits, counts: Mapping[Placement, int]) -> bool:
    held: dict[tuple[str, str], float] = {}
    for p, count in counts.items():
        key = (p.region, p.gpu_type)
        held[key] = held.get(key, 0.0) + count * limits.capacity[p.model, p.gpu_type].gpus
    return all(gpus <= limits.quota_gpus[key] + _NOISE for key, gpus in held.items())
