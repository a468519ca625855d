"""What the servers of a fleet must take together: by model, and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.history import DemandHistory
from controller.types import FleetLimits, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Tokens/s that each model needs capacity for, and the share (0..1) of them that arises in each region."""

    tokens_per_s: Mapping[str, float]
    shares: Mapping[Pool, float]

    def of_pool(self, pool: Pool) -> float:
        return self.tokens_per_s[pool.model] * self.shares.get(pool, 0.0)


def regional_shares(demand: DemandHistory, limits: FleetLimits, window_s: float) -> dict[Pool, float]:
    """Each region's share of its model's interactive tokens over the last `window_s`; equal shares with none."""
    shares: dict[Pool, float] = {}
    for model in limits.models:
        pools = [Pool(model, region) for region in limits.regions]
        tokens = {p: demand.latest(p, window_s) if p in demand.interactive else 0.0 for p in pools}
        total = sum(tokens.values())
        shares.update({p: t / total if total > 0 else 1.0 / len(pools) for p, t in tokens.items()})
    return shares
