"""The cheapest plan of one pool that violates no step: exact, without a solver.

min sum_t x_t + L sum_t u_t with u_t >= x_t - x_{t-1} and x_t >= required_t. Sums and rises of an integer series are the
sums over its levels k of those of the indicator [x_t >= k] (the coarea formula), so every level is a problem of its
own: the k-th unit must stand where required_t >= k, and between two such times it either stays, for the length of the
gap, or leaves and is started again, for L. The cheaper choices of all levels are nested, so they make a plan.
"""

import numpy as np

from controller.bound.need import Counts, Need


def least_plan(need: Need) -> Counts:
    """The cheapest units READY in each step, shape (steps,), with every step of `need.required` met."""
    required, steps = need.required, len(need.required)
    plan = np.full(steps, int(required.min()), dtype=np.int64)
    for level in range(int(required.min()) + 1, int(required.max()) + 1):
        needed = np.flatnonzero(required >= level)
        # What stood at time 0 has no start to pay for: its first gap begins there.
        stood = need.initial is None or level <= need.initial
        before = np.concatenate(([-1 if stood else needed[0] - 1], needed))
        gaps = np.diff(before) - 1
        kept = (gaps > 0) & (gaps <= need.start_steps)
        rises = np.zeros(steps + 1, dtype=np.int64)
        np.add.at(rises, needed, 1)
        np.add.at(rises, needed + 1, -1)
        np.add.at(rises, before[:-1][kept] + 1, 1)
        np.add.at(rises, needed[kept], -1)
        plan += np.cumsum(rises[:-1])
    return plan
