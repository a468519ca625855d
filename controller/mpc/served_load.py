"""What arrives is served over the time that it stays: from arriving tokens/s to the load of servers."""

import numpy as np

from controller.history import Series


def served_load(values: Series, stay_steps: float) -> Series:
    """Tokens/s in service in each step, where `values` arrive, tokens/s by step, and each stays for `stay_steps`.

    A request is served at an even pace while it stays, so that a minute full of arrivals is the load of that minute and
    of those after it. Of what arrives evenly over a step, C(T) is done T steps after that step began:

        C(T) = H(T) - H(T - 1),   H(x) = integral from 0 to x of min(1, v / stay) dv

    Nothing arriving before the first step is known; it counts as that one's.
    """
    if stay_steps <= 0 or len(values) == 0:
        return values
    ends = np.arange(np.ceil(stay_steps) + 2.0)
    done: Series = _pace(ends, stay_steps) - _pace(ends - 1.0, stay_steps)
    shares = np.diff(done)
    before = np.full(len(shares) - 1, values[0])
    return np.convolve(np.concatenate([before, values]), shares, mode="valid")


def _pace(x: Series, stay: float) -> Series:
    within = np.clip(x, 0.0, stay)
    return np.asarray(within * within / (2 * stay) + np.maximum(x - stay, 0.0))
