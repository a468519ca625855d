"""What the limits say of a model: its lead and theta, on the GPU type that is cheapest for its work."""

from collections.abc import Mapping
from dataclasses import replace

from controller.program.prices import price_per_token
from controller.types import Capacity, FleetLimits, Placement


def _cheapest(limits: FleetLimits, model: str) -> Capacity | None:
    """Of the GPU type that is cheapest for the model's work; None where no region has one."""
    own = [p for p in limits.placements() if p.model == model and _works(limits, p)]
    best = min(own, key=lambda p: price_per_token(limits, p), default=None)
    return None if best is None else limits.capacity[best.model, best.gpu_type]


def _works(limits: FleetLimits, p: Placement) -> bool:
    capacity = limits.capacity[p.model, p.gpu_type]
    return capacity.theta_tokens_per_s > 0 and limits.quota_gpus[p.region, p.gpu_type] >= capacity.gpus


def start_lead_s(limits: FleetLimits, model: str) -> float | None:
    """Seconds from command to READY; None where the model can stand nowhere."""
    cheapest = _cheapest(limits, model)
    return None if cheapest is None else cheapest.start_s


def wake_lead_s(limits: FleetLimits, model: str) -> float | None:
    """Seconds from asleep to READY; None where its servers cannot sleep."""
    cheapest = _cheapest(limits, model)
    return None if cheapest is None else cheapest.wake_s


def theta_of_cheapest(limits: FleetLimits, model: str) -> float:
    """Tokens/s that one server sustains, by profile; 0 where the model can stand nowhere."""
    cheapest = _cheapest(limits, model)
    return 0.0 if cheapest is None else cheapest.theta_tokens_per_s


def with_ratios(limits: FleetLimits, ratios: Mapping[str, float]) -> FleetLimits:
    """The limits with theta as live service shows it."""
    if all(ratio == 1.0 for ratio in ratios.values()):
        return limits
    return replace(
        limits,
        capacity={
            (model, gpu_type): replace(c, theta_tokens_per_s=c.theta_tokens_per_s * ratios.get(model, 1.0))
            for (model, gpu_type), c in limits.capacity.items()
        },
    )
