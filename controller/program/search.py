"""From a plan to a better one: models one at a time, then branch and bound over all of them."""

from dataclasses import dataclass

import numpy as np

from controller.program.formulation import state
from controller.program.highs import Ending, Stopwatch, relative_gap, run
from controller.program.one_model import best_of_model
from controller.program.relaxation import Relaxation
from controller.program.table import Floats, Ints, Table

_ROUNDS = 4
_PAYS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The best plan known and the best bound; `route` names how it was come to."""

    counts: Ints
    cost: float
    bound: float
    route: str

    @property
    def gap(self) -> float:
        """Relative to the cost; 0 where nothing costs anything."""
        return relative_gap(self.cost, self.bound)


def model_by_model(
    table: Table, found: Found, relaxation: Relaxation, *, gap: float, stopwatch: Stopwatch, until_s: float
) -> Found:
    """The best plan of each model while the others stand, again and again until nothing changes or it is within `gap`.

    Models meet in the quotas: in the first round a GPU costs its rent (the relaxation's dual) too, so that a model
    leaves to others what they need more.
    """
    counts = found.counts.copy()
    best, least = found.counts, found.cost
    rented = table.hold + relaxation.rent[table.slot] * table.gpus
    for round_number in range(_ROUNDS):
        hold = rented if round_number == 0 else table.hold
        changed = False
        for model in np.argsort(-_waste(table, counts, relaxation), kind="stable").tolist():
            if stopwatch.seconds() > until_s:
                break
            changed |= _improve(table, model, counts, hold)
        cost = table.cost(counts)
        if cost < least * (1 - _PAYS):
            best, least = counts.copy(), cost
        within = least - found.bound <= gap * least
        if within or stopwatch.seconds() > until_s or (round_number > 0 and not changed):
            break
    route = "rounded, then model by model" if least < found.cost else found.route
    return Found(counts=best, cost=least, bound=found.bound, route=route)


def _improve(table: Table, model: int, counts: Ints, hold: Floats) -> bool:
    """In place; whether the model's part of the plan became cheaper with `hold` per server."""
    inside = np.flatnonzero(table.model == model)
    free = table.quota - table.gpus_held(counts)
    best = best_of_model(table, model, counts, free, hold)
    if best is None:
        return False

    def cost(x: Ints) -> float:
        return float(hold[inside] @ x + table.start[inside] @ np.maximum(x - table.standing[inside], 0))

    if cost(best) >= cost(counts[inside]) * (1 - _PAYS):
        return False
    counts[inside] = best
    return True


def branch_and_bound(
    table: Table, counts: Ints | None, *, gap: float, time_limit_s: float, elastic: bool = False
) -> tuple[Ints | None, Ending]:
    """The plan that the solver ends with, None without one; never worse than `counts`, from which it starts."""
    statement = state(table, elastic=elastic)
    if counts is not None:
        statement.set_counts(counts, table.standing)
    ending = run(statement.lp, whole=True, gap=gap, time_limit_s=time_limit_s)
    return (None if ending.objective is None else np.rint(statement.counts()).astype(np.int64)), ending


def _waste(table: Table, counts: Ints, relaxation: Relaxation) -> Floats:
    """By model: what it costs above its part of the relaxation, GPUs at their rent; in the objective's unit."""
    more = np.maximum(counts - table.standing, 0) - np.maximum(relaxation.counts - table.standing, 0.0)
    cost = (table.hold + relaxation.rent[table.slot] * table.gpus) * (counts - relaxation.counts) + table.start * more
    return np.bincount(table.model, weights=cost, minlength=len(table.models)).astype(np.float64)
