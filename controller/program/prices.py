"""What servers cost: one place for the rule that unknown prices count GPUs instead of dollars."""

from math import inf

from controller.types import FleetLimits, Placement


def hourly_price(limits: FleetLimits, placement: Placement) -> float:
    """One server of the placement for an hour: USD, or GPU-hours where the price of any GPU type is unknown (0).

    Mixing the two would make the GPU type without a price look cheap or free.
    """
    capacity = limits.capacity[placement.model, placement.gpu_type]
    priced = all(c.usd_per_gpu_h > 0 for c in limits.capacity.values())
    return capacity.gpus * (capacity.usd_per_gpu_h if priced else 1.0)


def start_up_price(limits: FleetLimits, placement: Placement) -> float:
    """sigma: one start of a server of the placement, its GPUs held from the command to READY; as `hourly_price`."""
    return hourly_price(limits, placement) * limits.capacity[placement.model, placement.gpu_type].start_s / 3600.0


def price_per_token(limits: FleetLimits, placement: Placement) -> float:
    """One token/s of capacity for an hour: ranks GPU types for a model, cheapest first to add, last to remove."""
    theta = limits.capacity[placement.model, placement.gpu_type].theta_tokens_per_s
    return hourly_price(limits, placement) / theta if theta > 0 else inf
