"""Requests that wait too long, and what servers would have to take beyond demand to be rid of them within a start.

Whoever comes while others wait, waits behind them: a burst that has passed is missed on for as long as its queue lasts.
To serve a queue of Q tokens within T takes Q / T for T, the same server-hours however long T is; what a start costs
besides is the smaller the longer T, what misses meanwhile the larger. T of one lead is about where both cost the same.

It is not held as a need is (`controller.mpc.held`): a queue that is gone does not come back by itself.
"""

from collections.abc import Mapping

from controller.mpc.leads import patience_s, stay_s
from controller.types import Observation, Placement


def late_tokens(seen: Observation, model: str, thetas: Mapping[Placement, float]) -> float:
    """Tokens of the model's requests sent and not ended, beyond those that its READY servers work on or come to in
    time: `thetas` tokens/s for as long as a request may stay with a server, and for as long as it may queue.
    """
    own = [(state, thetas[p]) for p, state in seen.placements.items() if p.model == model]
    sent = sum(state.outstanding_tokens for state, _ in own)
    in_time_s = stay_s(seen.limits, model) + patience_s(seen.limits, model)
    return max(0.0, sent - sum(state.ready * theta for state, theta in own) * in_time_s)


def clearing_tokens_per_s(level_tokens_per_s: float, late: float, lead_s: float) -> float:
    """What takes demand at its level and `late` tokens within a lead; 0 where nobody waits for too long."""
    return level_tokens_per_s + late / lead_s if late > 0 and lead_s > 0 else 0.0
