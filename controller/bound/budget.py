"""One pool within a budget of violated steps: a lower bound, and a plan that keeps the budget."""

from dataclasses import dataclass

import numpy as np

from controller.bound.lagrangian import StepPrices, best_price, cheapest_at
from controller.bound.levels import least_plan
from controller.bound.need import Counts, Mask, Need, unit_steps

_STRETCHES_TRIED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    """The cost of the best plan lies within `lower`..`upper` unit-steps; `plan` costs `upper`.

    `plan` (units) and `violated` have shape (steps,).
    """

    lower: float
    upper: float
    plan: Counts
    violated: Mask


def within_budget(need: Need, budget: int) -> Bracket:
    """The bracket of plans that violate at most `budget` steps; exact (lower = upper) for a budget of 0."""
    plan = least_plan(need)
    cost = unit_steps(need, plan)
    if budget == 0 or plan.max() == need.least:
        return Bracket(lower=cost, upper=cost, plan=plan, violated=np.zeros(len(plan), dtype=np.bool_))
    prices = StepPrices.plain(len(need.required))
    best = best_price(need, budget, prices)
    violated = _steps_to_violate(need, budget, prices, best.below, best.above)
    plan = least_plan(need.excused(violated))
    return Bracket(lower=best.bound, upper=unit_steps(need, plan), plan=plan, violated=plan < need.required)


def _steps_to_violate(need: Need, budget: int, prices: StepPrices, below: float, above: float) -> Mask:
    """At most `budget` steps: those of the plan for the price above, and of the one below as far as the budget goes.

    Both plans are (nearly) cheapest at the best price, so wherever they meet one may go over into the other at no
    Lagrangian cost: what the mixture costs above the bound is the price of the budget left unspent.
    """
    plan, violated = cheapest_at(need, prices, above)
    while violated.sum() > budget:
        above = 2 * above + 1
        plan, violated = cheapest_at(need, prices, above)
    other, more = cheapest_at(need, prices, below)
    edges = np.flatnonzero(np.diff((plan != other).astype(np.int8), prepend=0, append=0))
    stretches = edges.reshape(-1, 2)
    extra = np.array([int(more[a:b].sum()) - int(violated[a:b].sum()) for a, b in stretches], dtype=np.int64)
    too_long = []
    for index in np.argsort(-extra, kind="stable"):
        a, b = stretches[index]
        if 0 < extra[index] <= budget - violated.sum():
            violated[a:b] = more[a:b]
        elif extra[index] > 0:
            too_long.append((a, b))
    return _spent(need, budget, violated, [np.flatnonzero(more[a:b] & ~violated[a:b]) + a for a, b in too_long])


def _spent(need: Need, budget: int, violated: Mask, stretches: list[Counts]) -> Mask:
    """The budget that is left goes to either end of one of these stretches, whichever makes the cheapest plan."""
    left = budget - int(violated.sum())
    choices = [violated]
    for steps in stretches[:_STRETCHES_TRIED] if left else []:
        for part in (steps[:left], steps[-left:]):
            more = violated.copy()
            more[part] = True
            choices.append(more)
    return min(choices, key=lambda choice: unit_steps(need, least_plan(need.excused(choice))))
