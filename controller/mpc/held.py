"""Needs that are still held: a server is not stopped soon after it was needed.

Stopping and starting again costs a start, so a server earns its stop only when it is not needed for that long; and a
need that came once is likelier to come again than a forecast of the middle of things knows. As in ski rental, what was
needed is held for twice the lead. It is remembered in `Memory.numbers` as `needed MODEL @SECONDS`: tokens/s, and
only those that no later and higher one has made useless.
"""

from collections.abc import Mapping

from controller.types import Observation, Placement

LEADS_HELD = 2.0
_EARLY_S = 1e-3


def highest_held(numbers: Mapping[str, float], model: str, since_s: float) -> float:
    """The highest need of `model` since then, tokens/s; 0 with none."""
    return max((need for _, need in _held(numbers, model, since_s)), default=0.0)


def held_numbers(
    numbers: Mapping[str, float], model: str, at_s: float, needed_tokens_per_s: float, since_s: float
) -> dict[str, float]:
    """What to remember after a new need."""
    kept = [(t, need) for t, need in _held(numbers, model, since_s) if need > needed_tokens_per_s and t < at_s]
    return {f"{_prefix(model)}{t:.3f}": need for t, need in [*kept, (at_s, needed_tokens_per_s)]}


def _held(numbers: Mapping[str, float], model: str, since_s: float) -> list[tuple[float, float]]:
    prefix = _prefix(model)
    held = [(float(name.removeprefix(prefix)), need) for name, need in numbers.items() if name.startswith(prefix)]
    return sorted((t, need) for t, need in held if t >= since_s - _EARLY_S)


def _prefix(model: str) -> str:
    return f"needed {model} @"


def standing_tokens_per_s(seen: Observation, model: str, thetas: Mapping[Placement, float]) -> float:
    """Capacity of the model's servers that serve now or soon. Before demand has been seen for as long as a need is
    held, nothing says that less would do."""
    return sum(state.active * thetas[p] for p, state in seen.placements.items() if p.model == model)
