"""How far above the expected peak to plan: a headroom that learns from what it costs in missed requests.

Adaptive conformal inference (Gibbs and Candes, NeurIPS 2021): after each step with a share m of missed requests

    headroom += gain w (m - budget),   w: the step's demand over the mean of a season

so that over any long time the share of all requests that missed is the budget, whatever demand does: a busy minute
weighs as much as the requests that it holds. The headroom is -ln of the chance that
the peak lies above what is planned for: 3 means 5 %, 4.6 means 1 %. On this scale a step means the same in a calm hour
and a rough one, and costs little where errors have thin tails.
"""

from math import log

from controller.mpc.tail import LEAST, MOST, SMALLEST

GAIN = 0.05
_WOUND_UP = 1.0


def unrehearsed(budget: float, window_steps: int) -> float:
    """What to begin with when no past tells: of the `window_steps` that a peak is of, each lies above plan with the
    chance of the budget, and so the peak with at most that many times it (Boole's inequality).
    """
    return min(MOST, max(SMALLEST, -log(window_steps * budget)))


def adapted(headroom: float, missed_share: float, budget: float, weight: float = 1.0) -> float:
    """The headroom after `missed_share` (0..1) of as many requests as `weight` mean steps hold missed their SLO."""
    return float(min(MOST, max(LEAST, headroom + GAIN * weight * (missed_share - budget))))


def unwound(headroom: float, in_force: float) -> float:
    """A headroom that was not worth its price is remembered no further than 1 above the one in force: otherwise it
    would wind up while it has no effect, and overspend when demand calms down.
    """
    return min(headroom, in_force + _WOUND_UP)
