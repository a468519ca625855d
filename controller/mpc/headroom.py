"""How far above the expected peak to plan: a headroom that learns from what it costs in missed requests.

Adaptive conformal inference (Gibbs and Candes, NeurIPS 2021): after each step with a share m of missed requests

    headroom += gain w (m - budget),   w: the step's demand over the mean of a season

so that over any long time the share of all requests that missed is the budget, whatever demand does: a busy minute
weighs as much as the requests that it holds. The headroom is -ln of the chance that
the peak lies above what is planned for: 3 means 5 %, 4.6 means 1 %. On this scale a step means the same in a calm hour
and a rough one, and costs little where errors have thin tails.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from controller.history import Series
from controller.mpc.lead_peak import LeadPeakFit
from controller.mpc.tail import LEAST, MOST, score_at, worthwhile

START = 3.0
GAIN = 0.05
_WOUND_UP = 1.0


def adapted(headroom: float, missed_share: float, budget: float, weight: float = 1.0) -> float:
    """The headroom after `missed_share` (0..1) of as many requests as `weight` mean steps hold missed their SLO."""
    return float(min(MOST, max(LEAST, headroom + GAIN * weight * (missed_share - budget))))


def unwound(headroom: float, in_force: float) -> float:
    """A headroom that was not worth its price is remembered no further than 1 above the one in force: otherwise it
    would wind up while it has no effect, and overspend when demand calms down.
    """
    return min(headroom, in_force + _WOUND_UP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What the past is replayed with: `values` tokens/s of one model, what a server takes, how long one starts, and
    how many there are whatever is needed.
    """

    values: Series
    theta_tokens_per_s: float
    least_servers: int
    lead_steps: int
    hold_steps: int


def rehearsed(fit: LeadPeakFit, given: Rehearsal, budget: float, steps: int) -> float:
    """The headroom that the last `steps` of the past would have brought about, from START.

    A fleet of fluid servers is led by the fit through the past: up after the lead, down at once, held for
    `hold_steps`. So a run need not spend its first day on finding a headroom.
    """
    first = max(len(given.values) - steps, fit.season_steps // 4, 200)
    if first >= len(given.values):
        return START
    log_peaks, sizes = fit.expected(given.values, first)
    headroom, mean = START, float(given.values[first:].mean())
    levels: deque[float] = deque(maxlen=given.hold_steps + 1)
    active: deque[float] = deque(maxlen=given.lead_steps + 1)
    for log_peak, size, came in zip(log_peaks.tolist(), sizes.tolist(), given.values[first:].tolist(), strict=False):
        in_force = worthwhile(fit.grid_scores, size, headroom, budget)
        headroom = unwound(headroom, in_force)
        levels.append(fit.peak_tokens_per_s(log_peak, size, score_at(fit.scores, in_force)))
        active.append(max(given.least_servers, np.ceil(max(levels) / given.theta_tokens_per_s - 1e-6)))
        ready = min(active) * given.theta_tokens_per_s
        headroom = adapted(headroom, float(came > ready * (1 + 1e-9)), budget, came / mean if mean > 0 else 1.0)
    return headroom
