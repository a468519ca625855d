"""The linear relaxation: what the program costs at least, and what each row that binds is worth."""

from dataclasses import dataclass

import numpy as np

from controller.program.formulation import Row, state
from controller.program.highs import run
from controller.program.table import Floats, Table
from controller.types import Binding

MOST_BINDING = 20
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxation:
    """Of an LP: x by placement, its cost (a bound of every plan's), and the duals.

    `worth`: what one token/s more of capacity saves, by model (the dual of its global row); `rent`: what one GPU more
    saves, by slot; both in the objective's unit over the period, 0 or more.
    """

    counts: Floats
    bound: float
    worth: Floats
    rent: Floats
    binding: tuple[Binding, ...]
    variables: int
    constraints: int


def relax(table: Table, *, elastic: bool = False) -> Relaxation | None:
    """Solve the relaxation to its end; None where nothing satisfies the rows. The elastic form always has an answer."""
    statement = state(table, whole=False, elastic=elastic)
    ending = run(statement.lp, whole=False)
    if ending.objective is None:
        return None
    prices = {(row.family, row.subject): (row.constraint.pi or 0.0) / _scale(row) for row in statement.rows}
    return Relaxation(
        counts=statement.counts(),
        bound=ending.objective,
        worth=np.array([prices.get(("global", model), 0.0) for model in table.models]),
        rent=np.array([-prices.get(("quota", "/".join(slot)), 0.0) for slot in table.slots]),
        binding=_binding(statement.rows, table.hours),
        variables=ending.variables,
        constraints=ending.constraints,
    )


def _binding(rows: list[Row], hours: float) -> tuple[Binding, ...]:
    """The rows that bind, at most MOST_BINDING of them, first those whose whole right side is worth most.

    Shadow prices are in USD/h (GPUs where a price is unknown) per unit of the right side: per token/s of a local row
    (of the share that must be local) or a global one, per server of a minimum, per GPU of a quota. What one more of it
    adds to the cost: 0 or more for what must be reached, below 0 for a quota.
    """
    weighed = []
    for row in rows:
        price = (row.constraint.pi or 0.0) / _scale(row) / hours
        weight = abs(price) * row.right_side
        if weight > _NOTHING:
            weighed.append((weight, Binding(family=row.family, subject=row.subject, shadow_price=price)))
    weighed.sort(key=lambda each: (-each[0], each[1].family, each[1].subject))
    return tuple(binding for _, binding in weighed[:MOST_BINDING])


def _scale(row: Row) -> float:
    return 1.0 if row.family == "quota" else row.right_side
