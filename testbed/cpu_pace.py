"""How steady the cores are: does the same work take the same time?

Where another machine's work shares a core (a neighbour on the same hyperthreads), it does not, and nothing that this
machine counts shows it: neither load nor steal time.
"""

import time
from collections.abc import Callable

import numpy as np

_PIECE = 20_000
_SECONDS = 3.0


def pace_spread(seconds: float = _SECONDS, *, cpu_s: Callable[[], float] = time.thread_time) -> float:
    """By how much slow pieces of the same arithmetic take longer than fast ones: their 90th percentile over their 10th.

    1 on cores that nobody shares. In CPU time of this thread, so that waiting for a core does not count.
    """
    took_s = []
    began_s = cpu_s()
    until_s = began_s + seconds
    while began_s < until_s:
        sum(number * number for number in range(_PIECE))
        now_s = cpu_s()
        took_s.append(now_s - began_s)
        began_s = now_s
    fast_s, slow_s = np.quantile(took_s, (0.1, 0.9))
    return float(slow_s / fast_s)
