"""The whole demand of a trace, as perfect foresight knows it."""

import numpy as np

from controller.bound.problem import WaitingTokens, WholeDemand
from controller.types import Pool
from workloads.demand import demand_series
from workloads.trace import Trace


def whole_demand(trace: Trace, *, step_s: float = 60.0, niw: bool = True) -> WholeDemand:
    """Demand of `trace` on a grid of about `step_s` seconds that fills its horizon.

    All tokens of a request count when it arrives. NIW requests may wait until the end of the step of their deadline;
    with `niw` False they are left out. Raises ValueError for a step that is not above 0.
    """
    if not step_s > 0:
        raise ValueError(f"step_s={step_s}; must be above 0")
    steps = max(1, round(trace.horizon_s / step_s))
    step_s = trace.horizon_s / steps
    series = demand_series(trace, step_s, 0.0, trace.horizon_s)
    return WholeDemand(
        step_s=step_s,
        interactive={Pool(*key): values for key, values in series.interactive.items()},
        waiting=_waiting(trace, step_s, steps) if niw else {},
    )


def _waiting(trace: Trace, step_s: float, steps: int) -> dict[str, WaitingTokens]:
    """NIW tokens by model; requests with the same steps of arrival and deadline are one piece."""
    niw, models, tokens = ~trace.interactive, trace.labels("model"), trace.total_tokens
    arrives = np.minimum((trace.numbers("arrival_s") / step_s).astype(np.int64), steps - 1)
    deadline_s = trace.numbers("deadline_s")
    due = np.where(np.isnan(deadline_s), np.inf, np.ceil(deadline_s / step_s - 1e-9) - 1.0)
    due = np.maximum(due, arrives)
    found = {}
    for model in models.names:
        rows = niw & models.rows(model)
        if not rows.any():
            continue
        order = np.lexsort((due[rows], arrives[rows]))
        at, until, sizes = arrives[rows][order], due[rows][order], tokens[rows][order].astype(np.float64)
        first = np.flatnonzero(np.concatenate(([True], (np.diff(at) != 0) | (until[1:] != until[:-1]))))
        found[model] = WaitingTokens(arrives=at[first], due=until[first], tokens=np.add.reduceat(sizes, first))
    return found
