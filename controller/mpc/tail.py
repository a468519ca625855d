"""Quantiles of past errors far out in their tail, and how far out it pays to go.

A headroom h stands for the quantile that is exceeded with probability exp(-h).
"""

import numpy as np

from controller.history import Series

LEAST, MOST = 0.7, 9.0
_GRID = np.arange(LEAST, MOST + 0.01, 0.1)
_TAIL_SHARE = 0.05
_WORTH_SHARE = 0.5


def score_at(scores: Series, headroom: float) -> float:
    """The error that is exceeded with probability exp(-headroom); `scores`, shape (n,), n at least 1, are rising.

    Between two errors it is interpolated; beyond the largest an exponential tail goes on whose mean excess is that of
    the largest 5 %.
    """
    n = len(scores)
    rank = n - np.exp(-headroom) * (n + 1)
    if rank < n - 1:
        below = max(int(rank), 0)
        share = min(max(rank - below, 0.0), 1.0)
        return float(scores[below] + share * (scores[below + 1] - scores[below]))
    tail = scores[-max(2, int(_TAIL_SHARE * n)) :]
    excess = float(tail.mean() - tail[0])
    return float(scores[-1] + excess * max(0.0, headroom - np.log(n + 1)))


def scores_on_grid(scores: Series) -> Series:
    """`score_at` for headrooms from LEAST to MOST in steps of 0.1."""
    return np.array([score_at(scores, headroom) for headroom in _GRID])


def worthwhile(grid_scores: Series, size: float, headroom: float, budget: float) -> float:
    """The headroom up to `headroom` at which what more costs is worth what it prevents.

    Servers for a peak cost in proportion to it, exp(size score) with the expected peak as unit; a step that falls
    short is charged 0.5 / budget of these units: preventing all that the budget allows may cost half as much as the
    fleet itself, and no more. In a calm hour this binds nowhere; where errors have a fat tail, chasing the last
    surprises would multiply the fleet and prevent nothing.
    """
    last = int((headroom - LEAST) / 0.1 + 1e-9) + 1
    grid = _GRID[:last]
    worth = np.exp(np.minimum(size * grid_scores[:last], 700.0)) + _WORTH_SHARE / budget * np.exp(-grid)
    best = int(np.argmin(worth))
    return headroom if best == last - 1 else float(grid[best])
