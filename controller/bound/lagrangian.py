"""A budget of violated steps, priced: an exact dynamic program for a given price, and the best price.

For a price of `violation` unit-steps per violated step,

    D(violation) = min_x sum_t (hold_t x_t + violation [x_t < required_t] + L max(0, x_t - x_{t-1})) - violation budget

is at most the cost of any plan that violates no more than `budget` steps (weak duality), whatever the price; the
largest D is the bound. The minimum over x is exact: the cheapest way to x units is a cumulative minimum from
either side.
"""

from dataclasses import dataclass

import numpy as np

from controller.bound.need import Counts, Mask, Need, Values

_PRICES_AT_ONCE = 16
_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrices:
    """Costs of a step besides violations, each of shape (steps,).

    `hold`: of holding one unit (1, less what its capacity is worth). `serve`: of serving the step's load, which a
    violated step saves.
    """

    hold: Values
    serve: Values

    @classmethod
    def plain(cls, steps: int) -> "StepPrices":
        return cls(hold=np.ones(steps), serve=np.zeros(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPrice:
    """The largest D found, in unit-steps, and prices on either side of where it lies."""

    bound: float
    below: float
    above: float


def best_price(need: Need, budget: int, prices: StepPrices) -> BestPrice:
    """The price of a violated step with the largest D. Any price gives a bound: the search need not be exact."""
    if budget == 0:
        never = float(_values(need, prices, np.array([np.inf])).min())
        return BestPrice(bound=never, below=np.inf, above=np.inf)
    most = _dearest(need, prices)
    grid = np.concatenate(([0.0], np.geomspace(min(1e-2, most / 2), most, _PRICES_AT_ONCE - 1)))
    bound, below, above = -np.inf, 0.0, most
    for _ in range(_PASSES):
        found = _values(need, prices, grid).min(axis=0) - grid * budget
        at = int(np.argmax(found))  # D is concave: its maximum lies between the neighbours of the best
        bound = max(bound, float(found[at]))
        below, above = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)])
        grid = np.linspace(below, above, _PRICES_AT_ONCE)
    return BestPrice(bound=bound, below=below, above=above)


def cheapest_at(need: Need, prices: StepPrices, violation: float) -> tuple[Counts, Mask]:
    """The plan that is cheapest at this price, and the steps that it violates; both of shape (steps,)."""
    steps = len(need.required)
    kept = np.empty((steps, _most_units(need) + 1))
    last = _values(need, prices, np.array([violation]), kept)
    units = np.arange(len(last))
    plan = np.empty(steps, dtype=np.int64)
    plan[-1] = int(np.argmin(last[:, 0]))
    for t in range(steps - 2, -1, -1):
        rise = np.maximum(plan[t + 1] - units, 0)
        plan[t] = int(np.argmin(kept[t] + need.start_steps * rise))
    violated = (plan < need.required) | (prices.serve > violation)
    return plan, violated


def _values(need: Need, prices: StepPrices, violation: Values, kept: Values | None = None) -> Values:
    """Least cost by (units READY in the last step, price), shape (units + 1, prices); `kept` gets those of every step
    for the first price, shape (steps, units + 1).
    """
    least, most = need.least, _most_units(need)
    units = np.arange(most + 1, dtype=np.float64)[:, None]
    start = need.start_steps * units
    initial = most if need.initial is None else need.initial
    value = np.repeat(need.start_steps * np.maximum(units - initial, 0.0), len(violation), axis=1)
    value[:least] = np.inf
    spent = np.empty_like(value)
    for t, required in enumerate(need.required.tolist()):
        if t:
            # Fall to x from above for nothing, or rise to it from below at `start` per unit.
            np.minimum.accumulate(value[::-1], axis=0, out=value[::-1])
            np.subtract(value, start, out=spent)
            np.minimum.accumulate(spent, axis=0, out=spent)
            np.add(spent, start, out=value)
            value[:least] = np.inf
        value += prices.hold[t] * units
        value[:required] += violation
        if prices.serve[t]:
            value[required:] += np.minimum(prices.serve[t], violation)
        if kept is not None:
            kept[t] = value[:, 0]
    return value


def _most_units(need: Need) -> int:
    return max(int(need.required.max()), need.initial or 0)


def _dearest(need: Need, prices: StepPrices) -> float:
    """A price at which no step is violated: more than raising every unit for one step and serving it."""
    one = float(np.max(prices.hold)) + need.start_steps
    return 1.0 + _most_units(need) * max(one, 1.0) + float(np.max(prices.serve))
