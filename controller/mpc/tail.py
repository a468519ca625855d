"""Quantiles of past errors far out in their tail, and how far out it pays to go.

A headroom h stands for the quantile that is exceeded with probability exp(-h). Down to 0.1 that means something: nine
peaks in ten are higher. Below it a plan is made for less than what nearly always came, a tenth less for each unit;
servers can take that where requests may queue for a while.
"""

import numpy as np

from controller.history import Series

LEAST, MOST = -3.0, 9.0
SMALLEST = 0.1
"""The least headroom that stands for a quantile."""
_STEP = 0.1
_GRID = np.arange(SMALLEST, MOST + 0.01, _STEP)
_LESS_PER_UNIT = 0.1
_TAIL_SHARE = 0.05
_WORTH_SHARE = 0.5


def tail_scores(errors: Series) -> Series:
    """Of `errors`, shape (n,), n at least 1 and rising, those exceeded with probability exp(-h), for h from 0.1 to MOST
    in steps of 0.1.

    Between two errors it is interpolated; beyond the largest an exponential tail goes on whose mean excess is that of
    the largest 5 %.
    """
    n = len(errors)
    ranks = n - np.exp(-_GRID) * (n + 1)
    tail = errors[-max(2, int(_TAIL_SHARE * n)) :]
    beyond = errors[-1] + float(tail.mean() - tail[0]) * np.maximum(0.0, _GRID - np.log(n + 1))
    return np.asarray(np.where(ranks < n - 1, np.interp(ranks, np.arange(n), errors), beyond))


def score_at(scores: Series, headrooms: Series) -> Series:
    """The error at each of `headrooms`, where `scores` are those of `tail_scores`."""
    return np.asarray(np.interp(headrooms, _GRID, scores))


def less(headrooms: Series) -> Series:
    """What share of the peak is planned for at each of `headrooms`: 1 but for those below 0.1."""
    return np.asarray(np.exp(_LESS_PER_UNIT * np.minimum(0.0, headrooms - SMALLEST)))


def worthwhile(scores: Series, sizes: Series, headroom: float, budget: float) -> Series:
    """For each of `sizes` the headroom up to `headroom` at which what more costs is worth what it prevents.

    Servers for a peak cost in proportion to it, exp(size score) with the expected peak as unit; a step that falls
    short is charged 0.5 / budget of these units: preventing all that the budget allows may cost half as much as the
    fleet itself, and no more. In a calm hour this binds nowhere; where errors have a fat tail, chasing the last
    surprises would multiply the fleet and prevent nothing.
    """
    if headroom <= SMALLEST:
        return np.full(len(sizes), headroom)
    last = int((headroom - SMALLEST) / _STEP + 1e-9)
    grid = _GRID[: last + 1]
    worth = np.exp(np.minimum(np.outer(sizes, scores[: last + 1]), 700.0)) + _WORTH_SHARE / budget * np.exp(-grid)
    best = worth.argmin(axis=1)
    return np.where(best == last, headroom, grid[best])
