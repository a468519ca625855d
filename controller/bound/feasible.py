"""What a plan of one pool really comes to: whether deadlines are kept, and what is left to do after the last step.

The interactive work of a violated step is late, not gone: it takes what room is left in that step and later, behind
deferrable work, and what still waits at the end is served then, at a unit-step each.
"""

import math
from itertools import pairwise

import numpy as np

from controller.bound.deferrable import Deferrable, done
from controller.bound.need import Counts, Need, Values, unit_steps

_TOLERANCE = 1e-7


def cost_in_all(need: Need, load: Values, work: Deferrable | None, plan: Counts) -> float:
    """Unit-steps of `plan` and of what it leaves to be served after the last step; infinite when a deadline is missed.

    `load` (interactive work, unit-steps) and `plan` have shape (steps,).
    """
    violated = plan < load - _TOLERANCE
    room = np.where(violated, plan, np.maximum(plan - load, 0.0))
    left, units_after = 0.0, 0
    if work is not None:
        served = done(work.arrived, room)
        slack = _TOLERANCE * max(work.total, 1.0)
        if np.any(served < work.due_in_turn - slack):
            return math.inf
        left = work.total - float(served[-1])
        behind = (work.after_due - float(served[-1]) - slack) / work.after_steps
        units_after = math.ceil(max(float(np.max(behind, initial=0.0)), float(left > slack)))
        room = room - np.diff(served, prepend=0.0)
    late = np.cumsum(np.where(violated, load, 0.0))
    left += float(late[-1] - done(late, np.maximum(room, 0.0))[-1])
    units_after = max(units_after, int(left > _TOLERANCE))
    return unit_steps(need, plan) + left + need.start_steps * max(0, units_after - int(plan[-1]))


def trimmed(need: Need, load: Values, work: Deferrable, plan: Counts) -> Counts:
    """`plan` with units taken out wherever that saves: longest stretches first, each as far as deadlines allow.

    Of every stretch above the need, all, its beginning or its end loses a unit; how much is found by halving.
    """
    best, cost = plan.copy(), cost_in_all(need, load, work, plan)
    found = best
    spare = best > need.required
    edges = np.flatnonzero(np.diff(spare.astype(np.int8), prepend=0, append=0) | np.diff(best, prepend=-1, append=-1))
    stretches = [(a, b) for a, b in pairwise(edges) if spare[a]]
    for a, b in sorted(stretches, key=lambda s: s[0] - s[1]):
        for from_left in (True, False):
            fewest, most, size = 0, int(b - a), int(b - a)
            while fewest < most:
                trial = best.copy()
                trial[slice(a, a + size) if from_left else slice(b - size, b)] -= 1
                meets = bool(np.all(trial[a:b] >= need.required[a:b]))
                tried = cost_in_all(need, load, work, trial) if meets else math.inf
                if tried < cost:
                    found, cost, fewest = trial, tried, size
                else:
                    most = size - 1
                size = (fewest + most + 1) // 2
            best = found if fewest else best
    return best
