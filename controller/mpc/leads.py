"""What the limits say of a model: longest lead and stay of its GPU types; theta on the one cheapest to work on, what
kinds of tokens take of it, and what it sustains beyond it."""

from collections.abc import Mapping
from dataclasses import replace

from controller.program.prices import price_per_token
from controller.types import Capacity, FleetLimits, Placement


def _usable(limits: FleetLimits, model: str) -> list[Capacity]:
    """Of the GPU types that the model can stand on, cheapest for its work first."""
    own = [p for p in limits.placements() if p.model == model and _works(limits, p)]
    return [limits.capacity[p.model, p.gpu_type] for p in sorted(own, key=lambda p: price_per_token(limits, p))]


def _works(limits: FleetLimits, p: Placement) -> bool:
    capacity = limits.capacity[p.model, p.gpu_type]
    return capacity.theta_tokens_per_s > 0 and limits.quota_gpus[p.region, p.gpu_type] >= capacity.gpus


def start_lead_s(limits: FleetLimits, model: str) -> float | None:
    """Seconds from command to READY; None where the model can stand nowhere. The longest of its GPU types: the one that
    starts sooner may be full.
    """
    return max((capacity.start_s for capacity in _usable(limits, model)), default=None)


def stay_s(limits: FleetLimits, model: str) -> float:
    """How long a request of the model may stay with a server, the longest of its GPU types."""
    return max((capacity.stay_s for capacity in _usable(limits, model)), default=0.0)


def wake_lead_s(limits: FleetLimits, model: str) -> float | None:
    """Seconds from asleep to READY, the longest of its GPU types; None where on one of them it cannot sleep."""
    wakes = [capacity.wake_s for capacity in _usable(limits, model)]
    known = [wake_s for wake_s in wakes if wake_s is not None]
    return max(known) if known and len(known) == len(wakes) else None


def theta_of_cheapest(limits: FleetLimits, model: str) -> float:
    """Tokens/s that one server sustains, by profile; 0 where the model can stand nowhere."""
    usable = _usable(limits, model)
    return usable[0].theta_tokens_per_s if usable else 0.0


def token_weights(limits: FleetLimits, model: str) -> tuple[float, float]:
    """What a prompt token and an output token take of a server, in tokens of the mix that theta counts: by each alone
    it would take theta / weight of them. (1, 1) where only theta is known.
    """
    usable = _usable(limits, model)
    if not usable or usable[0].prefill_tokens_per_s is None or usable[0].decode_tokens_per_s is None:
        return 1.0, 1.0
    theta = usable[0].theta_tokens_per_s
    return theta / usable[0].prefill_tokens_per_s, theta / usable[0].decode_tokens_per_s


def saturation_of_cheapest(limits: FleetLimits, model: str) -> float:
    """What one server serves while requests queue, over theta: 1 or more, 1 where it is not known."""
    usable = _usable(limits, model)
    saturated = usable[0].saturated_tokens_per_s if usable else None
    return 1.0 if saturated is None else max(1.0, saturated / usable[0].theta_tokens_per_s)


def patience_s(limits: FleetLimits, model: str) -> float:
    """How long a request of the model may queue within its SLO, the shortest of its GPU types."""
    return min((capacity.patience_s for capacity in _usable(limits, model)), default=0.0)


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
