"""One pool with work that may wait: a linear program prices capacity, a dynamic program turns prices into a bound.

With a price p_t for a unit-step of capacity in step t, serving the load costs p_t, every unit standing earns p_t, and
deferrable work buys where it is cheapest. The sum of the three minima is a lower bound for any p >= 0 (Lagrangian
duality on x_t - load_t (1 - violated_t) - z_t >= 0, where z_t is deferrable work done). The linear program gives good
prices, and a fractional plan to round.
"""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from controller.bound.budget import Bracket, within_budget
from controller.bound.deferrable import Deferrable, cheapest_service
from controller.bound.feasible import cost_in_all, trimmed
from controller.bound.lagrangian import StepPrices, best_price
from controller.bound.levels import least_plan
from controller.bound.linear import LinearProgram, solve
from controller.bound.need import Counts, Need, Values

_HALVINGS = 30


def with_deferrable(need: Need, load: Values, work: Deferrable, budget: int, *, time_limit_s: float = 60.0) -> Bracket:
    """The bracket of plans that violate at most `budget` steps and miss no deadline.

    `load`, shape (steps,), is the interactive work of each step in unit-steps; `need.required` covers it.
    """
    alone = within_budget(need, budget)
    violated = alone.violated
    excused = need.excused(violated)
    prices, fractional = _prices(excused, np.where(violated, 0.0, load), work, time_limit_s)
    prices = fair_prices(need, prices)
    bought = StepPrices(hold=1.0 - prices, serve=prices * load)
    bound = best_price(need, budget, bought).bound + cheapest_service(work, prices, after=1.0)
    plan = _rounded(excused, load, work, fractional, alone.plan)
    return Bracket(
        lower=max(alone.lower, bound),
        upper=cost_in_all(need, load, work, plan),
        plan=plan,
        violated=plan < need.required,
    )


def fair_prices(need: Need, prices: Values) -> Values:
    """`prices`, shape (steps,), scaled down until no further unit pays for itself in any stretch of steps.

    Otherwise a plan of endless units would be cheapest, and the bound would say nothing. A solver's prices need it for
    their rounding only.
    """
    prices = np.maximum(prices, 0.0)
    low, high = 0.0, 1.0
    if _no_unit_pays(need, prices):
        return prices
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _no_unit_pays(need, middle * prices):
            low = middle
        else:
            high = middle
    return low * prices


def _no_unit_pays(need: Need, prices: Values) -> bool:
    cost = np.concatenate(([0.0], np.cumsum(1.0 - prices)))
    cheapest_stretch = float((cost - np.maximum.accumulate(cost)).min())
    free = need.initial is None  # what stands from the beginning then has no start to pay
    return cheapest_stretch + need.start_steps >= 0 and not (free and float(cost.min()) < 0)


def _prices(need: Need, load: Values, work: Deferrable, time_limit_s: float) -> tuple[Values, Values]:
    """Prices of capacity and units READY, both of shape (steps,); zeros and the need where the solver gives nothing.

    Columns: units READY, units started, work done by the end of each step. What is left is served behind the last step.
    """
    steps = len(load)
    one, none = sp.eye_array(steps, format="csr"), sp.csr_array((steps, steps))
    change = sp.diags_array([np.ones(steps), -np.ones(steps - 1)], offsets=[0, -1], format="csr")
    initial = np.zeros(steps)
    initial[0] = np.inf if need.initial is None else need.initial
    answer = solve(
        LinearProgram(
            cost=np.concatenate([np.ones(steps), np.full(steps, need.start_steps), np.zeros(steps - 1), [-1.0]]),
            lower=np.concatenate([need.required, np.zeros(steps), work.due]),
            upper=np.concatenate([np.full(2 * steps, np.inf), work.arrived]),
            rows=sp.vstack([sp.hstack([change, -one, none]), sp.hstack([one, none, -change])]),
            row_lower=np.concatenate([np.full(steps, -np.inf), load]),
            row_upper=np.concatenate([initial, np.full(steps, np.inf)]),
        ),
        time_limit_s=time_limit_s,
    )
    if not answer.optimal:
        return np.zeros(steps), need.required.astype(np.float64)
    return answer.price[steps:], answer.x[:steps]


def _rounded(need: Need, load: Values, work: Deferrable, fractional: Values, alone: Counts) -> Counts:
    """The cheapest of several plans in whole units; serving everything on arrival keeps every deadline that can be."""
    most = need.reachable()
    arriving = np.ceil(load + np.diff(work.arrived, prepend=0.0) - 1e-9).astype(np.int64)
    on_arrival = replace(need, required=np.maximum(need.required, np.minimum(arriving, most)))
    up = np.clip(np.ceil(fractional - 1e-6).astype(np.int64), need.required, most)
    choices = [trimmed(need, load, work, up), least_plan(on_arrival), np.maximum(alone, need.required)]
    return min(choices, key=lambda plan: cost_in_all(need, load, work, plan))
