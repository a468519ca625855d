"""What one pool needs, step by step, and what a plan for it costs: the terms that the other files here share.

A *unit* is one server, or a number of GPUs that every server of the pool is a multiple of. Costs are in unit-steps: one
unit held for one step.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Units that must be READY throughout each step.

    `required`: shape (steps,), at least `least`, which must stand in every step, violated or not. `start_steps`: steps
    for which a unit is held before it is READY again; `cold_steps`, where that is more, before it is so for the first
    time. `initial`: units READY at time 0, which nobody paid the start of; None for as many as hindsight wishes for.
    Raises ValueError when a value is negative, or `required` falls below `least`.
    """

    required: Counts
    start_steps: float
    least: int = 0
    initial: int | None = None
    cold_steps: float = 0.0

    def __post_init__(self) -> None:
        if len(self.required) == 0 or self.least < 0 or self.required.min() < self.least:
            raise ValueError(f"least={self.least}; required must have a step, and none below a least of 0 or more")
        if self.start_steps < 0 or (self.initial is not None and self.initial < 0):
            raise ValueError(f"start_steps={self.start_steps}, initial={self.initial}; must not be negative")

    def excused(self, violated: Mask) -> "Need":
        """This need where the steps of `violated`, shape (steps,), take no more than the least."""
        return replace(self, required=np.where(violated, self.least, self.required))

    def reachable(self) -> Counts:
        """The most units that can be READY in each step, shape (steps,): what starts at time 0 is READY later."""
        if self.initial is None:
            return np.full(len(self.required), np.iinfo(np.int64).max)
        early = np.arange(len(self.required)) < max(self.start_steps, self.cold_steps)
        return np.where(early, np.maximum(self.initial, self.required), np.iinfo(np.int64).max)


def starts(need: Need, plan: Counts) -> int:
    """Units that `plan`, shape (steps,), starts."""
    before = plan[0] if need.initial is None else need.initial
    return int(np.maximum(np.diff(plan, prepend=before), 0).sum())


def unit_steps(need: Need, plan: Counts) -> float:
    """What `plan`, shape (steps,), costs: units held while READY, and `start_steps` for each start."""
    return float(plan.sum()) + need.start_steps * starts(need, plan)
