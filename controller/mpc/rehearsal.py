"""What to begin with: the headroom that would have kept the budget on the days before, for which way of planning.

A fleet of fluid servers is led through the past by a constant headroom: up after the lead, down at once, held, whole
servers. What arrives beyond what they serve waits in a queue, and misses once the queue is longer than a request may
wait: an overload that passes within seconds is no miss. So a run need not spend its first days on finding out.

The worst surprise of the past is left out. Seen once, it does not tell how often it comes, and with a small budget it
alone would decide: a third more servers all week for a quarter of an hour that will not be the same again.

Where what was needed once comes back, a long hold spares headroom; where demand leaps and is gone, headroom is the
cheaper of the two. Where rough demand tells of surprises, more is planned for after it; where bursts come out of calm,
that would be too late and for nothing. Of these ways, the one that keeps the budget with fewest server-hours is it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from controller.history import Series
from controller.mpc.headroom import unrehearsed
from controller.mpc.held import LEADS_HELD
from controller.mpc.lead_peak import LeadPeakFit, LeadPeaks
from controller.mpc.leads import patience_s, saturation_of_cheapest, theta_of_cheapest
from controller.mpc.outlook import ModelPast
from controller.mpc.tail import LEAST, MOST
from controller.types import FleetLimits

_LEAST_STEPS_BEFORE = 200
_LEAST_SURPRISES = 10
"""A past shorter than so many surprises tells nothing once the worst is left out."""
_MOST_STEPS = 20_000
"""Two weeks of minutes: a grid of seconds is rehearsed over hours."""
_SERVER_SIZES = (0.9, 0.95, 1.0, 1.05, 1.1)
"""Rehearsed with servers of several sizes: a demand that whole servers happened to fit would teach to plan for less."""
_PRECISION = 0.05
_HOLDS = (LEADS_HELD, LEADS_HELD / 2, 0.0)
"""In leads, the longest first."""
_WORTH_ANOTHER = 0.01
"""Of the server-hours: what another way must save. A shorter hold starts and stops servers more often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What the past is replayed with.

    `values`: tokens/s of one model by step. `theta_tokens_per_s`: what a server is planned to take; while requests
    queue, it serves `saturation` (1 or more) times that. A request may queue for `patience_steps`; with 0 nothing
    queues: a step above theta misses as a whole, and the next begins anew. There are always `least_servers`.
    """

    values: Series
    theta_tokens_per_s: float
    saturation: float
    patience_steps: float
    least_servers: int
    lead_steps: int

    @property
    def surprise_steps(self) -> int:
        """What misses within the time of a start and the longest hold is one surprise."""
        return max(1, self.lead_steps + self.hold_steps(LEADS_HELD))

    def hold_steps(self, leads: float) -> int:
        return round(leads * self.lead_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """`headroom`: the first one. From now on, `leads_held`: for how many leads a need is held, and `even`: whether the
    errors of forecasts are taken to be of one size.
    """

    headroom: float
    leads_held: float = LEADS_HELD
    even: bool = False


def beginning(
    past: ModelPast, peaks: LeadPeaks, limits: FleetLimits, model: str, lead_s: float, budget: float
) -> Beginning:
    """What the past of `model` says to begin with; `unrehearsed` and the longest hold where it is too short to tell."""
    window = past.window_steps(lead_s)
    found = {even: peaks.fit(past.values, past.last_step, window, even=even) for even in (False, True)}
    fits = {even: fit for even, fit in found.items() if fit is not None}
    theta = theta_of_cheapest(limits, model)
    unknown = Beginning(headroom=unrehearsed(budget, window))
    if not fits or theta <= 0:
        return unknown
    given = Rehearsal(
        values=past.values,
        theta_tokens_per_s=theta,
        saturation=saturation_of_cheapest(limits, model),
        patience_steps=patience_s(limits, model) / past.step_s,
        least_servers=limits.min_servers * len({p.region for p in limits.placements() if p.model == model}),
        lead_steps=window - 1,
    )
    return rehearsed(fits, given, budget, peaks.fit_steps) or unknown


def rehearsed(fits: Mapping[bool, LeadPeakFit], given: Rehearsal, budget: float, steps: int) -> Beginning | None:
    """The way of fewest server-hours, each with the least headroom at which at most `budget` (0..1) of the last `steps`
    of the past would have missed, by their demand and without the worst surprise; `fits` by whether errors are even.
    Where no headroom keeps the budget, MOST with the longest hold; None where the past is too short to tell.
    """
    season = next(iter(fits.values())).season_steps
    first = max(len(given.values) - min(steps, _MOST_STEPS), season // 4, _LEAST_STEPS_BEFORE)
    came = given.values[first:]
    if not came.sum() > 0 or len(came) < _LEAST_SURPRISES * given.surprise_steps:
        return None
    expected = {even: fit.expected(given.values, first) for even, fit in fits.items()}

    thetas = [size * given.theta_tokens_per_s for size in _SERVER_SIZES]
    allowed = budget * float(came.sum()) * len(thetas)

    def fleets(even: bool, leads: float, headroom: float) -> list[Series]:
        """Servers in each step, those that start among them, by the size of a server."""
        log_peaks, sizes = (column[: len(came)] for column in expected[even])
        levels, _ = fits[even].planned(log_peaks, sizes, headroom, budget)
        held = _trailing(levels, given.hold_steps(leads) + 1).max(axis=1)
        return [np.maximum(given.least_servers, np.ceil(held / theta - 1e-6)) for theta in thetas]

    def overspends(even: bool, leads: float, headroom: float) -> bool:
        total = 0.0
        for servers, theta in zip(fleets(even, leads, headroom), thetas, strict=True):
            ready = np.asarray(_trailing(servers, given.lead_steps + 1).min(axis=1) * theta)
            missed = came * missed_shares(came, ready, given.saturation, given.patience_steps)
            total += _without_worst(missed, given.surprise_steps)
        return total > allowed

    def server_steps(even: bool, leads: float, headroom: float) -> float:
        return sum(float(s.sum()) * theta for s, theta in zip(fleets(even, leads, headroom), thetas, strict=True))

    best, fewest = Beginning(headroom=MOST), np.inf
    for even, leads in product(fits, _HOLDS):
        headroom = _least_that_keeps(partial(overspends, even, leads))
        if headroom is None:
            continue
        taken = server_steps(even, leads, headroom)
        if taken < (1 - _WORTH_ANOTHER) * fewest:
            best, fewest = Beginning(headroom=headroom, leads_held=leads, even=even), taken
    return best


def _least_that_keeps(overspends: Callable[[float], bool]) -> float | None:
    """The least headroom that does not overspend, to `_PRECISION`; None where every one does."""
    if not overspends(LEAST):
        return LEAST
    if overspends(MOST):
        return None
    low, high = LEAST, MOST
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if overspends(middle) else (low, middle)
    return high


def missed_shares(came: Series, ready: Series, saturation: float, patience_steps: float) -> Series:
    """The share (0..1) of each step's demand that waits for longer than it may. `came` and `ready` in tokens/s; the
    others as in `Rehearsal`.

    The queue follows Lindley's recursion; within a step the wait goes evenly from what it was to what it becomes.
    """
    if patience_steps <= 0:
        return np.asarray(came > ready * (1 + 1e-9), dtype=np.float64)
    serving = np.maximum(ready * saturation, 1e-9)
    surplus = np.concatenate([[0.0], np.cumsum(came - serving)])
    queue = surplus - np.minimum.accumulate(surplus)
    before, after = queue[:-1] / serving, queue[1:] / serving
    shortest, longest = np.minimum(before, after), np.maximum(before, after)
    width = np.maximum(longest - shortest, 1e-9)
    return np.asarray(np.clip((longest - patience_steps) / width, 0.0, 1.0))


def _without_worst(missed: Series, width: int) -> float:
    """The sum of `missed` but for the `width` steps in a row that missed most."""
    total = np.concatenate([[0.0], np.cumsum(missed)])
    return float(total[-1] - (total[width:] - total[:-width]).max())


def _trailing(values: Series, width: int) -> Series:
    """Windows of the last `width` values, shape (steps, width); the first value stands for those before it."""
    padded = np.concatenate([np.full(width - 1, values[0]), values])
    return np.lib.stride_tricks.sliding_window_view(padded, width)
