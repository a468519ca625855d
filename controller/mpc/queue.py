"""Requests that wait: what servers would have to take beyond demand to be rid of a queue by the time a start takes.

Whoever comes while others wait, waits behind them: a burst that has passed is missed on for as long as its queue lasts.
To serve a queue of Q tokens within T takes Q / T for T, the same server-hours however long T is; what a start costs
besides is the smaller the longer T, what misses meanwhile the larger. T of one lead is about where both cost the same.
"""

from collections.abc import Mapping

from controller.types import Observation, Placement


def waiting_tokens(seen: Observation, model: str, thetas: Mapping[Placement, float], stay_s: float) -> float:
    """Tokens of the model's requests sent and not ended, beyond those that its READY servers work on: a request stays
    with a server for `stay_s` at most, so that these are at most theta times that.
    """
    own = [(state, thetas[p]) for p, state in seen.placements.items() if p.model == model]
    sent = sum(state.outstanding_tokens for state, _ in own)
    return max(0.0, sent - sum(state.ready * theta for state, theta in own) * stay_s)


def clearing_tokens_per_s(level_tokens_per_s: float, waiting: float, lead_s: float) -> float:
    """What takes demand at its level and `waiting` tokens within a lead; 0 where nobody waits."""
    return level_tokens_per_s + waiting / lead_s if waiting > 0 and lead_s > 0 else 0.0
