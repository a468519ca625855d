"""Work that may wait until its deadline: cumulative curves, and when to serve it.

With S_t the work done by the end of step t, A_t what has arrived by then and D_t what is due, deferrable work asks for
D_t <= S_t <= A_t with S never falling. Work is in unit-steps: what one unit serves in one step.
"""

from dataclasses import dataclass

import numpy as np

from controller.bound.need import Counts, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferrable:
    """Curves of one pool, each cumulative, never falling, of shape (steps,).

    `arrived`: work there by the end of each step, counted from the beginning of the step. `due`: work due by its end.
    `due_in_turn`: the same where work is served in the order of arrival: what is ahead of urgent work is as urgent.
    `after_steps` and `after_due`, both of shape (n,): work due within so many steps after the last one, `due` included.
    Raises ValueError when more is due than has arrived.
    """

    arrived: Values
    due: Values
    due_in_turn: Values
    after_steps: Values
    after_due: Values

    def __post_init__(self) -> None:
        if np.any(self.due > self.arrived + 1e-9) or np.any(self.due_in_turn > self.arrived + 1e-9):
            raise ValueError("more work is due than has arrived by then; a deadline lies before its arrival")

    @property
    def total(self) -> float:
        return float(self.arrived[-1])


def deferrable(arrives: Counts, due: Values, work: Values, steps: int) -> Deferrable:
    """Curves of pieces of `work` that arrive in step `arrives`, in that order, and are due by the end of step `due`.

    All of shape (pieces,); `due` may lie at `steps` or later, or be infinite.
    """
    in_turn = np.maximum(np.minimum.accumulate(due[::-1])[::-1], arrives)
    late = in_turn >= steps
    after = np.where(np.isfinite(in_turn), in_turn - steps + 1.0, np.inf)
    order = np.argsort(after[late], kind="stable")
    done_before = float(work[~late].sum())
    arrived = _cumulative(arrives.astype(np.float64), work, steps)
    return Deferrable(
        arrived=arrived,
        # Sums in another order differ by rounding: nothing is due before it is there.
        due=np.minimum(_cumulative(np.maximum(due, arrives), work, steps), arrived),
        due_in_turn=np.minimum(_cumulative(in_turn, work, steps), arrived),
        after_steps=after[late][order],
        after_due=done_before + np.cumsum(work[late][order]),
    )


def _cumulative(step: Values, work: Values, steps: int) -> Values:
    within = step < steps
    return np.cumsum(np.bincount(step[within].astype(np.int64), weights=work[within], minlength=steps))


def done(arrived: Values, room: Values) -> Values:
    """Work done by the end of each step when each has `room` for some; all of shape (steps,).

    None is done before it arrives: S_t = min(A_t, S_{t-1} + room_t), Lindley's recursion in closed form (Reich 1958).
    """
    offered = np.cumsum(room)
    return np.minimum(offered + np.minimum(np.minimum.accumulate(arrived - offered), 0.0), arrived)


def cheapest_service(work: Deferrable, prices: Values, after: float) -> float:
    """Least cost of serving all of it where a unit-step costs `prices`, shape (steps,), in the run and `after` behind.

    Curves bind their q-th unit of work to a window, from its arrival to its deadline in the order of deadlines; windows
    do not overtake one another, so that each may take its own cheapest step.
    """
    steps = len(prices)
    edges = np.unique(np.concatenate(([0.0], work.arrived, work.due)))
    amount, middle = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    first = np.searchsorted(work.arrived, middle)
    last = np.searchsorted(work.due, middle)
    cheapest = _window_minimum(prices, first, np.minimum(last, steps - 1))
    cheapest = np.where(last >= steps, np.minimum(cheapest, after), cheapest)
    return float(amount @ cheapest)


def _window_minimum(values: Values, first: Counts, last: Counts) -> Values:
    """min(values[first..last]) for each window, ends included, from a table of minima over powers of two."""
    table = [values]
    while 2 ** len(table) <= len(values):
        half = 2 ** (len(table) - 1)
        table.append(np.minimum(table[-1][:-half], table[-1][half:]))
    level = np.log2(last - first + 1).astype(np.int64)
    found = np.empty(len(first))
    for power in np.unique(level).tolist():
        chosen = level == power
        row = table[power]
        found[chosen] = np.minimum(row[first[chosen]], row[last[chosen] - 2**power + 1])
    return found
