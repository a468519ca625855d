"""What demand may peak at when too little of it has been seen for a fit."""

from math import exp, sqrt
from statistics import NormalDist

import numpy as np

from controller.history import Series
from controller.mpc.tail import SMALLEST, less

STEPS = 15
LEVEL_STEPS = 5
_BELIEVED_SIZE, _BELIEVED_STEPS = 0.1, 5
"""A step is off by a tenth, it is believed before any was seen, as if so many had said so."""


def recent_peak(values: Series, headroom: float) -> tuple[float, float]:
    """Tokens/s that one of the next steps exceeds with probability exp(-headroom), and their expected level.

    The level is the mean of the last 5 `values`. Steps around it are taken for log-normal; the size of their errors is
    that of the last 15 changes, two errors each.
    """
    lately = values[-STEPS:]
    level = float(lately[-LEVEL_STEPS:].mean()) if len(lately) else 0.0
    if not level > 0:
        return 0.0, 0.0
    changes = np.diff(np.log(np.maximum(lately, 1e-3 * level)))
    squares = _BELIEVED_STEPS * _BELIEVED_SIZE**2 + float(changes @ changes) / 2
    size = sqrt(squares / (_BELIEVED_STEPS + len(changes)))
    score = -NormalDist().inv_cdf(exp(-max(SMALLEST, headroom)))
    return level * exp(size * score) * float(less(np.array([headroom]))[0]), level
