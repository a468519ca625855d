"""A better bound than the relaxation's, one model at a time: quotas replaced by the rents that GPUs have in it.

Without quotas models do not meet, so whatever the rents, sum over models of (least cost with rents) - rents x quotas is
a bound of every plan (Lagrangian relaxation: Geoffrion, Mathematical Programming Study 2, 1974). With the relaxation's
own rents and fractions it is the relaxation's bound; whole servers within each model lift it.
"""

from dataclasses import replace

import numpy as np

from controller.program.highs import Stopwatch
from controller.program.relaxation import Relaxation
from controller.program.search import Found, branch_and_bound
from controller.program.table import Table

_MODEL_GAP = 1e-4
_MODEL_LIMIT_S = 1.0


def tighter_bound(
    table: Table, found: Found, relaxation: Relaxation, *, gap: float, stopwatch: Stopwatch, until_s: float
) -> Found:
    """`found` with the bound lifted model by model, the most doubtful first, until within `gap` or out of time."""
    rented = replace(table, hold=table.hold + relaxation.rent[table.slot] * table.gpus)
    inside = [np.flatnonzero(table.model == model) for model in range(len(table.models))]
    doubt = []
    for model, own in enumerate(inside):
        part, _ = rented.of_models(np.array([model]), np.zeros_like(found.counts))
        doubt.append(part.cost(found.counts[own]) - part.cost(relaxation.counts[own]))
    bound = found.bound
    for model in np.argsort(-np.array(doubt), kind="stable").tolist():
        left_s = until_s - stopwatch.seconds()
        if left_s <= 0 or found.cost - bound <= gap * found.cost:
            break
        part, own = rented.of_models(np.array([model]), np.zeros_like(found.counts))
        limit_s = min(left_s, _MODEL_LIMIT_S)
        _, ending = branch_and_bound(part, found.counts[own], gap=_MODEL_GAP, time_limit_s=limit_s)
        if ending.bound is not None:
            bound += max(0.0, ending.bound - part.cost(relaxation.counts[own]))
    return replace(found, bound=bound)
