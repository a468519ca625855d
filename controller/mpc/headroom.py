"""How far above the expected peak to plan: a headroom that learns from what it costs in missed requests.

Adaptive conformal inference (Gibbs and Candes, NeurIPS 2021): after each step with a share m of missed requests

    headroom += gain w (m - budget),   w: the step's demand over the mean of a season

so that over any long time the share of all requests that missed is the budget, whatever demand does: a busy minute
weighs as much as the requests that it holds. The gain is the smaller the more of the past has had its say in the
headroom (as in stochastic approximation, Robbins and Monro 1951): one bad hour is little against a week.

The headroom is -ln of the chance that the peak lies above what is planned for: 3 means 5 %, 4.6 means 1 %. On this
scale a step means the same in a calm hour and a rough one, and costs little where errors have thin tails.
"""

from math import log

from controller.mpc.tail import LEAST, MOST, SMALLEST

MOST_GAIN = 0.05
_WOUND_UP = 1.0


def unrehearsed(budget: float, window_steps: int) -> float:
    """What to begin with when no past tells: of the `window_steps` that a peak is of, each lies above plan with the
    chance of the budget, and so the peak with at most that many times it (Boole's inequality).
    """
    return min(MOST, max(SMALLEST, -log(window_steps * budget)))


def gain(budget: float, past_steps: int) -> float:
    """How far the headroom moves for a mean step that missed: 1 / (budget past_steps), at most 0.05.

    What misses falls as exp(-headroom), by the budget for each unit of it near where the budget is kept, so that this
    is Newton's step towards the headroom that would have kept it in all the `past_steps` of history.
    """
    return min(MOST_GAIN, 1.0 / (budget * max(1, past_steps)))


def adapted(headroom: float, missed_share: float, budget: float, *, weight: float, past_steps: int) -> float:
    """The headroom after `missed_share` (0..1) of as many requests as `weight` mean steps hold missed their SLO."""
    moved = headroom + gain(budget, past_steps) * weight * (missed_share - budget)
    return float(min(MOST, max(LEAST, moved)))


def unwound(headroom: float, in_force: float) -> float:
    """A headroom that was not worth its price is remembered no further than 1 above the one in force: otherwise it
    would wind up while it has no effect, and overspend when demand calms down.
    """
    return min(headroom, in_force + _WOUND_UP)
